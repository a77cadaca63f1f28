"""Moments of sensors over runs of slots: the sums from which the statistics of a window follow.

`add_run` adds slots, `add_groups` the kept sums of whole groups. Their inner kernels work on the sensors from `c` on,
as many as `zero` has lanes, and keep sums in registers over the whole run. Where all sensors of a slot are there,
counts are kept once for all.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wheeltapper.kernel import heapless_kernel, merged_kernel
from wheeltapper.lanes import choose, load, store, widen, zeros_4, zeros_8
from wheeltapper.windows import FULL_GROUP, GROUP, NO_REGIME, Plan, Windows

_FULL_GROUP = int(FULL_GROUP)
_NO_REGIME = int(NO_REGIME)
# Through int(…), which is a number like any other: for a literal Numba compiles every callee once more.
_START = 0
# Rows of a block of moments, float64 [8, width]: what is known of every sensor over some run of slots.
TOTAL, SQUARES, CROSS, LOW, HIGH, PRESENT, POSITIONS, POSITION_SQUARES = range(8)
MOMENTS = 8

# Σ position and Σ position² over the set bits of a byte, for groups in which some values are missing.
_BIT_COUNT = np.array([bin(byte).count("1") for byte in range(256)], np.int64)
_BIT_SUM = np.array([sum(i for i in range(8) if byte >> i & 1) for byte in range(256)], np.int64)
_BIT_SQUARES = np.array([sum(i * i for i in range(8) if byte >> i & 1) for byte in range(256)], np.int64)


@merged_kernel
def reset(moments: npt.NDArray[np.float64]) -> None:
    for k in range(MOMENTS):
        start = np.inf if k == LOW else -np.inf if k == HIGH else 0.0
        for c in range(moments.shape[1]):
            moments[k, c] = start


@merged_kernel
def _all_full(full: npt.NDArray[np.bool_], ring: int, count: int) -> bool:
    """Whether `count` slots from `ring` on have every sensor."""
    for _ in range(count):
        if not full[ring]:
            return False
        ring = ring + 1 if ring + 1 < full.size else 0
    return True


@merged_kernel
def _add_full_run(
    values: npt.NDArray[np.float32],
    regime: npt.NDArray[np.uint8],
    mean: npt.NDArray[np.float32],
    inverse_std: npt.NDArray[np.float32],
    normalised: bool,
    ring: int,
    position: int,
    count: int,
    shift: float,
    source: npt.NDArray[np.float64],
    target: npt.NDArray[np.float64],
    c: int,
    zero: float,
) -> None:
    """target = source + the sums of `count` full slots of a group, added from zero, oldest first.

    Positions count from the group's start, which lies `shift` from the window's end. Counts are copied.
    """
    width, slots = values.shape[1], values.shape[0]
    total, squares, cross = zero, zero, zero
    low, high = zero + np.inf, zero - np.inf
    for _ in range(count):
        x = load(values, ring * width + c, zero)
        if normalised:
            at = regime[ring] * width + c
            x = (x - load(mean, at, zero)) * load(inverse_std, at, zero)
        value = widen(x)
        total = total + value
        squares = squares + value * value
        cross = cross + np.float64(position) * value
        low = choose(value < low, value, low)
        high = choose(value > high, value, high)
        position += 1
        ring = ring + 1 if ring + 1 < slots else 0
    _merge(source, target, width, c, zero, total, squares, cross + shift * total, low, high)
    for k in range(PRESENT, MOMENTS):
        store(target, k * width + c, load(source, k * width + c, zero))


@merged_kernel
def _add_run_with_gaps(
    values: npt.NDArray[np.float32],
    regime: npt.NDArray[np.uint8],
    mean: npt.NDArray[np.float32],
    inverse_std: npt.NDArray[np.float32],
    normalised: bool,
    ring: int,
    position: int,
    count: int,
    shift: float,
    source: npt.NDArray[np.float64],
    target: npt.NDArray[np.float64],
    c: int,
    zero: float,
) -> None:
    """Like `_add_full_run` where something is missing: adding 0.0 for that leaves the sums' bits as they are."""
    width, slots = values.shape[1], values.shape[0]
    total, squares, cross = zero, zero, zero
    low, high = zero + np.inf, zero - np.inf
    present, positions, position_squares = zero, zero, zero
    for _ in range(count):
        if regime[ring] != _NO_REGIME:
            x = load(values, ring * width + c, zero)
            if normalised:
                at = regime[ring] * width + c
                x = (x - load(mean, at, zero)) * load(inverse_std, at, zero)
            value = widen(x)
            low = choose(value < low, value, low)
            high = choose(value > high, value, high)
            one = choose(value == value, zero + 1.0, zero)  # noqa: PLR0124  not NaN
            value = choose(value == value, value, zero)  # noqa: PLR0124
            place = np.float64(position)
            total = total + value
            squares = squares + value * value
            cross = cross + place * value
            present = present + one
            positions = positions + place * one
            position_squares = position_squares + place * place * one
        position += 1
        ring = ring + 1 if ring + 1 < slots else 0
    _merge(source, target, width, c, zero, total, squares, cross + shift * total, low, high)
    _count(source, target, width, c, zero, shift, present, positions, position_squares)


