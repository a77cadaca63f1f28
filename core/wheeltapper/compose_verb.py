"""`wheeltapper release compose`: a candidate made of a release and single classes and assets of others."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wheeltapper_command.table import table
from wheeltapper_command.verb import Outcome

from wheeltapper.errors import UsageError
from wheeltapper.release_words import find, gates_in_words, move, registry_of, signed, who

if TYPE_CHECKING:
    from wheeltapper.composed_release import Composed
    from wheeltapper.registry import Registry, Release
    from wheeltapper.signing import TrustedKeys

_PARTS_SHOWN = 40

SUMMARY = "a new candidate: a release with single classes or assets of others"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("base", metavar="BASE", help="the release that the rest comes from: a number, or a stage")
    for option, name in (("--class", "NAME"), ("--asset", "ID")):
        parser.add_argument(
            option,
            dest=option.strip("-") + "_from",
            action="append",
            default=[],
            metavar=f"{name}=RELEASE",
            help=f"take this {option.strip('-')} from that release (a number, or a stage); again for more",
        )
    parser.add_argument(
        "--trusted-key",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="who may have signed the releases that parts come from, beside --key; again for more",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what it would be")
    signed(parser)


def run(options: argparse.Namespace) -> Outcome:
    from wheeltapper.composed_release import compose  # noqa: PLC0415  a verb imports what it needs when it runs

    registry = registry_of(options)
    base = find(registry, options.base)
    classes = _named(registry, "--class", options.class_from)
    assets = _named(registry, "--asset", options.asset_from)
    made = compose(registry, base, classes, assets, _trusted(options))
    release = None
    if not options.dry_run:
        release = registry.publish(made.data, who=who(options), why=options.why, gates=made.gates, details=made.details)
    result = {
        "release": release.number if release else None,
        "published": release is not None,
        "pack": made.sha256,
        "bytes": len(made.data),
        **made.details,
        "gates": list(made.gates),
        "alarms": list(made.alarms),
    }
    return Outcome(result, "\n".join([_head(made, release), "", *_body(made)]))


def parts_text(composed: Mapping[str, Any]) -> list[str]:
    """Which release trained what, for people. composed: as in a release's details."""
    if not composed:
        return []
    rows = [
        [f"{what} {name}", _release(number)]
        for what, key in (("class", "classes"), ("asset", "assets"))
        for name, number in composed[key].items()
    ]
    lines = [f"composed from release {composed['base']}", "", table(["part", "trained in"], rows[:_PARTS_SHOWN])]
    more = len(rows) - _PARTS_SHOWN
    return [*lines, f"… and {more:,} more; -o json shows all"] if more > 0 else lines


def _trusted(options: argparse.Namespace) -> TrustedKeys | None:
    """Whoever signs vouches for every part: each must be signed by that key, or by one that is trusted."""
    from wheeltapper.signing import Signer, TrustedKeys  # noqa: PLC0415  as in `run`

    if not options.key and not options.trusted_key:
        return None
    return TrustedKeys.from_files(options.trusted_key, Signer.from_file(options.key) if options.key else None)


def _named(registry: Registry, option: str, words: Sequence[str]) -> dict[str, Release]:
    """NAME=RELEASE, each name once. A name may hold an equals sign, a release cannot."""
    found: dict[str, Release] = {}
    for word in words:
        name, sign, release = word.rpartition("=")
        if not (name and sign and release):
            raise UsageError(f"{option}: expected NAME=RELEASE, found {word!r}", f"write {option} {word or 'NAME'}=3")
        if name in found:
            raise UsageError(f"{option}: expected {name!r} once, found it again", "a part comes from one release")
        found[name] = find(registry, release)
    return found


def _head(made: Composed, release: Release | None) -> str:
    size = f"{len(made.data):,} bytes"
    if release is None:
        return f"nothing was published: it would be pack {made.sha256} ({size})"
    document = release.moved_by.document
    return f"release {release.number}, {size} · {document['stage']}: {move(document)} (by {document['who']})"


def _body(made: Composed) -> list[str]:
    lines = parts_text(made.details["composed"])
    if made.alarms:
        rows = [
            [
                f"{change['class']}/{change['output']}",
                change["what"],
                _shown(change["before"]),
                _shown(change["after"]),
                change["assets"][0] if len(change["assets"]) == 1 else f"{len(change['assets']):,} assets",
            ]
            for change in made.alarms
        ]
        header = ["alarms follow the class", "", "where it comes from", "now", "of"]
        lines += ["", table(header, rows)]
    failed = [gate for gate in made.gates if not gate["passed"]]
    lines += ["", f"gates carried over: {gates_in_words(made.gates)}"]
    lines += [f"  failed in release {gate['release']}: {gate['output']} {gate['metric']}" for gate in failed]
    return lines


def _release(number: int | None) -> str:
    return "a release that this registry has not" if number is None else f"release {number}"


def _shown(value: Any) -> str:
    return "none" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
