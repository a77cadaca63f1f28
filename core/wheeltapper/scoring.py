"""The block path: one compiled call from raw columns to finished answer columns.

A block is a set of readings. Its rows are handled asset by asset in order of event time: clean, place in the ring,
compute features, walk the forests, turn margins into values, step the alarms. Afterwards the readings scored earlier
whose window a late row has changed are scored again: the revisions. Nothing here allocates.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from wheeltapper.ahead import fetch_windows
from wheeltapper.alarms import alarm_step
from wheeltapper.features import feature_row
from wheeltapper.forest import Forest, fetch, margin, spread
from wheeltapper.kernel import heapless_kernel, inline_kernel, merged_kernel
from wheeltapper.moments import HIGH, LOW, MOMENTS, PRESENT
from wheeltapper.outputs import anomaly_residual, anomaly_value, failure_value, rul_value
from wheeltapper.readings import clean_row
from wheeltapper.spec import LEVELS
from wheeltapper.windows import EMPTY, Plan, RowStatus, Windows, place, take_event

RUL, FAILURE, ANOMALY = range(3)  # positions in spec.TARGET_KINDS
_OWN = LEVELS.index("asset")  # the level whose trees no other asset shares
GAPS, LATE, STUCK = 8, 16, 32  # health bits; clean_row gives 1, 2 and 4

_EMPTY = int(EMPTY)
_OK, _DUPLICATE, _SUPERSEDED, _TOO_LATE = (int(RowStatus[n]) for n in ("OK", "DUPLICATE", "SUPERSEDED", "TOO_LATE"))
_FUTURE, _UNKNOWN, _NO_MODEL, _TAKEN = (int(RowStatus[n]) for n in ("FUTURE", "UNKNOWN_HANDLE", "NO_MODEL", "TAKEN"))
_TIME_MIN = -(2**61)  # µs; anything older is no clock, and differences of slots must not overflow
_NEVER = 2**62
# Numba compiles a callee once for every constant it is handed; int(…) of a constant is a number like any other, and
# leaves one variant of each function: a third of the time of a cold start.
_NONE = 0


class Heads(NamedTuple):
    """What a class's outputs are made of. O outputs, s slots, n sensors with features."""

    kind: npt.NDArray[np.uint8]  # [O]
    slots: npt.NDArray[np.int64]  # [O, 2] first and end slot
    cap: npt.NDArray[np.float64]  # [O]
    threshold: npt.NDArray[np.float32]  # [O] NaN: no alarm
    off: npt.NDArray[np.float32]  # [O]
    hold: npt.NDArray[np.int64]  # [O]
    actual: npt.NDArray[np.int64]  # [s] the feature that an anomaly slot predicts
    moves: npt.NDArray[np.bool_]  # [n] a sensor that never stood still for a longest window in training
    level: npt.NDArray[np.uint8]  # [H]
    scale: npt.NDArray[np.float32]  # [H, 2]
    knots_of: npt.NDArray[np.int64]  # [H, 2]
    knots: npt.NDArray[np.float32]  # [K, 2]
    forest: Forest


class Assets(NamedTuple):
    """Per asset beside its windows: who answers, and how its alarms stand."""

    heads: npt.NDArray[np.int32]  # [a, s]
    start: npt.NDArray[np.float64]  # [a, ClassSpec.start_width] NaN: unknown
    alarm: npt.NDArray[np.uint8]  # [a, O]
    run: npt.NDArray[np.int64]  # [a, O] rows over the threshold in a row


class Work(NamedTuple):
    """Working memory of one call."""

    scratch: npt.NDArray[np.float64]
    row: npt.NDArray[np.float32]  # [sensors]
    features: npt.NDArray[np.float32]  # [F]
    wide: npt.NDArray[np.float32]  # [2 F + 1]
    residuals: npt.NDArray[np.float32]  # [s]


class Columns(NamedTuple):
    """Answers of n rows. `features` has no rows where nobody asked for them."""

    rows: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64]
    status: npt.NDArray[np.uint8]
    values: npt.NDArray[np.float32]  # [n, O]
    levels: npt.NDArray[np.uint8]  # [n, O]
    alarms: npt.NDArray[np.uint8]  # [n, O]
    health: npt.NDArray[np.uint8]
    features: npt.NDArray[np.float32]  # [n or 0, F]


@heapless_kernel
def _no_answer(out: Columns, i: int, status: int) -> None:
    out.status[i] = status
    for o in range(out.values.shape[1]):
        out.values[i, o] = np.nan
        out.levels[i, o] = 0
        out.alarms[i, o] = 0
    if out.features.shape[0] > 0:
        for f in range(out.features.shape[1]):
            out.features[i, f] = np.nan


@inline_kernel
def _fetch_own(heads: Heads, assets: Assets, a: int, slot: int) -> None:
    """Ask memory for the trees of one slot's head that only this asset has."""
    if slot < assets.heads.shape[1]:
        head = assets.heads[a, slot]
        if head >= 0 and heads.level[head] == _OWN:
            fetch(heads.forest, head)


