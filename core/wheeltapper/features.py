"""Features: a row of numbers from one asset's window as it stood at one slot.

`feature_row` is the law; `feature_rows` drives it over an asset's history (training), `wheeltapper.live` over blocks as
they arrive (scoring).

Summation order, which decides the bits: the window's slots are cut into groups of 16 (at multiples of 16 of the slot
number on a time grid; counted back from the window's end where a slot is a reading), each group is added up in slot
order from zero, and the groups are added newest first. Longer windows therefore continue the sums of shorter ones.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from wheeltapper import kernel as kernel_module
from wheeltapper import regimes as regimes_module
from wheeltapper import statistics, windows
from wheeltapper.kernel import kernel, source_digest
from wheeltapper.regimes import Regimes
from wheeltapper.spec import MICROSECONDS_PER_HOUR, ClassSpec
from wheeltapper.windows import EMPTY, GROUP, Plan, Windows, allocate, compile_plan, place, take_event

_EMPTY = int(EMPTY)
# Rows of the scratch array: moments of the window so far, and of the group at hand.
_PRESENT, _TOTAL, _SQUARES, _CROSS, _POSITIONS, _POSITION_SQUARES, _LOW, _HIGH = range(8)
_MOMENTS = 8
_SCRATCH_ROWS = 3 * _MOMENTS

# Σ position and Σ position² over the set bits of a byte, for groups in which some values are missing.
_BIT_COUNT = np.array([bin(byte).count("1") for byte in range(256)], np.int64)
_BIT_SUM = np.array([sum(i for i in range(8) if byte >> i & 1) for byte in range(256)], np.int64)
_BIT_SQUARES = np.array([sum(i * i for i in range(8) if byte >> i & 1) for byte in range(256)], np.int64)

KERNELS = source_digest(
    Path(str(module.__file__)) for module in (statistics, windows, regimes_module, kernel_module)
) + ":" + source_digest([Path(__file__)])


def scratch_for(plan: Plan) -> npt.NDArray[np.float64]:
    """Working memory of `feature_row`: float64 [24, sensors]."""
    return np.empty((_SCRATCH_ROWS, plan.minimum.size), np.float64)


@kernel
def _reset(moments: npt.NDArray[np.float64]) -> None:
    moments[:_LOW, :] = 0.0
    moments[_LOW, :] = np.inf
    moments[_HIGH, :] = -np.inf


@kernel
def _add_slots(plan: Plan, state: Windows, a: int, first: int, last: int, end: int, moments: npt.NDArray[np.float64]) -> None:
    """Moments of slots first..last in ascending order, from zero. Positions are within the group that ends the walk."""
    _reset(moments)
    normalised = plan.centroids.shape[0] > 0
    for slot in range(first, last + 1):
        ring = slot % plan.slots
        if state.times[a, ring] == _EMPTY:
            continue
        position = np.float64(slot - end)
        regime = state.regime[a, ring]
        for c in range(moments.shape[1]):
            x = state.values[a, ring, c]
            if normalised:
                x = (x - plan.mean[regime, c]) * plan.inverse_std[regime, c]
            there = x == x
            value = np.float64(x) if there else 0.0
            one = 1.0 if there else 0.0
            moments[_PRESENT, c] += one
            moments[_TOTAL, c] += value
            moments[_SQUARES, c] += value * value
            moments[_CROSS, c] += position * value
            moments[_POSITIONS, c] += position * one
            moments[_POSITION_SQUARES, c] += position * position * one
            moments[_LOW, c] = min(moments[_LOW, c], np.float64(x) if there else np.inf)
            moments[_HIGH, c] = max(moments[_HIGH, c], np.float64(x) if there else -np.inf)


@kernel
def _merge(moments: npt.NDArray[np.float64], group: npt.NDArray[np.float64], shift: float) -> None:
    """Add a group's moments, whose positions start `shift` slots from the window's end."""
    for c in range(moments.shape[1]):
        present, total, positions = group[_PRESENT, c], group[_TOTAL, c], group[_POSITIONS, c]
        moments[_PRESENT, c] += present
        moments[_TOTAL, c] += total
        moments[_SQUARES, c] += group[_SQUARES, c]
        moments[_CROSS, c] += group[_CROSS, c] + shift * total
        moments[_POSITIONS, c] += positions + shift * present
        moments[_POSITION_SQUARES, c] += group[_POSITION_SQUARES, c] + 2.0 * shift * positions + shift * shift * present
        moments[_LOW, c] = min(moments[_LOW, c], group[_LOW, c])
        moments[_HIGH, c] = max(moments[_HIGH, c], group[_HIGH, c])


@kernel
def _merge_kept(state: Windows, a: int, group: int, shift: float, moments: npt.NDArray[np.float64]) -> None:
    """Like `_merge`, from the sums the ring keeps for a whole group."""
    sums = state.sums[a, group]
    bounds = state.bounds[a, group]
    for c in range(moments.shape[1]):
        bits = np.int64(state.presence[a, group, c])
        if bits == 0xFFFF:
            present, positions, position_squares = 16.0, 120.0, 1240.0
        else:
            low, high = bits & 0xFF, bits >> 8
            upper = _BIT_COUNT[high]
            present = np.float64(_BIT_COUNT[low] + upper)
            positions = np.float64(_BIT_SUM[low] + _BIT_SUM[high] + 8 * upper)
            position_squares = np.float64(_BIT_SQUARES[low] + _BIT_SQUARES[high] + 16 * _BIT_SUM[high] + 64 * upper)
        moments[_PRESENT, c] += present
        moments[_TOTAL, c] += sums[0, c]
        moments[_SQUARES, c] += sums[1, c]
        moments[_CROSS, c] += sums[2, c] + shift * sums[0, c]
        moments[_POSITIONS, c] += positions + shift * present
        moments[_POSITION_SQUARES, c] += position_squares + 2.0 * shift * positions + shift * shift * present
        moments[_LOW, c] = min(moments[_LOW, c], np.float64(bounds[0, c]))
        moments[_HIGH, c] = max(moments[_HIGH, c], np.float64(bounds[1, c]))


@kernel
def _scaled(plan: Plan, state: Windows, a: int, slot: int, c: int) -> float:
    """One value of the ring in the units the features use; NaN where there is none."""
    ring = slot % plan.slots
    if state.times[a, ring] == _EMPTY:
        return np.nan
    x = state.values[a, ring, c]
    if plan.centroids.shape[0] > 0:
        regime = state.regime[a, ring]
        x = (x - plan.mean[regime, c]) * plan.inverse_std[regime, c]
    return np.float64(x)


@kernel
def _ewma(plan: Plan, state: Windows, a: int, first: int, last: int, window: int, c: int) -> float:
    keep = 1.0 - 2.0 / (window + 1.0)
    weighted, weight, factor = 0.0, 0.0, 1.0
    for slot in range(last, first - 1, -1):
        x = _scaled(plan, state, a, slot, c)
        if x == x:
            weighted += factor * x
            weight += factor
        factor *= keep
    return statistics.ewma(weighted, weight)


@kernel
def _delta(plan: Plan, state: Windows, a: int, first: int, last: int, c: int) -> float:
    newest, oldest = last, first
    while newest > oldest and not _scaled(plan, state, a, newest, c) == _scaled(plan, state, a, newest, c):
        newest -= 1
    while oldest < newest and not _scaled(plan, state, a, oldest, c) == _scaled(plan, state, a, oldest, c):
        oldest += 1
    return statistics.delta(_scaled(plan, state, a, oldest, c), _scaled(plan, state, a, newest, c))


@kernel
def _write_window(
    plan: Plan,
    state: Windows,
    a: int,
    end: int,
    first: int,
    window: int,
    moments: npt.NDArray[np.float64],
    out: npt.NDArray[np.float32],
    at: int,
) -> int:
    """Every asked statistic of one window, statistic by statistic, sensor by sensor. Returns the next free column."""
    n = plan.sensors.size
    for s in range(plan.asked.size):
        if not plan.asked[s]:
            continue
        for j in range(n):
            c = plan.sensors[j]
            present = moments[_PRESENT, c]
            if s == 0:
                out[at + j] = statistics.mean(present, moments[_TOTAL, c])
            elif s == 1:
                out[at + j] = statistics.std(present, moments[_TOTAL, c], moments[_SQUARES, c])
            elif s == 2:
                out[at + j] = statistics.minimum(present, moments[_LOW, c])
            elif s == 3:
                out[at + j] = statistics.maximum(present, moments[_HIGH, c])
            elif s == 4:
                out[at + j] = statistics.value_range(present, moments[_LOW, c], moments[_HIGH, c])
            elif s == 5:
                out[at + j] = statistics.slope(
                    present,
                    moments[_TOTAL, c],
                    moments[_POSITIONS, c],
                    moments[_POSITION_SQUARES, c],
                    moments[_CROSS, c],
                )
            elif s == 6:
                out[at + j] = _ewma(plan, state, a, first, end, window, c)
            elif s == 7:
                out[at + j] = _delta(plan, state, a, first, end, c)
            else:
                out[at + j] = statistics.missing_share(present, np.float64(window))
        at += n
    return at


@kernel
def feature_row(
    plan: Plan, state: Windows, a: int, slot: int, scratch: npt.NDArray[np.float64], out: npt.NDArray[np.float32]
) -> None:
    """Write the features of asset `a` as of `slot` into `out` float32 [features].

    Later slots are not looked at, so a late reading is scored as it would have been in time.
    """
    time = state.times[a, slot % plan.slots]
    at = 0
    for j in range(plan.sensors.size):
        out[at] = _scaled(plan, state, a, slot, plan.sensors[j])
        at += 1

    walked, part, whole = scratch[:_MOMENTS], scratch[_MOMENTS : 2 * _MOMENTS], scratch[2 * _MOMENTS :]
    _reset(walked)
    grid = plan.cadence_us > 0
    # On a grid groups stand at multiples of 16; by readings they are counted back from the window's end.
    offset = 0 if grid else GROUP - 1 - slot % GROUP
    begin = (slot + offset) // GROUP * GROUP - offset  # first slot of the group at hand
    last = slot
    for w in range(plan.windows.size):
        first = slot - plan.windows[w] + 1
        while begin > first:
            if grid and last - begin == GROUP - 1:
                _merge_kept(state, a, begin % plan.slots // GROUP, np.float64(begin - slot), walked)
            else:
                _add_slots(plan, state, a, begin, last, begin, part)
                _merge(walked, part, np.float64(begin - slot))
            last = begin - 1
            begin -= GROUP
        # The window's oldest group, cut at its first slot; the walk itself stays at the group's edge.
        _add_slots(plan, state, a, first, last, begin, part)
        whole[:, :] = walked
        _merge(whole, part, np.float64(begin - slot))
        at = _write_window(plan, state, a, slot, first, plan.windows[w], whole, out, at)

    for e in range(plan.event_since.size):
        kept = state.events[a, e]
        newest = kept.size - 1
        while newest >= 0 and kept[newest] > time:
            newest -= 1
        for w in range(plan.event_begin[e], plan.event_begin[e + 1]):
            oldest = time - plan.event_windows[w]
            count = 0
            while newest - count >= 0 and kept[newest - count] > oldest and kept[newest - count] != _EMPTY:
                count += 1
            out[at] = count
            at += 1
        if plan.event_since[e]:
            known = newest >= 0 and kept[newest] != _EMPTY
            out[at] = (time - kept[newest]) / MICROSECONDS_PER_HOUR if known else np.nan
            at += 1
    for x in range(plan.statics):
        out[at] = state.statics[a, x]
        at += 1


@kernel
def clean_row(plan: Plan, row: npt.NDArray[np.float32], out: npt.NDArray[np.float32]) -> int:
    """Copy a reading with everything invalid as NaN. Returns the health bits MISSING 1, NOT_FINITE 2, OUT_OF_RANGE 4."""
    health = 0
    for c in range(row.size):
        x = row[c]
        if x != x:
            health |= 1
        elif np.isinf(x):
            health |= 2
            x = np.float32(np.nan)
        elif x < plan.minimum[c] or x > plan.maximum[c]:
            health |= 4
            x = np.float32(np.nan)
        out[c] = x
    return health


@kernel
def _drive(
    plan: Plan,
    state: Windows,
    times: npt.NDArray[np.int64],
    values: npt.NDArray[np.float32],
    event_times: npt.NDArray[np.int64],
    event_codes: npt.NDArray[np.int64],
    scratch: npt.NDArray[np.float64],
    out: npt.NDArray[np.float32],
    status: npt.NDArray[np.uint8],
) -> None:
    row = np.empty(values.shape[1], np.float32)
    event = 0
    for i in range(times.size):
        while event < event_times.size and event_times[event] <= times[i]:
            take_event(state, 0, event_codes[event], event_times[event])
            event += 1
        clean_row(plan, values[i], row)
        found, slot, lost = place(plan, state, 0, times[i], row)
        status[i] = found
        if lost != _EMPTY:
            for earlier in range(i - 1, -1, -1):
                if times[earlier] == lost:
                    status[earlier] = 2
                    out[earlier, :] = np.nan
                    break
        if found <= 1:
            feature_row(plan, state, 0, slot, scratch, out[i])
        else:
            out[i, :] = np.nan


def feature_rows(
    spec: ClassSpec,
    regimes: Regimes,
    statics: npt.NDArray[np.float32],
    times: npt.NDArray[np.int64],
    values: npt.NDArray[np.float32],
    event_times: npt.NDArray[np.int64],
    event_codes: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """The batch driver: one asset's whole history, oldest reading first.

    statics float32 [attributes]; times int64 [n] µs, ascending; values float32 [n, sensors]; events ascending by time,
    with positions in `spec.events` as codes (an event that serves two event features comes twice).
    Returns features float32 [n, features] (NaN rows where there is no score) and RowStatus uint8 [n].
    """
    plan = compile_plan(spec, regimes)
    state = allocate(plan, 1)
    state.statics[0] = statics
    out = np.empty((times.size, plan.features), np.float32)
    status = np.empty(times.size, np.uint8)
    _drive(plan, state, times, values, event_times, event_codes, scratch_for(plan), out, status)
    return out, status
