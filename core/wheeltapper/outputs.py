"""From a margin to what a person reads: remaining life, probability, distance from normal.

The scalar kernels are called by the scorer; the batch drivers by training and evaluation, so that thresholds are chosen
on the very numbers that will be served. Arithmetic is float64, rounded to float32 once (docs/pack-v1.md).
"""

from __future__ import annotations

import math
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from wheeltapper.kernel import kernel


class Why(IntEnum):
    """Why the head that answers is the one that answers."""

    OWN_HEAD_KEPT = 0
    UNKNOWN_ASSET = 1
    TOO_LITTLE_HISTORY = 2
    NO_EVENTS = 3
    DID_NOT_BEAT_CLASS = 4
    QUARANTINED = 5
    NOT_TRAINED = 6
    NO_CLASS_HEAD = 7
    ALONE_HEAD_KEPT = 8

    def words(self) -> str:
        """The reason as a sentence's end, for people."""
        return _WORDS[self]


_WORDS = {
    Why.OWN_HEAD_KEPT: "its own head beat its class on its own later data",
    Why.UNKNOWN_ASSET: "the pack does not know this asset",
    Why.TOO_LITTLE_HISTORY: "too little history for a head of its own",
    Why.NO_EVENTS: "it never had the event to learn from",
    Why.DID_NOT_BEAT_CLASS: "its own head did not beat its class",
    Why.QUARANTINED: "training it failed repeatedly",
    Why.NOT_TRAINED: "the job asks for no heads of single assets",
    Why.NO_CLASS_HEAD: "its class has no head for this either",
    Why.ALONE_HEAD_KEPT: "a head of its own, without its class, did best on its own later data",
}
KEPT = (Why.OWN_HEAD_KEPT, Why.ALONE_HEAD_KEPT)  # where an asset's own head answers


@kernel
def exponential(x: float) -> float:
    """e^x by plain float64 arithmetic, within two units in the last place.

    Every mathematical library rounds its own way, and a GPU's is not the CPU's; additions and products are the same
    everywhere. x = k·ln 2 + r with |r| <= ln 2 ÷ 2; ln 2 in two parts, so that k times the first is exact.
    """
    if x > 709.782712893384:  # the largest x whose power is finite
        return np.inf
    if not x > -745.2:  # smaller than half the least subnormal
        return x if math.isnan(x) else 0.0
    k = math.floor(x * 1.4426950408889634 + 0.5)
    r = (x - k * 0.6931471803691238) - k * 1.9082149292705877e-10
    power = 1.0
    for n in range(14, 0, -1):
        power = 1.0 + r * power / n
    half = k // 2  # in two steps: 2^k itself may be no number
    scaled: float = math.ldexp(math.ldexp(power, int(half)), int(k - half))
    return scaled


@kernel
def rul_value(margin: float, a: float, b: float, cap: float) -> np.float32:
    """Remaining useful life in the output's unit: a·margin + b within [0, cap]; NaN for NaN."""
    life = np.float64(a) * np.float64(margin) + np.float64(b)
    if life < 0.0:
        return np.float32(0.0)
    return np.float32(cap if life > cap else life)


@kernel
def failure_value(margin: float, a: float, b: float, knots: NDArray[np.float32], begin: int, end: int) -> np.float32:
    """Probability of failure within the horizon, by the calibration knots[begin:end] or the logistic function."""
    m = np.float64(margin)
    if begin == end or math.isnan(m):
        return np.float32(1.0 / (1.0 + exponential(-(np.float64(a) * m + np.float64(b)))))
    if m <= knots[begin, 0]:
        return np.float32(knots[begin, 1])
    low, high = begin, end - 1
    if m >= knots[high, 0]:
        return np.float32(knots[high, 1])
    while high - low > 1:
        middle = (low + high) // 2
        if m >= knots[middle, 0]:
            low = middle
        else:
            high = middle
    x, y = np.float64(knots[low, 0]), np.float64(knots[low, 1])
    rise, run = np.float64(knots[high, 1]) - y, np.float64(knots[high, 0]) - x
    return np.float32(y + rise * (m - x) / run)


@kernel
def anomaly_residual(actual: float, margin: float, a: float, b: float) -> np.float32:
    """How far a sensor is from what the others predict, in the spreads seen in training."""
    return np.float32((np.float64(actual) - np.float64(margin) - np.float64(b)) * np.float64(a))


@kernel
def anomaly_value(residuals: NDArray[np.float32]) -> np.float32:
    """Root mean square of the finite residuals float32[s] of one row, in slot order; NaN where none is finite."""
    squares = 0.0
    count = 0
    for residual in residuals:
        if math.isfinite(residual):
            squares += np.float64(residual) * np.float64(residual)
            count += 1
    return np.float32(math.sqrt(squares / count)) if count else np.float32(np.nan)


@kernel
def rul_values(margins: NDArray[np.float32], a: float, b: float, cap: float) -> NDArray[np.float32]:
    """`rul_value` of each margin, float32[n]."""
    out = np.empty(margins.size, np.float32)
    for i in range(margins.size):
        out[i] = rul_value(margins[i], a, b, cap)
    return out


@kernel
def failure_values(margins: NDArray[np.float32], a: float, b: float, knots: NDArray[np.float32]) -> NDArray[np.float32]:
    """`failure_value` of each margin, float32[n]; knots: float32[K, 2], K = 0 for none."""
    out = np.empty(margins.size, np.float32)
    for i in range(margins.size):
        out[i] = failure_value(margins[i], a, b, knots, 0, knots.shape[0])
    return out


@kernel
def anomaly_residuals(
    actual: NDArray[np.float32], margins: NDArray[np.float32], a: float, b: float
) -> NDArray[np.float32]:
    """`anomaly_residual` of each row of one slot, float32[n]."""
    out = np.empty(margins.size, np.float32)
    for i in range(margins.size):
        out[i] = anomaly_residual(actual[i], margins[i], a, b)
    return out


@kernel
def anomaly_values(residuals: NDArray[np.float32]) -> NDArray[np.float32]:
    """`anomaly_value` of each row of float32[n, s]."""
    out = np.empty(residuals.shape[0], np.float32)
    for i in range(residuals.shape[0]):
        out[i] = anomaly_value(residuals[i])
    return out