@merged_kernel
def _merge_groups(
    sums: npt.NDArray[np.float64],
    bounds: npt.NDArray[np.float32],
    group: int,
    count: int,
    shift: float,
    m: npt.NDArray[np.float64],
    c: int,
    zero: float,
) -> None:
    """Add `count` kept groups to `m`, newest first; `group` is the newest and starts `shift` from the window's end."""
    groups, width = sums.shape[0], sums.shape[2]
    total, squares, cross = load(m, c, zero), load(m, width + c, zero), load(m, 2 * width + c, zero)
    low, high = load(m, LOW * width + c, zero), load(m, HIGH * width + c, zero)
    for _ in range(count):
        at = 3 * width * group + c
        here = load(sums, at, zero)
        total = total + here
        squares = squares + load(sums, at + width, zero)
        cross = cross + (load(sums, at + 2 * width, zero) + shift * here)
        at = 2 * width * group + c
        lowest, highest = widen(load(bounds, at, zero)), widen(load(bounds, at + width, zero))
        low = choose(lowest < low, lowest, low)
        high = choose(highest > high, highest, high)
        shift -= GROUP
        group = group - 1 if group > 0 else groups - 1
    store(m, c, total)
    store(m, width + c, squares)
    store(m, 2 * width + c, cross)
    store(m, LOW * width + c, low)
    store(m, HIGH * width + c, high)


@merged_kernel
def _merge(
    source: npt.NDArray[np.float64],
    target: npt.NDArray[np.float64],
    width: int,
    c: int,
    zero: float,
    total: float,
    squares: float,
    cross: float,
    low: float,
    high: float,
) -> None:
    store(target, TOTAL * width + c, load(source, TOTAL * width + c, zero) + total)
    store(target, SQUARES * width + c, load(source, SQUARES * width + c, zero) + squares)
    store(target, CROSS * width + c, load(source, CROSS * width + c, zero) + cross)
    lowest, highest = load(source, LOW * width + c, zero), load(source, HIGH * width + c, zero)
    store(target, LOW * width + c, choose(low < lowest, low, lowest))
    store(target, HIGH * width + c, choose(high > highest, high, highest))


@heapless_kernel
def _count(
    source: npt.NDArray[np.float64],
    target: npt.NDArray[np.float64],
    width: int,
    c: int,
    zero: float,
    shift: float,
    present: float,
    positions: float,
    position_squares: float,
) -> None:
    """Whole numbers, so exact in any order."""
    moved = positions + shift * present
    squared = position_squares + 2.0 * shift * positions + shift * shift * present
    store(target, PRESENT * width + c, load(source, PRESENT * width + c, zero) + present)
    store(target, POSITIONS * width + c, load(source, POSITIONS * width + c, zero) + moved)
    store(target, POSITION_SQUARES * width + c, load(source, POSITION_SQUARES * width + c, zero) + squared)


