"""Which moves between stages are legal: up one stage at a time, through passed gates, back to where a stage was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wheeltapper.chain import STAGES, Entry, StageState, was_in
from wheeltapper.errors import NotFound, Refused, UsageError

_OVERRIDE = "or say why it may go all the same with --override REASON, which the chain records"


def check_gates(gates: Iterable[Mapping[str, Any]]) -> None:
    """Raises UsageError unless each gate says its output, its metric and whether it passed."""
    for gate in gates:
        kinds = (("output", str), ("metric", str), ("passed", bool))
        if not all(isinstance(gate.get(key), kind) for key, kind in kinds):
            raise UsageError(f"expected a gate with output, metric (texts) and passed (true or false), found {gate!r}")


def failed_gates(entry: Entry) -> list[str]:
    """The gates that the release of a publish entry did not pass, in words; one that says nothing was not passed."""
    gates = [gate if isinstance(gate, Mapping) else {} for gate in entry.document["gates"]]
    return [_in_words(gate) for gate in gates if gate.get("passed") is not True]


def check_promotion(entries: Sequence[Entry], release: Entry, stage: str, override: str) -> None:
    """Raises Refused where the release must not enter `stage`: it was never in the stage below, or, on the way to
    production, a gate failed. An override (a reason) lets both pass."""
    if override.strip():
        return
    below = STAGES[STAGES.index(stage) - 1] if stage != STAGES[0] else None
    if below and not was_in(entries, release.number, below):
        message = f"release {release.number} was never in {below}, the stage before {stage}"
        raise Refused(message, f"`wheeltapper release promote {release.number} --to {below} …` first, {_OVERRIDE}")
    failed = failed_gates(release)
    if stage == "production" and failed:
        raise Refused(
            f"release {release.number} failed {len(failed)} gate(s): {'; '.join(failed)}", f"mend it, {_OVERRIDE}"
        )


def rollback_target(entries: Sequence[Entry], state: StageState | None, stage: str, to: int | None) -> int:
    """The release that a rollback of `stage` goes to: `to`, or the one before. Raises NotFound or Refused."""
    if state is None:
        raise NotFound(f"the stage {stage} holds no release, so there is nothing to go back from")
    if to is None:
        if len(state.trail) < 2:
            raise Refused(f"{stage} held nothing before release {state.release}", "promote another release instead")
        return state.trail[-2]
    if to == state.release:
        raise Refused(f"{stage} holds release {to} already", "name another release, or none for the one before")
    if not was_in(entries, to, stage):
        visited = sorted({entry.release for entry in entries if entry.stage == stage})
        message = f"release {to} was never in {stage}; it held {', '.join(map(str, visited))}"
        raise Refused(
            message, f"`wheeltapper release promote {to} --to {stage}` is the way for a release that is new there"
        )
    return to


def _in_words(gate: Mapping[str, Any]) -> str:
    words = (("at_most", "at most"), ("at_least", "at least"))
    bounds = [f"{word} {gate[key]}" for key, word in words if gate.get(key) is not None]
    found = gate.get("found")
    return f"{gate.get('output')} {gate.get('metric')}: expected {' and '.join(bounds) or 'a pass'}, found {found}"
