"""Switching the scoring of an asset, a class or the whole fleet off and on: entries of the registry's chain.

An entry "block" or "unblock" names its subject in details.switch; the newest word on a subject counts. Scorers that
follow a stage of the registry obey within one look. An asset is off while it, its class or the fleet is.

An entry that names no subject known here (damaged, or of a later version) does nothing, and is told: were it a broken
chain, one such word would silence all later ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wheeltapper.chain import Entry, check_signature
from wheeltapper.errors import Refused, UsageError
from wheeltapper.signing import TrustedKeys

KINDS = ("asset", "class", "fleet")
NAME_CHARACTERS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Blocked:
    """What is switched off."""

    fleet: bool = False
    classes: frozenset[str] = frozenset()
    assets: frozenset[str] = frozenset()
    ignored: tuple[int, ...] = field(default=())  # entries that no trusted key signed, or that name no subject

    def covers(self, asset_class: str, asset_id: str) -> bool:
        return self.fleet or asset_class in self.classes or asset_id in self.assets

    def covers_nothing(self) -> bool:
        return not (self.fleet or self.classes or self.assets)


def switch_details(kind: str, name: str) -> dict[str, Any]:
    """The details of an entry about the asset, class or fleet (which has no name). Raises UsageError."""
    if not _is_subject(kind, name):
        raise UsageError(
            f"expected an asset or a class with a name of 1 to {NAME_CHARACTERS_MAX:,} characters, or the fleet; "
            f"found {kind} {name[:99]!r}"
        )
    return {"switch": {"kind": kind, "name": name}}


def subject_of(entry: Entry) -> tuple[str, str] | None:
    """The kind and name that a "block" or "unblock" is about; None where it names none that is known here."""
    switch = entry.document["details"].get("switch")
    if not isinstance(switch, Mapping):
        return None
    kind, name = switch.get("kind"), switch.get("name")
    return (str(kind), str(name)) if _is_subject(kind, name) else None


def blocked_after(before: Blocked, entries: Sequence[Entry], trusted: TrustedKeys | None) -> Blocked:
    """What stands switched off after `entries`, in order: a whole chain, or what follows one that says `before`. With
    `trusted`, an entry that none of these keys signed does nothing: whoever may write files may neither silence a fleet
    nor wake it."""
    if not entries:
        return before
    off = {("class", name) for name in before.classes} | {("asset", name) for name in before.assets}
    off |= {("fleet", "")} if before.fleet else set()
    ignored = list(before.ignored)
    for entry in entries:
        if entry.action not in ("block", "unblock"):
            continue
        if trusted is not None:
            try:
                check_signature(entry, trusted)
            except Refused:
                ignored.append(entry.number)
                continue
        if (subject := subject_of(entry)) is None:
            ignored.append(entry.number)
            continue
        (off.add if entry.action == "block" else off.discard)(subject)
    names = {kind: frozenset(name for of, name in off if of == kind) for kind in KINDS}
    return Blocked(bool(names["fleet"]), names["class"], names["asset"], tuple(ignored))


def _is_subject(kind: Any, name: Any) -> bool:
    return (
        kind in KINDS
        and isinstance(name, str)
        and (kind == "fleet") == (name == "")
        and len(name) <= NAME_CHARACTERS_MAX
    )
