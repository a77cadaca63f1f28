"""A reading as it arrives, made fit for a window: what is invalid counts as missing, and is told."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from wheeltapper.kernel import merged_kernel
from wheeltapper.windows import Plan


@merged_kernel
def clean_row(plan: Plan, row: npt.NDArray[np.float32], out: npt.NDArray[np.float32]) -> int:
    """Copy a reading into the ring's column order, everything invalid as NaN.

    Returns the health bits MISSING 1, NOT_FINITE 2, OUT_OF_RANGE 4.
    """
    health = 0
    for c in range(row.size):
        x = row[plan.order[c]]
        if x != x:  # noqa: PLR0124  NaN
            health |= 1
        elif math.isinf(x):
            health |= 2
            x = np.float32(np.nan)
        elif x < plan.minimum[c] or x > plan.maximum[c]:
            health |= 4
            x = np.float32(np.nan)
        out[c] = x
    return health
