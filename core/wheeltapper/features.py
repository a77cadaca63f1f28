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
from wheeltapper import lanes, moments, readings, statistics, windows
from wheeltapper import regimes as regimes_module
from wheeltapper.kernel import heapless_kernel, inline_kernel, merged_kernel, source_digest
from wheeltapper.lanes import choose, load, store, store_some, widen, zeros_4, zeros_8
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
    add_groups,
    add_run,
    reset,
)
from wheeltapper.readings import clean_row
from wheeltapper.regimes import Regimes
from wheeltapper.spec import MICROSECONDS_PER_HOUR, ClassSpec
from wheeltapper.windows import (
    EMPTY,
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
_NO_REGIME = int(NO_REGIME)
_SCRATCH_ROWS = 2 * MOMENTS
# Through int(…), which is a number like any other: for a literal Numba compiles every callee once more.
_START = 0

KERNELS = source_digest(
    [
        *(
            Path(str(m.__file__))
            for m in (kernel_module, regimes_module, lanes, windows, readings, statistics, moments)
        ),
        Path(__file__),
    ]
)


def scratch_for(plan: Plan) -> npt.NDArray[np.float64]:
    """Working memory of `feature_row`: float64 [16, width]; rows 8 to 15 are left as the moments of the last window."""
    return np.empty((_SCRATCH_ROWS, plan.width), np.float64)


@merged_kernel
def _last(
    values: npt.NDArray[np.float32],
    regime: npt.NDArray[np.uint8],
    mean: npt.NDArray[np.float32],
    inverse_std: npt.NDArray[np.float32],
    normalised: bool,
    ring: int,
    n: int,
    out: npt.NDArray[np.float32],
) -> None:
    """A slot's values in the units the features use; the arithmetic is float32."""
    row = values[ring]
    if normalised:
        centre, scale = mean[regime[ring]], inverse_std[regime[ring]]
        for c in range(n):
            out[c] = (row[c] - centre[c]) * scale[c]
    else:
        for c in range(n):
            out[c] = row[c]


@heapless_kernel
def _ewma(
    values: npt.NDArray[np.float32],
    regime: npt.NDArray[np.uint8],
    mean: npt.NDArray[np.float32],
    inverse_std: npt.NDArray[np.float32],
    normalised: bool,
    ring: int,
    window: int,
    n: int,
    out: npt.NDArray[np.float32],
    at: int,
    c: int,
    zero: float,
) -> None:
    """Weighted mean of one window, newest slot first, of the sensors from c on into out[at + c:]."""
    slots, width = values.shape
    keep, factor = 1.0 - 2.0 / (window + 1.0), 1.0
    weighted, weight = zero, zero
    for _ in range(window):
        if regime[ring] != _NO_REGIME:
            x = load(values, ring * width + c, zero)
            if normalised:
                row = regime[ring] * width + c
                x = (x - load(mean, row, zero)) * load(inverse_std, row, zero)
            value = widen(x)
            weighted = weighted + factor * choose(value == value, value, zero)  # noqa: PLR0124  not NaN
            weight = weight + choose(value == value, zero + factor, zero)  # noqa: PLR0124
        factor *= keep
        ring = ring - 1 if ring > 0 else slots - 1
    store_some(out, at + c, statistics.ewma(weighted, weight), n - c)


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
    change: float = statistics.delta(np.float64(first), np.float64(last))
    return change


@merged_kernel
def _write_moments(
    asked: npt.NDArray[np.bool_],
    fulls: int,
    positions: int,
    position_squares: int,
    m: npt.NDArray[np.float64],
    n: int,
    out: npt.NDArray[np.float32],
    at: int,
    c: int,
    zero: float,
) -> None:
    """The statistics that follow from moments, of the sensors from c on; each has `n` columns from `at` on."""
    width = m.shape[1]
    total, squares, cross = load(m, c, zero), load(m, SQUARES * width + c, zero), load(m, CROSS * width + c, zero)
    low, high = load(m, LOW * width + c, zero), load(m, HIGH * width + c, zero)
    present = load(m, PRESENT * width + c, zero) + fulls
    place_sum = load(m, POSITIONS * width + c, zero) + positions
    place_squares = load(m, POSITION_SQUARES * width + c, zero) + position_squares
    store(m, PRESENT * width + c, present)
    at += c
    if asked[0]:
        store_some(out, at, statistics.mean(present, total), n - c)
        at += n
    if asked[1]:
        store_some(out, at, statistics.std(present, total, squares), n - c)
        at += n
    if asked[2]:
        store_some(out, at, statistics.minimum(present, low), n - c)
        at += n
    if asked[3]:
        store_some(out, at, statistics.maximum(present, high), n - c)
        at += n
    if asked[4]:
        store_some(out, at, statistics.value_range(present, low, high), n - c)
        at += n
    if asked[5]:
        store_some(out, at, statistics.slope(present, total, place_sum, place_squares, cross), n - c)


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


@inline_kernel
def feature_row(
    plan: Plan,
    state: Windows,
    a: int,
    slot: int,
    start: npt.NDArray[np.float64],
    scratch: npt.NDArray[np.float64],
    out: npt.NDArray[np.float32],
) -> int:
    """Write the features of asset `a` as of `slot` into `out` float32 [features].

    start: float64 [ClassSpec.start_width], NaN where it is unknown: when the asset's own start was over (µs), the mean
    and 1/std of each sensor in it. Before that moment a shift is missing, as it was for everybody then.

    Later slots are not looked at, so a late reading is scored as it would have been in time. Returns how many readings
    the longest window holds.
    """
    values, regime = state.values[a], state.regime[a]
    mean, inverse_std, slots = plan.mean, plan.inverse_std, plan.slots
    normalised = plan.centroids.shape[0] > 0
    n = plan.sensors
    walked, whole = scratch[:MOMENTS], scratch[MOMENTS:]
    end = slot % slots
    _last(values, regime, mean, inverse_std, normalised, end, n, out)
    at = n

    reset(walked)
    fulls, positions, position_squares = 0, 0, 0
    # On a grid groups stand at multiples of 16; by readings they are counted back from the window's end.
    grid = plan.cadence_us > 0
    begin = slot - slot % GROUP if grid else slot - GROUP + 1
    last = slot
    held = 0
    for w in range(plan.windows.size):
        window = plan.windows[w]
        first = slot - window + 1
        while begin > first:
            if grid and last - begin == GROUP - 1:
                count = (begin - first + GROUP - 1) // GROUP
                here = add_groups(plan, state, a, begin % slots // GROUP, count, begin - slot, walked)
            else:
                count = 1
                here = add_run(plan, state, a, begin, int(_START), last - begin + 1, begin - slot, walked, walked)
            fulls += here[0]
            positions += here[1]
            position_squares += here[2]
            begin -= GROUP * count
            last = begin + GROUP - 1
        # The window's oldest group, cut at its first slot; the walk itself stays at the group's edge.
        here = add_run(plan, state, a, first, first - begin, last - first + 1, begin - slot, walked, whole)
        here = (fulls + here[0], positions + here[1], position_squares + here[2])
        c = int(_START)
        while c + 8 <= plan.width:
            _write_moments(plan.asked, here[0], here[1], here[2], whole, n, out, at, c, zeros_8())
            c += 8
        if c < plan.width:
            _write_moments(plan.asked, here[0], here[1], here[2], whole, n, out, at, c, zeros_4())
        for s in range(6):
            at += n if plan.asked[s] else 0
        if plan.asked[6]:
            c = int(_START)
            while c + 8 <= plan.width:
                _ewma(values, regime, mean, inverse_std, normalised, end, window, n, out, at, c, zeros_8())
                c += 8
            if c < plan.width:
                _ewma(values, regime, mean, inverse_std, normalised, end, window, n, out, at, c, zeros_4())
            at += n
        if plan.asked[7]:
            for c in range(n):
                out[at + c] = _delta(values, regime, mean, inverse_std, normalised, end, window, c)
            at += n
        if plan.asked[8]:
            for c in range(n):
                out[at + c] = statistics.missing_share(whole[PRESENT, c], np.float64(window))
            at += n
        if plan.asked[9]:
            known = state.times[a, end] >= start[0]
            for c in range(n):
                out[at + c] = (
                    statistics.shift(whole[PRESENT, c], whole[TOTAL, c], start[1 + c], start[1 + n + c])
                    if known
                    else np.nan
                )
            at += n
        held = 0
        for c in range(n):
            held = max(held, int(whole[PRESENT, c]))

    time = state.times[a, end]
    for e in range(plan.event_since.size):
        event_windows = plan.event_windows[plan.event_begin[e] : plan.event_begin[e + 1]]
        at = _event_features(state.events[a, e], time, event_windows, plan.event_since[e], out, at)
    for x in range(plan.statics):
        out[at] = state.statics[a, x]
        at += 1
    return held


@heapless_kernel
def _drive(
    plan: Plan,
    state: Windows,
    times: npt.NDArray[np.int64],
    values: npt.NDArray[np.float32],
    event_times: npt.NDArray[np.int64],
    event_codes: npt.NDArray[np.int64],
    start: npt.NDArray[np.float64],
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
            feature_row(plan, state, 0, slot, start, scratch, out[i])
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
    start: npt.NDArray[np.float64] | None = None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """The batch driver: one asset's whole history, oldest reading first.

    statics float32 [attributes]; times int64 [n] µs, ascending; values float32 [n, sensors]; events ascending by time,
    with positions in `spec.events` as codes (an event that serves two event features comes twice). start: the asset's
    own, float64 [spec.start_width], None where it is unknown.
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
        np.full(spec.start_width, np.nan) if start is None else start,
        scratch_for(plan),
        out,
        np.empty(values.shape[1], np.float32),
        status,
    )
    return out, status