@merged_kernel
def _answer(
    plan: Plan,
    windows: Windows,
    heads: Heads,
    assets: Assets,
    work: Work,
    a: int,
    slot: int,
    out: Columns,
    i: int,
    first_time: bool,
) -> None:
    """Score asset `a` as of `slot` into answer row i; the status becomes NO_MODEL where no output has a head.

    first_time: in this block. Its own trees come from memory then; they are asked for while features are computed, and
    those of each further slot while the one before it is walked.
    """
    if first_time:
        _fetch_own(heads, assets, a, int(_NONE))
    held = feature_row(plan, windows, a, slot, assets.start[a], work.scratch, work.features)
    if out.features.shape[0] > 0:
        for f in range(plan.features):
            out.features[i, f] = work.features[f]
    if plan.windows.size > 0 and 2 * held < plan.windows[plan.windows.size - 1]:
        out.health[i] |= GAPS
    longest = work.scratch[MOMENTS:]  # the last window that feature_row wrote
    for c in range(plan.sensors):
        if (
            heads.moves[c]
            and 2 * longest[PRESENT, c] > plan.windows[plan.windows.size - 1]
            and longest[LOW, c] == longest[HIGH, c]
        ):
            out.health[i] |= STUCK
    spread(work.features, work.wide)
    answered = False
    for o in range(heads.kind.size):
        first, end = heads.slots[o, 0], heads.slots[o, 1]
        head = assets.heads[a, first]
        out.alarms[i, o] = 0
        out.levels[i, o] = 0
        out.values[i, o] = np.nan
        if head < 0:
            continue
        answered = True
        out.levels[i, o] = heads.level[head]
        if heads.kind[o] == ANOMALY:
            for s in range(first, end):
                if first_time:
                    _fetch_own(heads, assets, a, s + 1)
                head = assets.heads[a, s]
                work.residuals[s - first] = (
                    anomaly_residual(
                        np.float64(work.features[heads.actual[s]]),
                        np.float64(margin(heads.forest, head, work.wide, first_time and heads.level[head] == _OWN)),
                        heads.scale[head, 0],
                        heads.scale[head, 1],
                    )
                    if head >= 0
                    else np.float32(np.nan)
                )
            out.values[i, o] = anomaly_value(work.residuals[: end - first])
        else:
            if first_time:
                _fetch_own(heads, assets, a, first + 1)
            found = np.float64(margin(heads.forest, head, work.wide, first_time and heads.level[head] == _OWN))
            scale, shift = heads.scale[head, 0], heads.scale[head, 1]
            if heads.kind[o] == RUL:
                out.values[i, o] = rul_value(found, scale, shift, heads.cap[o])
            else:
                begin, stop = heads.knots_of[head, 0], heads.knots_of[head, 1]
                out.values[i, o] = failure_value(found, scale, shift, heads.knots, begin, stop)
    if not answered:
        out.status[i] = _NO_MODEL


@inline_kernel
def _step_alarms(heads: Heads, assets: Assets, a: int, out: Columns, i: int) -> None:
    for o in range(heads.kind.size):
        state, run = alarm_step(
            assets.alarm[a, o],
            assets.run[a, o],
            out.values[i, o],
            heads.threshold[o],
            heads.off[o],
            heads.hold[o],
            heads.kind[o] == RUL,
        )
        assets.alarm[a, o] = state
        assets.run[a, o] = run
        out.alarms[i, o] = state


@heapless_kernel
def _show_alarms(heads: Heads, assets: Assets, a: int, out: Columns, i: int) -> None:
    """A row that is not the newest moves no alarm; it shows whether one is open (ACTIVE 3) or not."""
    for o in range(heads.kind.size):
        state = assets.alarm[a, o]
        out.alarms[i, o] = 3 if state == 2 or state == 3 else 0  # noqa: PLR1714  no containers in a kernel


@heapless_kernel
def _revise(
    plan: Plan,
    windows: Windows,
    heads: Heads,
    assets: Assets,
    work: Work,
    a: int,
    first: int,
    times: npt.NDArray[np.int64],
    order: npt.NDArray[np.int64],
    begin: int,
    end: int,
    revised: Columns,
    at: int,
) -> int:
    """Score the readings of `a` from slot `first` to the newest again, but for those that came in order[begin:end]."""
    again = bool(_NONE)  # not the first time
    for slot in range(first, windows.newest[a] + 1):
        time = windows.times[a, slot % plan.slots]
        while begin < end and times[order[begin]] < time:
            begin += 1
        if time == _EMPTY or (begin < end and times[order[begin]] == time):
            continue
        revised.rows[at] = a
        revised.times[at] = time
        revised.status[at] = _OK
        revised.health[at] = LATE
        _answer(plan, windows, heads, assets, work, a, slot, revised, at, again)
        _show_alarms(heads, assets, a, revised, at)
        at += 1
    return at


