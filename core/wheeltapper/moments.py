"""Moments of sensors over runs of slots: the sums from which the statistics of a window follow.

The loops run over sensors, which lie side by side in memory, and each writes few arrays: that is the form which the
compiler turns into vector instructions. Where all sensors of a slot are there, counts are kept once for all.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wheeltapper.kernel import heapless_kernel
from wheeltapper.windows import NO_REGIME

_NO_REGIME = int(NO_REGIME)
# Rows of a block of moments, float64 [8, sensors]: what is known of every sensor over some run of slots.
TOTAL, SQUARES, CROSS, LOW, HIGH, PRESENT, POSITIONS, POSITION_SQUARES = range(8)
MOMENTS = 8

# Σ position and Σ position² over the set bits of a byte, for groups in which some values are missing.
_BIT_COUNT = np.array([bin(byte).count("1") for byte in range(256)], np.int64)
_BIT_SUM = np.array([sum(i for i in range(8) if byte >> i & 1) for byte in range(256)], np.int64)
_BIT_SQUARES = np.array([sum(i * i for i in range(8) if byte >> i & 1) for byte in range(256)], np.int64)


@heapless_kernel
def reset(moments: npt.NDArray[np.float64]) -> None:
    moments[:, :] = 0.0
    moments[LOW, :] = np.inf
    moments[HIGH, :] = -np.inf


@heapless_kernel
def add_full_slot(row: npt.NDArray[np.float64], position: float, m: npt.NDArray[np.float64]) -> None:
    """Add a slot in which every sensor has a value."""
    total, squares, cross = m[TOTAL], m[SQUARES], m[CROSS]
    low, high = m[LOW], m[HIGH]
    for c in range(row.size):
        total[c] += row[c]
        squares[c] += row[c] * row[c]
        cross[c] += position * row[c]
    for c in range(row.size):
        low[c] = row[c] if row[c] < low[c] else low[c]
        high[c] = row[c] if row[c] > high[c] else high[c]


@heapless_kernel
def add_slot_with_gaps(row: npt.NDArray[np.float64], position: float, m: npt.NDArray[np.float64]) -> None:
    """Add a slot in which some sensors are missing; adding 0.0 for those leaves the sums' bits as they are."""
    for c in range(row.size):
        there = row[c] == row[c]
        value = row[c] if there else 0.0
        one = 1.0 if there else 0.0
        m[TOTAL, c] += value
        m[SQUARES, c] += value * value
        m[CROSS, c] += position * value
        m[LOW, c] = row[c] if row[c] < m[LOW, c] else m[LOW, c]
        m[HIGH, c] = row[c] if row[c] > m[HIGH, c] else m[HIGH, c]
        m[PRESENT, c] += one
        m[POSITIONS, c] += position * one
        m[POSITION_SQUARES, c] += position * position * one


@heapless_kernel
def scale_row(
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
def add_slots(
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
    reset(m)
    fulls, positions, position_squares = 0, 0, 0
    for _ in range(count):
        if regime[ring] != _NO_REGIME:
            scale_row(values[ring], mean[regime[ring]], inverse_std[regime[ring]], normalised, row)
            if full[ring]:
                add_full_slot(row, np.float64(position), m)
                fulls += 1
                positions += position
                position_squares += position * position
            else:
                add_slot_with_gaps(row, np.float64(position), m)
        position += 1
        ring += 1
        if ring == full.size:
            ring = 0
    return fulls, positions, position_squares


@heapless_kernel
def merge_sums(
    sums: npt.NDArray[np.float64],
    low: npt.NDArray[np.float64],
    high: npt.NDArray[np.float64],
    shift: float,
    m: npt.NDArray[np.float64],
) -> None:
    """Add a group's sums [(Σx, Σx², Σ position·x), sensor] and bounds; it starts `shift` from the window's end."""
    total, squares, cross = m[TOTAL], m[SQUARES], m[CROSS]
    lowest, highest = m[LOW], m[HIGH]
    for c in range(total.size):
        cross[c] += sums[CROSS, c] + shift * sums[TOTAL, c]
    for c in range(total.size):
        total[c] += sums[TOTAL, c]
        squares[c] += sums[SQUARES, c]
    for c in range(total.size):
        lowest[c] = low[c] if low[c] < lowest[c] else lowest[c]
        highest[c] = high[c] if high[c] > highest[c] else highest[c]


@heapless_kernel
def merge_counts(group: npt.NDArray[np.float64], shift: float, m: npt.NDArray[np.float64]) -> None:
    """Add the per-sensor counts of a group in which values are missing. Whole numbers, so exact in any order."""
    for c in range(group.shape[1]):
        present, positions = group[PRESENT, c], group[POSITIONS, c]
        m[PRESENT, c] += present
        m[POSITIONS, c] += positions + shift * present
        m[POSITION_SQUARES, c] += group[POSITION_SQUARES, c] + 2.0 * shift * positions + shift * shift * present


@heapless_kernel
def counts_of(presence: npt.NDArray[np.uint16], m: npt.NDArray[np.float64]) -> None:
    """Per-sensor counts of a kept group from its presence bits."""
    for c in range(presence.size):
        low, high = presence[c] & 0xFF, presence[c] >> 8
        upper = _BIT_COUNT[high]
        m[PRESENT, c] = _BIT_COUNT[low] + upper
        m[POSITIONS, c] = _BIT_SUM[low] + _BIT_SUM[high] + 8 * upper
        m[POSITION_SQUARES, c] = _BIT_SQUARES[low] + _BIT_SQUARES[high] + 16 * _BIT_SUM[high] + 64 * upper
