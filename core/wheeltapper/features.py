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
from wheeltapper.kernel import heapless_kernel, source_digest
from wheeltapper.regimes import Regimes
from wheeltapper.spec import MICROSECONDS_PER_HOUR, ClassSpec
from wheeltapper.windows import (
    EMPTY,
    FULL_GROUP,
    GROUP,
    NO_REGIME,
    Plan,
    Windows,
    allocate,
    compile_plan,
    place,
    take_event,
)

_EMPTY = int(EMPTY)
_FULL_GROUP = int(FULL_GROUP)
_NO_REGIME = int(NO_REGIME)
# Rows of a block of moments, float64 [8, sensors]: what is known of every sensor over some run of slots.
_TOTAL, _SQUARES, _CROSS, _LOW, _HIGH, _PRESENT, _POSITIONS, _POSITION_SQUARES = range(8)
_MOMENTS = 8
_SCRATCH_ROWS = 3 * _MOMENTS + 1

# Σ position and Σ position² over the set bits of a byte, for groups in which some values are missing.
_BIT_COUNT = np.array([bin(byte).count("1") for byte in range(256)], np.int64)
_BIT_SUM = np.array([sum(i for i in range(8) if byte >> i & 1) for byte in range(256)], np.int64)
_BIT_SQUARES = np.array([sum(i * i for i in range(8) if byte >> i & 1) for byte in range(256)], np.int64)

KERNELS = (
    source_digest(Path(str(module.__file__)) for module in (statistics, windows, regimes_module, kernel_module))
    + ":"
    + source_digest([Path(__file__)])
)


def scratch_for(plan: Plan) -> npt.NDArray[np.float64]:
    """Working memory of `feature_row`: float64 [25, sensors]."""
    return np.empty((_SCRATCH_ROWS, plan.minimum.size), np.float64)


# The loops below run over sensors, which lie side by side in memory, and each writes few arrays: that is the form which
# the compiler turns into vector instructions. Where all sensors of a slot are there, counts are kept once for all.


@heapless_kernel
def _reset(moments: npt.NDArray[np.float64]) -> None:
    moments[:, :] = 0.0
    moments[_LOW, :] = np.inf
    moments[_HIGH, :] = -np.inf


@heapless_kernel
def _add_slot(row: npt.NDArray[np.float64], position: float, m: npt.NDArray[np.float64]) -> None:
    """Add a slot in which every sensor has a value."""
    total, squares, cross = m[_TOTAL], m[_SQUARES], m[_CROSS]
    low, high = m[_LOW], m[_HIGH]
    for c in range(row.size):
        total[c] += row[c]
        squares[c] += row[c] * row[c]
        cross[c] += position * row[c]
    for c in range(row.size):
        low[c] = row[c] if row[c] < low[c] else low[c]
        high[c] = row[c] if row[c] > high[c] else high[c]


@heapless_kernel
def _add_slot_with_gaps(row: npt.NDArray[np.float64], position: float, m: npt.NDArray[np.float64]) -> None:
    """Add a slot in which some sensors are missing; adding 0.0 for those leaves the sums' bits as they are."""
    for c in range(row.size):
        there = row[c] == row[c]
        value = row[c] if there else 0.0
        one = 1.0 if there else 0.0
        m[_TOTAL, c] += value
        m[_SQUARES, c] += value * value
        m[_CROSS, c] += position * value
        m[_LOW, c] = row[c] if row[c] < m[_LOW, c] else m[_LOW, c]
        m[_HIGH, c] = row[c] if row[c] > m[_HIGH, c] else m[_HIGH, c]
        m[_PRESENT, c] += one
        m[_POSITIONS, c] += position * one
        m[_POSITION_SQUARES, c] += position * position * one


@heapless_kernel
def _scale_row(
    row: npt.NDArray[np.float32],
    mean: npt.NDArray[np.float32],
    inverse_std: npt.NDArray[np.float32],
    normalised: bool,
    out: npt.NDArray[np.float64],
) -> None:
    """A slot's values in the units the features use; the arithmetic is float32, the result float64."""
    if normalised:
        for c in range(row.size):
            out[c] = (row[c] - mean[c]) * inverse_std[c]
    else:
        for c in range(row.size):
            out[c] = row[c]


