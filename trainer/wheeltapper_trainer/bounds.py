"""What may honestly be promised from few alarms and few failures: one-sided 95 % bounds, the ends of a 90 % interval.

Nothing seen is not nothing: five asset-weeks without a false alarm allow 0.6 a week. Resampling the same assets
cannot say that, since it draws zeros from zeros.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv, gammaincinv  # type: ignore[import-untyped]

_SURE = 0.95


def rate_at_most(count: float, squares: float, assets: int, weeks: float) -> float:
    """The rate per asset-week that `count` alarms in `weeks` asset-weeks may come from; NaN where nothing was observed.

    squares: the sum of the squared counts of the `assets`. The exact bound of a Poisson count (Garwood, 1936), of as
    many independent alarms as the spread between assets leaves (quasi-Poisson): ten alarms of one bad machine are one.
    """
    if weeks <= 0:
        return math.nan
    mean = count / max(1, assets)
    variance = (squares - count * mean) / (assets - 1) if assets > 1 else 0.0
    lump = max(1.0, variance / mean) if mean > 0 else 1.0
    return lump * float(gammaincinv(count / lump + 1.0, _SURE)) / weeks


def rates_at_most(counts: npt.NDArray[np.int64], weeks: float) -> float:
    """`rate_at_most` of the counts of each asset, int64[A]."""
    found = counts.astype(np.float64)
    return rate_at_most(float(found.sum()), float(found @ found), len(found), weeks)


def share_at_least(hits: float, total: float) -> float:
    """The share that `hits` of `total` may come from (Clopper and Pearson, 1934); NaN of nothing."""
    if total <= 0:
        return math.nan
    return float(betaincinv(hits, total - hits + 1.0, 1.0 - _SURE)) if hits > 0 else 0.0
