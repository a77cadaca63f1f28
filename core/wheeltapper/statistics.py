"""One scalar function per window statistic. Batch, stream and CUDA drivers call these and nothing else.

Each takes moments of the present (not NaN) values of one sensor in one window. Positions are slots, counted back from
the window's end (0, −1, −2 …), so equal windows have equal moments wherever they stand in time.

    present        how many values are there                    position_sum      Σ position
    total          Σ value                                      position_squares  Σ position²
    squares        Σ value²                                     cross             Σ position · value
"""

from __future__ import annotations

import math

from wheeltapper.kernel import heapless_kernel


@heapless_kernel
def mean(present: float, total: float) -> float:
    """Arithmetic mean; NaN for an empty window."""
    return total / present if present > 0 else math.nan


@heapless_kernel
def std(present: float, total: float, squares: float) -> float:
    """Population standard deviation; 0 for one value, NaN for none."""
    if present == 0:
        return math.nan
    average = total / present
    # Rounding can leave a constant window a hair below zero.
    return math.sqrt(max(squares / present - average * average, 0.0))


@heapless_kernel
def minimum(present: float, low: float) -> float:
    return low if present > 0 else math.nan


@heapless_kernel
def maximum(present: float, high: float) -> float:
    return high if present > 0 else math.nan


@heapless_kernel
def value_range(present: float, low: float, high: float) -> float:
    """Largest minus smallest value."""
    return high - low if present > 0 else math.nan


@heapless_kernel
def slope(present: float, total: float, position_sum: float, position_squares: float, cross: float) -> float:
    """Least-squares slope per slot; NaN below two present values."""
    spread = present * position_squares - position_sum * position_sum
    if present < 2 or spread <= 0:
        return math.nan
    return (present * cross - position_sum * total) / spread


@heapless_kernel
def ewma(weighted: float, weight: float) -> float:
    """Exponentially weighted mean, cut off at the window: Σ wᵢ·xᵢ ÷ Σ wᵢ, w = (1 − 2/(window + 1)) ^ age."""
    return weighted / weight if weight > 0 else math.nan


@heapless_kernel
def delta(first: float, last: float) -> float:
    """Newest minus oldest present value of the window."""
    return last - first


@heapless_kernel
def missing_share(present: float, slots: float) -> float:
    """Share of the window's slots without a value, 0..1."""
    return 1.0 - present / slots