@heapless_kernel
def _add_slots(
    values: npt.NDArray[np.float32],
    regime: npt.NDArray[np.uint8],
    full: npt.NDArray[np.bool_],
    mean: npt.NDArray[np.float32],
    inverse_std: npt.NDArray[np.float32],
    normalised: bool,
    ring: int,
    position: int,
    count: int,
    row: npt.NDArray[np.float64],
    m: npt.NDArray[np.float64],
) -> tuple[int, int, int]:
    """Moments of `count` slots of a group from `ring` on, oldest first, from zero.

    Returns how many of them are full, Σ position and Σ position² over those; the others are counted per sensor in `m`.
    Positions count from the group's start.
    """
    _reset(m)
    fulls, positions, position_squares = 0, 0, 0
    for _ in range(count):
        if regime[ring] != _NO_REGIME:
            _scale_row(values[ring], mean[regime[ring]], inverse_std[regime[ring]], normalised, row)
            if full[ring]:
                _add_slot(row, np.float64(position), m)
                fulls += 1
                positions += position
                position_squares += position * position
            else:
                _add_slot_with_gaps(row, np.float64(position), m)
        position += 1
        ring += 1
        if ring == full.size:
            ring = 0
    return fulls, positions, position_squares


@heapless_kernel
def _merge_sums(
    sums: npt.NDArray[np.float64],
    low: npt.NDArray[np.float64],
    high: npt.NDArray[np.float64],
    shift: float,
    m: npt.NDArray[np.float64],
) -> None:
    """Add a group's sums [(Σx, Σx², Σ position·x), sensor] and bounds; it starts `shift` from the window's end."""
    total, squares, cross = m[_TOTAL], m[_SQUARES], m[_CROSS]
    lowest, highest = m[_LOW], m[_HIGH]
    for c in range(total.size):
        cross[c] += sums[_CROSS, c] + shift * sums[_TOTAL, c]
    for c in range(total.size):
        total[c] += sums[_TOTAL, c]
        squares[c] += sums[_SQUARES, c]
    for c in range(total.size):
        lowest[c] = low[c] if low[c] < lowest[c] else lowest[c]
        highest[c] = high[c] if high[c] > highest[c] else highest[c]


@heapless_kernel
def _merge_counts(group: npt.NDArray[np.float64], shift: float, m: npt.NDArray[np.float64]) -> None:
    """Add the per-sensor counts of a group in which values are missing. Whole numbers, so exact in any order."""
    for c in range(group.shape[1]):
        present, positions = group[_PRESENT, c], group[_POSITIONS, c]
        m[_PRESENT, c] += present
        m[_POSITIONS, c] += positions + shift * present
        m[_POSITION_SQUARES, c] += group[_POSITION_SQUARES, c] + 2.0 * shift * positions + shift * shift * present


@heapless_kernel
def _counts_of(presence: npt.NDArray[np.uint16], m: npt.NDArray[np.float64]) -> None:
    """Per-sensor counts of a kept group from its presence bits."""
    for c in range(presence.size):
        low, high = presence[c] & 0xFF, presence[c] >> 8
        upper = _BIT_COUNT[high]
        m[_PRESENT, c] = _BIT_COUNT[low] + upper
        m[_POSITIONS, c] = _BIT_SUM[low] + _BIT_SUM[high] + 8 * upper
        m[_POSITION_SQUARES, c] = _BIT_SQUARES[low] + _BIT_SQUARES[high] + 16 * _BIT_SUM[high] + 64 * upper


@heapless_kernel
def _ewma(
    values: npt.NDArray[np.float32],
    regime: npt.NDArray[np.uint8],
    mean: npt.NDArray[np.float32],
    inverse_std: npt.NDArray[np.float32],
    normalised: bool,
    ring: int,
    window: int,
    row: npt.NDArray[np.float64],
    m: npt.NDArray[np.float64],
) -> None:
    """Weighted sums and weights of one window, newest slot first, into m[_TOTAL] and m[_PRESENT]."""
    keep = 1.0 - 2.0 / (window + 1.0)
    weighted, weight = m[_TOTAL], m[_PRESENT]
    weighted[:] = 0.0
    weight[:] = 0.0
    factor = 1.0
    for _ in range(window):
        if regime[ring] != _NO_REGIME:
            _scale_row(values[ring], mean[regime[ring]], inverse_std[regime[ring]], normalised, row)
            for c in range(row.size):
                there = row[c] == row[c]
                weighted[c] += factor * row[c] if there else 0.0
                weight[c] += factor if there else 0.0
        factor *= keep
        ring = ring - 1 if ring > 0 else regime.size - 1


