"""One function per window statistic. Batch, stream and CUDA drivers call these and nothing else.

Each takes moments of the present (not NaN) values of one sensor in one window, or of several sensors side by side
(`wheeltapper.lanes`): the same text, the same arithmetic. Positions are slots, counted back from the window's end
(0, −1, −2 …), so equal windows have equal moments wherever they stand in time.

    present        how many values are there                    position_sum      Σ position
    total          Σ value                                      position_squares  Σ position²
    squares        Σ value²                                     cross             Σ position · value
"""

from __future__ import annotations

import math
from typing import Any

from wheeltapper.kernel import heapless_kernel
from wheeltapper.lanes import choose, root

Number = Any  # a float64, or lanes of them


@heapless_kernel
def mean(present: Number, total: Number) -> Number:
    """Arithmetic mean; NaN for an empty window."""
    return choose(present > 0.0, total / present, math.nan)


@heapless_kernel
def std(present: Number, total: Number, squares: Number) -> Number:
    """Population standard deviation; 0 for one value, NaN for none."""
    average = total / present
    variance = squares / present - average * average
    # Rounding can leave a constant window a hair below zero.
    return choose(present > 0.0, root(choose(variance > 0.0, variance, 0.0)), math.nan)


@heapless_kernel
def minimum(present: Number, low: Number) -> Number:
    return choose(present > 0.0, low, math.nan)


@heapless_kernel
def maximum(present: Number, high: Number) -> Number:
    return choose(present > 0.0, high, math.nan)


@heapless_kernel
def value_range(present: Number, low: Number, high: Number) -> Number:
    """Largest minus smallest value."""
    return choose(present > 0.0, high - low, math.nan)


@heapless_kernel
def slope(present: Number, total: Number, position_sum: Number, position_squares: Number, cross: Number) -> Number:
    """Least-squares slope per slot; NaN below two present values, whose positions do not differ."""
    spread = present * position_squares - position_sum * position_sum
    return choose(spread > 0.0, (present * cross - position_sum * total) / spread, math.nan)


@heapless_kernel
def ewma(weighted: Number, weight: Number) -> Number:
    """Exponentially weighted mean, cut off at the window: Σ wᵢ·xᵢ ÷ Σ wᵢ, w = (1 − 2/(window + 1)) ^ age."""
    return choose(weight > 0.0, weighted / weight, math.nan)


@heapless_kernel
def delta(first: Number, last: Number) -> Number:
    """Newest minus oldest present value of the window."""
    return last - first


@heapless_kernel
def shift(present: Number, total: Number, usual: Number, inverse_std: Number) -> Number:
    """How far the window's mean is from what was usual in the asset's own start, in that start's deviations."""
    return (mean(present, total) - usual) * inverse_std


@heapless_kernel
def missing_share(present: Number, slots: Number) -> Number:
    """Share of the window's slots without a value, 0..1."""
    return 1.0 - present / slots