@inline_kernel
def score_block(
    plan: Plan,
    windows: Windows,
    heads: Heads,
    assets: Assets,
    work: Work,
    order: npt.NDArray[np.int64],
    start: int,
    rows: npt.NDArray[np.int64],
    times: npt.NDArray[np.int64],
    values: npt.NDArray[np.float32],
    now_us: int,
    historical: bool,
    repeated: bool,
    out: Columns,
    revised: Columns,
) -> tuple[int, int]:
    """Answer the rows order[start:], sorted by asset and time. rows int64 [n]: asset, −1 = unknown.

    values float32 [n, sensors] in the class's order. repeated: the block may have come before, and its answer have been
    lost; then known rows revise what they once revised.

    Returns (next position in `order`, revisions written); it stops early where `revised` could run full.
    """
    n, at, begin = order.size, int(_NONE), start
    while begin < n:
        a = rows[order[begin]]
        end = begin + 1
        while end < n and rows[order[end]] == a:
            end += 1
        if revised.rows.size - at < plan.lateness + end - begin:
            return begin, at
        if end < n and rows[order[end]] >= 0:
            fetch_windows(plan, windows, rows[order[end]], times[order[end]])
        late_from = int(_NEVER)
        fresh = end > begin
        for position in range(begin, end):
            i = order[position]
            time = times[i]
            out.rows[i] = a
            out.times[i] = time
            out.health[i] = 0
            if a < 0:
                _no_answer(out, i, int(_UNKNOWN))
                continue
            if time > now_us + plan.skew_us:
                _no_answer(out, i, int(_FUTURE))
                continue
            health = clean_row(plan, values[i], work.row)
            status, slot, lost = int(_TOO_LATE), int(_NONE), int(_EMPTY)
            if late_from != _NEVER and time > windows.times[a, windows.newest[a] % plan.slots]:
                # Before the ring moves on and drops the oldest slots of the windows to be scored again.
                at = _revise(plan, windows, heads, assets, work, a, late_from, times, order, begin, end, revised, at)
                late_from = int(_NEVER)
            if time > _TIME_MIN:
                status, slot, lost = place(plan, windows, a, time, work.row)
            out.health[i] = health
            if lost != _EMPTY:
                known = begin
                while known < position and times[order[known]] != lost:
                    known += 1
                if known < position:
                    out.health[order[known]] = 0  # as in a revision: answers do not tell how rows came in blocks
                    _no_answer(out, order[known], int(_SUPERSEDED))
                else:
                    revised.rows[at] = a
                    revised.times[at] = lost
                    revised.health[at] = 0
                    _no_answer(revised, at, int(_SUPERSEDED))
                    at += 1
            if status != _OK and status != _DUPLICATE:  # noqa: PLR1714
                _no_answer(out, i, status)
                continue
            out.status[i] = status
            newest = slot == windows.newest[a]
            if not newest:
                out.health[i] |= LATE
                if status == _OK or repeated:
                    late_from = min(late_from, slot + 1)
            _answer(plan, windows, heads, assets, work, a, slot, out, i, fresh)
            fresh = False
            if newest and status == _OK and not historical:
                _step_alarms(heads, assets, a, out, i)
            else:
                _show_alarms(heads, assets, a, out, i)
        if late_from != _NEVER:
            at = _revise(plan, windows, heads, assets, work, a, late_from, times, order, begin, end, revised, at)
        begin = end
    return n, at


@inline_kernel
def take_events(
    plan: Plan,
    windows: Windows,
    heads: Heads,
    assets: Assets,
    work: Work,
    order: npt.NDArray[np.int64],
    start: int,
    rows: npt.NDArray[np.int64],
    times: npt.NDArray[np.int64],
    features: npt.NDArray[np.uint64],
    now_us: int,
    repeated: bool,
    status: npt.NDArray[np.uint8],
    revised: Columns,
) -> tuple[int, int]:
    """Remember events order[start:], sorted by asset; features uint64 [n]: bit e set where event feature e counts it.

    Readings at or after a late event, within the allowed lateness, are scored again. Returns as `score_block` does.
    """
    n, at, begin = order.size, int(_NONE), start
    while begin < n:
        a = rows[order[begin]]
        end = begin + 1
        while end < n and rows[order[end]] == a:
            end += 1
        if revised.rows.size - at < plan.lateness + 1:
            return begin, at
        earliest = _NEVER
        for position in range(begin, end):
            i = order[position]
            if a < 0:
                status[i] = _UNKNOWN
                continue
            if times[i] > now_us + plan.skew_us:
                status[i] = _FUTURE
                continue
            if times[i] <= _TIME_MIN:
                status[i] = _TOO_LATE
                continue
            status[i] = _TAKEN
            for e in range(plan.event_since.size):
                if (features[i] >> np.uint64(e)) & np.uint64(1) and (take_event(windows, a, e, times[i]) or repeated):
                    earliest = min(earliest, times[i])
        if a >= 0 and windows.newest[a] != _EMPTY:
            slot = windows.newest[a] + 1
            oldest = max(windows.newest[a] - plan.lateness, 0 if plan.cadence_us == 0 else slot - plan.slots)
            first = slot
            while slot > oldest:
                slot -= 1
                time = windows.times[a, slot % plan.slots]
                if time != _EMPTY and time < earliest:
                    break
                if time != _EMPTY:
                    first = slot
            none = int(_NONE)
            at = _revise(plan, windows, heads, assets, work, a, first, times, order, none, none, revised, at)
        begin = end
    return n, at