@heapless_kernel
def _delta(
    values: npt.NDArray[np.float32],
    regime: npt.NDArray[np.uint8],
    mean: npt.NDArray[np.float32],
    inverse_std: npt.NDArray[np.float32],
    normalised: bool,
    ring: int,
    window: int,
    c: int,
) -> float:
    """Newest minus oldest present value of one sensor in the window that ends at `ring`."""
    newest, steps = ring, 0
    while steps < window - 1 and (regime[newest] == _NO_REGIME or np.isnan(values[newest, c])):
        newest = newest - 1 if newest > 0 else regime.size - 1
        steps += 1
    oldest = (ring - window + 1) % regime.size
    while steps < window - 1 and (regime[oldest] == _NO_REGIME or np.isnan(values[oldest, c])):
        oldest = oldest + 1 if oldest + 1 < regime.size else 0
        steps += 1
    first, last = values[oldest, c], values[newest, c]
    if normalised:
        first = (first - mean[regime[oldest], c]) * inverse_std[regime[oldest], c]
        last = (last - mean[regime[newest], c]) * inverse_std[regime[newest], c]
    return statistics.delta(np.float64(first), np.float64(last))


@heapless_kernel
def _write_moments(
    asked: npt.NDArray[np.bool_],
    fulls: int,
    positions: int,
    position_squares: int,
    m: npt.NDArray[np.float64],
    n: int,
    out: npt.NDArray[np.float32],
    at: int,
) -> int:
    """The statistics that follow from moments, each for all `n` sensors. Returns the next free column."""
    total, squares, cross, low, high = m[_TOTAL], m[_SQUARES], m[_CROSS], m[_LOW], m[_HIGH]
    present, place_sum, place_squares = m[_PRESENT], m[_POSITIONS], m[_POSITION_SQUARES]
    for c in range(n):
        present[c] += fulls
        place_sum[c] += positions
        place_squares[c] += position_squares
    if asked[0]:
        for c in range(n):
            out[at + c] = statistics.mean(present[c], total[c])
        at += n
    if asked[1]:
        for c in range(n):
            out[at + c] = statistics.std(present[c], total[c], squares[c])
        at += n
    if asked[2]:
        for c in range(n):
            out[at + c] = statistics.minimum(present[c], low[c])
        at += n
    if asked[3]:
        for c in range(n):
            out[at + c] = statistics.maximum(present[c], high[c])
        at += n
    if asked[4]:
        for c in range(n):
            out[at + c] = statistics.value_range(present[c], low[c], high[c])
        at += n
    if asked[5]:
        for c in range(n):
            out[at + c] = statistics.slope(present[c], total[c], place_sum[c], place_squares[c], cross[c])
        at += n
    return at


@heapless_kernel
def _event_features(
    kept: npt.NDArray[np.int64],
    time: int,
    windows_us: npt.NDArray[np.int64],
    since: bool,
    out: npt.NDArray[np.float32],
    at: int,
) -> int:
    """Counts of one event feature in its windows and hours since the last, as of `time`. Returns the next column."""
    newest = kept.size - 1
    while newest >= 0 and kept[newest] > time:
        newest -= 1
    for w in range(windows_us.size):
        count = 0
        while newest - count >= 0 and kept[newest - count] != _EMPTY and kept[newest - count] > time - windows_us[w]:
            count += 1
        out[at] = count
        at += 1
    if since:
        known = newest >= 0 and kept[newest] != _EMPTY
        out[at] = (time - kept[newest]) / MICROSECONDS_PER_HOUR if known else np.nan
        at += 1
    return at


