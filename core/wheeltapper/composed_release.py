"""A release made of two or more: the pack composed, its gates and lineage carried over, published as a candidate.

Composing passes no gate. Each gate of the release that a class came from, and of those that its re-pointed assets came
from, is carried as it was found there: what failed stays failed, and promotion asks for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wheeltapper.chain import Entry, check_signature
from wheeltapper.composed_content import content_of
from wheeltapper.composed_lineage import origins
from wheeltapper.composition import Parts, Source, alarm_changes, parts_of
from wheeltapper.errors import Refused, UsageError
from wheeltapper.pack import open_pack, write_pack
from wheeltapper.registry import Registry, Release
from wheeltapper.signing import TrustedKeys


@dataclass(frozen=True, slots=True)
class Composed:
    """A composed pack, not yet published. sha256: of `data`; details and gates: what its release will say; alarms:
    `alarm_changes`."""

    data: bytes
    sha256: str
    details: Mapping[str, Any]
    gates: Sequence[Mapping[str, Any]]
    alarms: Sequence[Mapping[str, Any]]


def compose(
    registry: Registry,
    base: Release,
    classes: Mapping[str, Release],
    assets: Mapping[str, Release],
    trusted: TrustedKeys | None = None,
) -> Composed:
    """`base` with the classes and assets named taken from other releases. The pack is in memory, twice at the height.

    trusted: one of these keys must have signed every release that something is taken from; None: nobody need.

    Raises UsageError where nothing is named, NotFound where a release lacks what is asked of it, Refused where parts do
    not fit together, a signature is missing, a pack is damaged, or nothing would change.
    """
    if not classes and not assets:
        raise UsageError("expected a class or an asset to re-point, found none", "name one with --class or --asset")
    releases = {release.number: release for release in (base, *classes.values(), *assets.values())}
    if trusted:
        for release in releases.values():
            check_signature(release.entry, trusted)
    opened = {number: _source(registry, release) for number, release in releases.items()}
    parts = parts_of(
        opened[base.number],
        {name: opened[release.number] for name, release in classes.items()},
        {asset: opened[release.number] for asset, release in assets.items()},
    )
    data = write_pack(content_of(parts))
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 == base.sha256:
        raise Refused(
            f"expected a composition that changes release {base.number}, found the same pack",
            "everything named comes from there already; `wheeltapper release show` says what is from where",
        )
    numbers = _numbers(registry.history(), releases.values())
    whole, moved = origins(parts)
    composed = {
        "base": base.number,
        "classes": {name: numbers.get(found) for name, found in whole.items()},
        "assets": {asset: numbers.get(found) for asset, found in moved.items()},
    }
    gates = _gates(parts, list(releases.values()), registry.history())
    return Composed(data, sha256, {"composed": composed}, gates, alarm_changes(parts))


def parts_changed(before: Release, after: Release, packs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What was trained in another release: {"part", "before", "after"} of "class NAME" and "asset ID", None where there
    is none, or where an asset is as its class. Empty where both were trained as a whole. packs: `describe` of both.
    """
    if not any(release.entry.composed for release in (before, after)):
        return []
    old, new = (
        _trained_in(release, [one["name"] for one in pack["classes"]])
        for release, pack in zip((before, after), packs, strict=True)
    )
    return [
        {"part": part, "before": old.get(part), "after": new.get(part)}
        for part in old | new
        if old.get(part) != new.get(part)
    ]


def _trained_in(release: Release, classes: Sequence[str]) -> dict[str, int | None]:
    composed = release.entry.composed
    found = {f"class {name}": composed.get("classes", {}).get(name, release.number) for name in classes}
    return found | {f"asset {asset}": number for asset, number in composed.get("assets", {}).items()}


def _source(registry: Registry, release: Release) -> Source:
    registry.check_pack(release)
    return Source(f"release {release.number}", release.sha256, open_pack(release.pack_path))


def _numbers(entries: Sequence[Entry], named: Iterable[Release]) -> dict[str, int]:
    """sha256 of a pack → its release: the one that was named, or else the first that published it."""
    found: dict[str, int] = {}
    for entry in entries:
        if entry.action == "publish":
            found.setdefault(entry.pack, entry.number)
    return found | {release.sha256: release.number for release in named}


def _gates(parts: Parts, releases: Sequence[Release], entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Every gate of what the composed pack is made of, with the release whose test part it was held against."""
    whole, moved = origins(parts)
    class_of = {asset: name for name, asset, _ in parts.members() if asset in moved}
    trained = {name: {sha256} for name, sha256 in whole.items()}
    for asset, sha256 in moved.items():
        trained[class_of[asset]].add(sha256)
    taken = {(name, source.sha256): source for name, source in (*parts.classes.items(), *parts.assets.values())}
    found: list[dict[str, Any]] = []
    for (name, sha256), source in taken.items():
        outputs = {f"{one.name}/{output.name}": one.name for one in source.pack.classes for output in one.outputs}
        still = {entry.number for entry in entries if entry.pack in trained[name]}
        for release in (release for release in releases if release.sha256 == sha256):
            found += [gate for gate in _carried(release, name, outputs, still) if gate not in found]
    return found


def _carried(
    release: Release, name: str, outputs: Mapping[str, str], still: Collection[int]
) -> Iterator[dict[str, Any]]:
    """A release's gates on one class, and those that name no class of `outputs` (which are on all of them).

    Those of a composed release name where they were held; what it no longer has in it (`still`: what it has) is left.
    """
    composed = release.entry.composed
    for gate in release.entry.document["gates"]:
        dated = gate if composed else {**gate, "release": release.number}
        of_class = outputs.get(gate["output"])
        if of_class is None or (of_class == name and (not composed or dated.get("release") in still)):
            yield dated
