"""`wheeltapper release …`: look at the releases of a registry, move stages, check everything."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wheeltapper_command.errors import Exit
from wheeltapper_command.progress import Progress
from wheeltapper_command.table import table
from wheeltapper_command.verb import Outcome, Verb

from wheeltapper import compose_verb
from wheeltapper.release_words import find, gates_in_words, move, registry_of, signed, who

if TYPE_CHECKING:
    from wheeltapper.chain import Entry
    from wheeltapper.registry import Registry, Release

_SHA256_SHOWN = 12


def _arguments(parser: argparse.ArgumentParser) -> None:
    words = parser.add_subparsers(metavar="WORD", required=True, dest="word")

    def word(name: str, summary: str, run: Callable[[argparse.Namespace], Outcome]) -> argparse.ArgumentParser:
        own = words.add_parser(name, help=summary, description=summary)
        own.set_defaults(release_word=run)
        if name != "keygen":
            own.add_argument("--registry", type=Path, required=True, metavar="DIR", help="the registry folder")
        return own

    word("list", "every release and where it stands", _list)

    show = word("show", "one release: its gates and everything that happened to it", _show)
    show.add_argument("release", metavar="RELEASE", help="a number, or a stage")

    diff = word("diff", "what changed from one release to another", _diff)
    diff.add_argument("before", metavar="BEFORE", help="a number, or a stage")
    diff.add_argument("after", metavar="AFTER", help="a number, or a stage")

    compose_verb.arguments(word("compose", compose_verb.SUMMARY, compose_verb.run))

    promote = word("promote", "move a stage to a release", _promote)
    promote.add_argument("release", metavar="RELEASE", help="a number, or the stage that holds it")
    promote.add_argument("--to", required=True, metavar="STAGE", help="candidate, qa or production")
    promote.add_argument("--override", default="", metavar="REASON", help="pass over a failed gate or a skipped stage")
    _mover(promote)

    rollback = word("rollback", "move a stage back to what it held before", _rollback)
    rollback.add_argument("--stage", default="production", help="default: production")
    rollback.add_argument("--to", type=int, default=None, metavar="RELEASE", help="default: the one held before")
    _mover(rollback)

    for name, summary in (("block", "stop scoring an asset, a class or the fleet"), ("unblock", "score it again")):
        switch = word(name, summary, _switch)
        subject = switch.add_mutually_exclusive_group(required=True)
        subject.add_argument("--asset", default="", metavar="ID")
        subject.add_argument("--class", dest="asset_class", default="", metavar="NAME")
        subject.add_argument("--fleet", action="store_true")
        signed(switch)

    verify = word("verify", "check the whole chain, every signature, pack and pointer", _verify)
    verify.add_argument(
        "--trusted-key", action="append", default=[], type=Path, metavar="FILE", help="a public key; again for more"
    )
    verify.add_argument("--repair", action="store_true", help="first write the stage pointers again from the chain")

    prune = word("prune", "remove what killed writers left: half-written files, and packs of no release", _prune)
    prune.add_argument("--grace-hours", type=_hours, default=24.0, help="leave what is younger alone (default: 24)")
    prune.add_argument("--dry-run", action="store_true", help="only say what would go")

    keygen = word("keygen", "a new key pair for signing releases", _keygen)
    keygen.add_argument("folder", type=Path, metavar="DIR", help="where to write the two files")


def _mover(parser: argparse.ArgumentParser) -> None:
    signed(parser)
    parser.add_argument(
        "--expect", type=int, default=None, metavar="RELEASE", help="refuse unless the stage holds this one"
    )


def _run(options: argparse.Namespace, _progress: Progress) -> Outcome:
    run: Callable[[argparse.Namespace], Outcome] = options.release_word
    return run(options)


def _list(options: argparse.Namespace) -> Outcome:
    registry = registry_of(options)
    entries = registry.history()
    stages = registry.stages()
    releases = [_summary(registry, entry) for entry in entries if entry.action == "publish"]
    result = {
        "registry": str(options.registry),
        "stages": {stage: {"release": state.release, "entry": state.entry} for stage, state in stages.items()},
        "releases": releases,
        "entries": [dict(entry.document) for entry in entries],
    }
    rows = [
        [
            r["release"],
            ", ".join(r["stages"]),
            r["when"],
            r["who"],
            gates_in_words(r["gates"]),
            r["pack"][:_SHA256_SHOWN],
            r["why"],
        ]
        for r in releases
    ]
    return Outcome(result, table(["release", "stages", "published", "by", "gates", "pack", "why"], rows))


def _show(options: argparse.Namespace) -> Outcome:
    registry = registry_of(options)
    release = find(registry, options.release)
    about = [dict(entry.document) for entry in registry.history() if entry.release == release.number]
    result = {**_summary(registry, release.entry), "pack_path": str(release.pack_path), "entries": about}
    lines = [
        f"release {release.number} · stages: {', '.join(result['stages']) or 'none'}",
        f"pack {release.sha256}",
        f"published {result['when']} by {result['who']}: {result['why']}",
    ]
    composed = release.entry.composed
    lines += compose_verb.parts_text(composed)
    if result["gates"]:
        rows = [[g["output"], g["metric"], _number(g.get("found")), _bounds(g), _passed(g)] for g in result["gates"]]
        header = ["output", "metric", "found", "bound", "gate"]
        if composed:
            header.append("of release")
            rows = [[*row, gate.get("release")] for row, gate in zip(rows, result["gates"], strict=True)]
        lines += ["", table(header, rows)]
    moves = [[e["number"], e["when"], e["action"], e["stage"] or "", move(e), e["who"], _reason(e)] for e in about]
    lines += ["", table(["entry", "when", "action", "stage", "from → to", "by", "why"], moves)]
    return Outcome(result, "\n".join(lines))


def _diff(options: argparse.Namespace) -> Outcome:
    from wheeltapper.composed_release import parts_changed  # noqa: PLC0415  a verb imports what it needs when it runs
    from wheeltapper.inspect import describe  # noqa: PLC0415
    from wheeltapper.pack import open_pack  # noqa: PLC0415
    from wheeltapper.release_diff import difference, difference_text  # noqa: PLC0415

    registry = registry_of(options)
    before, after = find(registry, options.before), find(registry, options.after)
    for release in (before, after):
        registry.check_pack(release)
    packs = [describe(open_pack(release.pack_path)) for release in (before, after)]
    found = difference(*packs)
    parts = parts_changed(before, after, packs)
    names = f"release {before.number}", f"release {after.number}"
    text = difference_text(found, *names)
    if parts:
        rows = [[part["part"], _trained(part["before"]), _trained(part["after"])] for part in parts]
        text += "\n\n" + table(["trained in", *names], rows)
    return Outcome({"before": before.number, "after": after.number, **found, "trained_in": parts}, text)


def _promote(options: argparse.Namespace) -> Outcome:
    from wheeltapper.registry import AS_SEEN  # noqa: PLC0415  a verb imports what it needs when it runs

    registry = registry_of(options)
    release = find(registry, options.release)
    expect = AS_SEEN if options.expect is None else options.expect
    entries_before = len(registry.history())
    moved = registry.promote(
        release.number, options.to, who=who(options), why=options.why, override=options.override, expect=expect
    )
    if moved.moved_by.number <= entries_before:
        return Outcome(_moved(moved), f"{options.to} holds release {moved.number} already")
    return Outcome(_moved(moved), _moved_text(moved))


def _rollback(options: argparse.Namespace) -> Outcome:
    from wheeltapper.registry import AS_SEEN  # noqa: PLC0415  a verb imports what it needs when it runs

    expect = AS_SEEN if options.expect is None else options.expect
    moved = registry_of(options).rollback(
        options.stage, who=who(options), why=options.why, to=options.to, expect=expect
    )
    return Outcome(_moved(moved), _moved_text(moved))


def _switch(options: argparse.Namespace) -> Outcome:
    kind = "fleet" if options.fleet else "class" if options.asset_class else "asset"
    name = options.asset_class or options.asset
    registry = registry_of(options)
    entry = registry.switch(kind, name, on=options.word == "unblock", who=who(options), why=options.why)
    off = registry.blocked()
    shown = {"fleet": off.fleet, "classes": sorted(off.classes), "assets": sorted(off.assets)}
    done = "scored again" if options.word == "unblock" else "no longer scored"
    text = f"entry {entry.number}: {f'{kind} {name}'.strip()} is {done}; scorers obey with their next look"
    return Outcome({"entry": entry.number, "kind": kind, "name": name, "blocked": shown}, text)


def _verify(options: argparse.Namespace) -> Outcome:
    from wheeltapper.registry import Registry  # noqa: PLC0415  a verb imports what it needs when it runs
    from wheeltapper.signing import TrustedKeys  # noqa: PLC0415

    trusted = TrustedKeys.from_files(options.trusted_key) if options.trusted_key else None
    registry = Registry(options.registry, trusted=trusted)
    if options.repair:
        registry.repair()
    found = registry.verify()
    result = {
        "holds": not found.findings,
        "entries": found.entries,
        "signed": found.signed,
        "packs": found.packs,
        "stages": found.stages,
        "findings": found.findings,
    }
    counts = f"{found.entries} entries ({found.signed} signed), {found.packs} packs"
    if not found.findings:
        return Outcome(result, f"the registry holds: {counts}")
    text = "\n".join([f"the registry does not hold: {counts}", *(f"  {line}" for line in found.findings)])
    return Outcome(result, text, Exit.REFUSED)


def _hours(text: str) -> float:
    hours = float(text)
    if not 0 <= hours < float("inf"):
        raise ValueError(text)
    return hours


def _prune(options: argparse.Namespace) -> Outcome:
    registry, grace_s = registry_of(options), options.grace_hours * 3600.0
    found = {path.name: path.stat().st_size for path in registry.orphans(grace_s)}
    gone = list(found) if options.dry_run else registry.gc(grace_s)
    freed_bytes = sum(found.get(name, 0) for name in gone)
    result = {"orphans": gone, "bytes": freed_bytes, "removed": not options.dry_run}
    said = "would go" if options.dry_run else "removed"
    return Outcome(result, "\n".join([*gone, f"{len(gone)} orphans, {freed_bytes:,} bytes {said}"]))


def _keygen(options: argparse.Namespace) -> Outcome:
    from wheeltapper.signing import generate_keys  # noqa: PLC0415  a verb imports what it needs when it runs

    private, public, key_id = generate_keys(options.folder)
    result = {"private": str(private), "public": str(public), "key": key_id}
    text = f"key {key_id}\n  private (keep it secret): {private}\n  public (give it to whoever verifies): {public}"
    return Outcome(result, text)


def _summary(registry: Registry, entry: Entry) -> dict[str, Any]:
    """A release in JSON: what it is and where it stands."""
    document = entry.document
    held_by = [stage for stage, state in registry.stages().items() if state.release == entry.number]
    keys = ("when", "who", "why", "pack", "gates", "details", "key")
    return {"release": entry.number, "stages": held_by, **{key: document[key] for key in keys}}


def _moved(release: Release) -> dict[str, Any]:
    document = release.moved_by.document
    keys = ("stage", "from", "to", "who", "when", "why", "override", "key")
    return {"release": release.number, "entry": release.moved_by.number, "pack": release.sha256} | {
        key: document[key] for key in keys
    }


def _moved_text(release: Release) -> str:
    document = release.moved_by.document
    return f"{document['stage']}: {move(document)} (entry {release.moved_by.number}, by {document['who']})"


def _reason(document: Any) -> str:
    return f"{document['why']} (override: {document['override']})" if document["override"] else str(document["why"])


def _trained(release: int | None) -> str:
    return "as its class" if release is None else f"release {release}"


def _bounds(gate: dict[str, Any]) -> str:
    words = (("at_most", "≤"), ("at_least", "≥"))
    return " and ".join(f"{sign} {_number(gate[key])}" for key, sign in words if gate.get(key) is not None)


def _passed(gate: dict[str, Any]) -> str:
    return "passed" if gate["passed"] else "failed"


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


release = Verb(
    name="release",
    summary="look at the releases of a registry, promote, roll back, verify",
    example="wheeltapper release promote 7 --to production --registry registry --why 'two quiet weeks in qa'",
    arguments=_arguments,
    run=_run,
)