@heapless_kernel
def feature_row(
    plan: Plan, state: Windows, a: int, slot: int, scratch: npt.NDArray[np.float64], out: npt.NDArray[np.float32]
) -> int:
    """Write the features of asset `a` as of `slot` into `out` float32 [features].

    Later slots are not looked at, so a late reading is scored as it would have been in time. Returns how many readings
    the longest window holds.
    """
    values, regime, full = state.values[a], state.regime[a], state.full[a]
    sums, bounds, presence, fullness = state.sums[a], state.bounds[a], state.presence[a], state.fullness[a]
    mean, inverse_std, slots = plan.mean, plan.inverse_std, plan.slots
    normalised = plan.centroids.shape[0] > 0
    n = plan.sensors
    walked, part, snapshot, row = scratch[:8], scratch[8:16], scratch[16:24], scratch[24]

    end = slot % slots
    _scale_row(values[end], mean[regime[end]], inverse_std[regime[end]], normalised, row)
    for c in range(n):
        out[c] = row[c]
    at = n

    _reset(walked)
    fulls, positions, position_squares = 0, 0, 0
    grid = plan.cadence_us > 0
    # On a grid groups stand at multiples of 16; by readings they are counted back from the window's end.
    begin = slot - slot % GROUP if grid else slot - GROUP + 1
    last = slot
    held = 0
    for w in range(plan.windows.size):
        window = plan.windows[w]
        first = slot - window + 1
        while begin > first:
            shift = begin - slot
            group = begin % slots // GROUP
            if grid and last - begin == GROUP - 1:
                _merge_sums(sums[group], bounds[group, 0], bounds[group, 1], np.float64(shift), walked)
                if fullness[group] == _FULL_GROUP:
                    here, sum_here, squares_here = GROUP, 120, 1240
                else:
                    here, sum_here, squares_here = 0, 0, 0
                    _counts_of(presence[group], part)
                    _merge_counts(part, np.float64(shift), walked)
            else:
                here, sum_here, squares_here = _add_slots(
                    values, regime, full, mean, inverse_std, normalised, begin % slots, 0, last - begin + 1, row, part
                )
                _merge_sums(part[:3], part[_LOW], part[_HIGH], np.float64(shift), walked)
                if here < last - begin + 1:
                    _merge_counts(part, np.float64(shift), walked)
            fulls += here
            positions += sum_here + shift * here
            position_squares += squares_here + 2 * shift * sum_here + shift * shift * here
            last = begin - 1
            begin -= GROUP
        # The window's oldest group, cut at its first slot; the walk itself stays at the group's edge.
        shift = begin - slot
        here, sum_here, squares_here = _add_slots(
            values,
            regime,
            full,
            mean,
            inverse_std,
            normalised,
            first % slots,
            first - begin,
            last - first + 1,
            row,
            part,
        )
        for k in range(_MOMENTS):
            for c in range(row.size):
                snapshot[k, c] = walked[k, c]
        _merge_sums(part[:3], part[_LOW], part[_HIGH], np.float64(shift), snapshot)
        if here < last - first + 1:
            _merge_counts(part, np.float64(shift), snapshot)
        at = _write_moments(
            plan.asked,
            fulls + here,
            positions + sum_here + shift * here,
            position_squares + squares_here + 2 * shift * sum_here + shift * shift * here,
            snapshot,
            n,
            out,
            at,
        )
        if plan.asked[6]:
            _ewma(values, regime, mean, inverse_std, normalised, end, window, row, part)
            for c in range(n):
                out[at + c] = statistics.ewma(part[_TOTAL, c], part[_PRESENT, c])
            at += n
        if plan.asked[7]:
            for c in range(n):
                out[at + c] = _delta(values, regime, mean, inverse_std, normalised, end, window, c)
            at += n
        if plan.asked[8]:
            for c in range(n):
                out[at + c] = statistics.missing_share(snapshot[_PRESENT, c], np.float64(window))
            at += n
        held = 0
        for c in range(n):
            held = max(held, int(snapshot[_PRESENT, c]))

    time = state.times[a, end]
    for e in range(plan.event_since.size):
        event_windows = plan.event_windows[plan.event_begin[e] : plan.event_begin[e + 1]]
        at = _event_features(state.events[a, e], time, event_windows, plan.event_since[e], out, at)
    for x in range(plan.statics):
        out[at] = state.statics[a, x]
        at += 1
    return held


@heapless_kernel
def clean_row(plan: Plan, row: npt.NDArray[np.float32], out: npt.NDArray[np.float32]) -> int:
    """Copy a reading into the ring's column order, everything invalid as NaN.

    Returns the health bits MISSING 1, NOT_FINITE 2, OUT_OF_RANGE 4.
    """
    health = 0
    for c in range(row.size):
        x = row[plan.order[c]]
        if x != x:  # noqa: PLR0124  NaN
            health |= 1
        elif np.isinf(x):
            health |= 2
            x = np.float32(np.nan)
        elif x < plan.minimum[c] or x > plan.maximum[c]:
            health |= 4
            x = np.float32(np.nan)
        out[c] = x
    return health


@heapless_kernel
def _drive(
    plan: Plan,
    state: Windows,
    times: npt.NDArray[np.int64],
    values: npt.NDArray[np.float32],
    event_times: npt.NDArray[np.int64],
    event_codes: npt.NDArray[np.int64],
    scratch: npt.NDArray[np.float64],
    out: npt.NDArray[np.float32],
    row: npt.NDArray[np.float32],
    status: npt.NDArray[np.uint8],
) -> None:
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
    _drive(
        plan,
        state,
        times,
        values,
        event_times,
        event_codes,
        scratch_for(plan),
        out,
        np.empty(values.shape[1], np.float32),
        status,
    )
    return out, status