@heapless_kernel
def _count_group(presence: npt.NDArray[np.uint16], fullness: int, shift: float, m: npt.NDArray[np.float64]) -> None:
    """Add the per-sensor counts of a kept group in which values are missing, from its presence bits."""
    for c in range(presence.size):
        low, high = (presence[c] | fullness) & 0xFF, (presence[c] | fullness) >> 8
        upper = _BIT_COUNT[high]
        present = _BIT_COUNT[low] + upper
        positions = _BIT_SUM[low] + _BIT_SUM[high] + 8 * upper
        squares = _BIT_SQUARES[low] + _BIT_SQUARES[high] + 16 * _BIT_SUM[high] + 64 * upper
        m[PRESENT, c] += present
        m[POSITIONS, c] += positions + shift * present
        m[POSITION_SQUARES, c] += squares + 2.0 * shift * positions + shift * shift * present


@merged_kernel
def add_run(
    plan: Plan,
    state: Windows,
    a: int,
    slot: int,
    position: int,
    count: int,
    shift: int,
    source: npt.NDArray[np.float64],
    target: npt.NDArray[np.float64],
) -> tuple[int, int, int]:
    """target = source + `count` slots of one group from `slot` on, which stands at `position` in it.

    The group starts `shift` slots from the window's end. Where all of them are full they are not counted in `target`:
    returns their number, Σ position and Σ position².
    """
    values, regime, full = state.values[a], state.regime[a], state.full[a]
    mean, inverse_std = plan.mean, plan.inverse_std
    normalised = plan.centroids.shape[0] > 0
    ring, c = slot % plan.slots, int(_START)
    if not _all_full(full, ring, count):
        while c + 8 <= plan.width:
            _add_run_with_gaps(
                values, regime, mean, inverse_std, normalised, ring, position, count, np.float64(shift),
                source, target, c, zeros_8(),
            )  # fmt: skip
            c += 8
        if c < plan.width:
            _add_run_with_gaps(
                values, regime, mean, inverse_std, normalised, ring, position, count, np.float64(shift),
                source, target, c, zeros_4(),
            )  # fmt: skip
        return 0, 0, 0
    while c + 8 <= plan.width:
        _add_full_run(
            values, regime, mean, inverse_std, normalised, ring, position, count, np.float64(shift),
            source, target, c, zeros_8(),
        )  # fmt: skip
        c += 8
    if c < plan.width:
        _add_full_run(
            values, regime, mean, inverse_std, normalised, ring, position, count, np.float64(shift),
            source, target, c, zeros_4(),
        )  # fmt: skip
    return _positions(count, shift + position)


@merged_kernel
def _positions(count: int, first: int) -> tuple[int, int, int]:
    """How many, Σ position and Σ position² of `count` slots from position `first` on."""
    ordinals, squares = count * (count - 1) // 2, (count - 1) * count * (2 * count - 1) // 6
    return count, count * first + ordinals, count * first * first + 2 * first * ordinals + squares


@merged_kernel
def add_groups(
    plan: Plan, state: Windows, a: int, group: int, count: int, shift: int, m: npt.NDArray[np.float64]
) -> tuple[int, int, int]:
    """Add `count` kept groups to `m`, newest first; `group` is the newest. Returns as `add_run` does."""
    sums, bounds, presence, fullness = state.sums[a], state.bounds[a], state.presence[a], state.fullness[a]
    c = int(_START)
    while c + 8 <= plan.width:
        _merge_groups(sums, bounds, group, count, np.float64(shift), m, c, zeros_8())
        c += 8
    if c < plan.width:
        _merge_groups(sums, bounds, group, count, np.float64(shift), m, c, zeros_4())
    fulls, positions, position_squares = 0, 0, 0
    for _ in range(count):
        if fullness[group] == _FULL_GROUP:
            here, place_sum, place_squares = _positions(GROUP, shift)
            fulls += here
            positions += place_sum
            position_squares += place_squares
        else:
            _count_group(presence[group], fullness[group], np.float64(shift), m)
        shift -= GROUP
        group = group - 1 if group > 0 else fullness.size - 1
    return fulls, positions, position_squares
