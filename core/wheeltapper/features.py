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
from wheeltapper import moments, statistics, windows
from wheeltapper import regimes as regimes_module
from wheeltapper.kernel import heapless_kernel, source_digest
from wheeltapper.moments import (
    CROSS,
    HIGH,
    LOW,
    MOMENTS,
    POSITION_SQUARES,
    POSITIONS,
    PRESENT,
    SQUARES,
    TOTAL,
    add_slots,
    counts_of,
    merge_counts,
    merge_sums,
    reset,
    scale_row,
)
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
_SCRATCH_ROWS = 3 * MOMENTS + 1

KERNELS = source_digest(
    [*(Path(str(m.__file__)) for m in (kernel_module, regimes_module, windows, statistics, moments)), Path(__file__)]
)


def scratch_for(plan: Plan) -> npt.NDArray[np.float64]:
    """Working memory of `feature_row`: float64 [25, sensors]."""
    return np.empty((_SCRATCH_ROWS, plan.minimum.size), np.float64)


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
    """Weighted sums and weights of one window, newest slot first, into m[TOTAL] and m[PRESENT]."""
    keep = 1.0 - 2.0 / (window + 1.0)
    weighted, weight = m[TOTAL], m[PRESENT]
    weighted[:] = 0.0
    weight[:] = 0.0
    factor = 1.0
    for _ in range(window):
        if regime[ring] != _NO_REGIME:
            scale_row(values[ring], mean[regime[ring]], inverse_std[regime[ring]], normalised, row)
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
    total, squares, cross, low, high = m[TOTAL], m[SQUARES], m[CROSS], m[LOW], m[HIGH]
    present, place_sum, place_squares = m[PRESENT], m[POSITIONS], m[POSITION_SQUARES]
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
    scale_row(values[end], mean[regime[end]], inverse_std[regime[end]], normalised, row)
    for c in range(n):
        out[c] = row[c]
    at = n

    reset(walked)
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
                merge_sums(sums[group], bounds[group, 0], bounds[group, 1], np.float64(shift), walked)
                if fullness[group] == _FULL_GROUP:
                    here, sum_here, squares_here = GROUP, 120, 1240
                else:
                    here, sum_here, squares_here = 0, 0, 0
                    counts_of(presence[group], part)
                    merge_counts(part, np.float64(shift), walked)
            else:
                here, sum_here, squares_here = add_slots(
                    values, regime, full, mean, inverse_std, normalised, begin % slots, 0, last - begin + 1, row, part
                )
                merge_sums(part[:3], part[LOW], part[HIGH], np.float64(shift), walked)
                if here < last - begin + 1:
                    merge_counts(part, np.float64(shift), walked)
            fulls += here
            positions += sum_here + shift * here
            position_squares += squares_here + 2 * shift * sum_here + shift * shift * here
            last = begin - 1
            begin -= GROUP
        # The window's oldest group, cut at its first slot; the walk itself stays at the group's edge.
        shift = begin - slot
        here, sum_here, squares_here = add_slots(
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
        for k in range(MOMENTS):
            for c in range(row.size):
                snapshot[k, c] = walked[k, c]
        merge_sums(part[:3], part[LOW], part[HIGH], np.float64(shift), snapshot)
        if here < last - first + 1:
            merge_counts(part, np.float64(shift), snapshot)
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
                out[at + c] = statistics.ewma(part[TOTAL, c], part[PRESENT, c])
            at += n
        if plan.asked[7]:
            for c in range(n):
                out[at + c] = _delta(values, regime, mean, inverse_std, normalised, end, window, c)
            at += n
        if plan.asked[8]:
            for c in range(n):
                out[at + c] = statistics.missing_share(snapshot[PRESENT, c], np.float64(window))
            at += n
        held = 0
        for c in range(n):
            held = max(held, int(snapshot[PRESENT, c]))

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
