"""From a margin to a probability that means what it says: isotonic regression, cut down to a few knots.

Where validation saw too few failures for a free shape, a logistic of two numbers (Platt, 1999) is fitted instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

KNOTS_MAX = 32
_POSITIVES_FOR_ISOTONIC = 200  # rows; below it the logistic generalises better
_FLOOR = 1e-6

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Calibration:
    """probability = knots interpolated at the margin, or where there are none 1 / (1 + exp(-(a × margin + b))).

    knots: float32[K, 2] (margin, probability), both strictly ascending; executed by `wheeltapper.outputs`.
    """

    a: float
    b: float
    knots: npt.NDArray[np.float32]


UNCALIBRATED = Calibration(1.0, 0.0, np.empty((0, 2), np.float32))


def calibrate(margin: Floats, label: Floats, weight: Floats) -> Calibration:
    """The calibration of rows with known labels (0 or 1) and sampling weights; none where one side is absent."""
    positives = int(label.sum())
    if positives == 0 or positives == len(label):
        return UNCALIBRATED
    if positives < _POSITIVES_FOR_ISOTONIC:
        return _platt(margin.astype(np.float64), label.astype(np.float64), weight.astype(np.float64))
    return _isotonic(margin.astype(np.float64), label.astype(np.float64), weight.astype(np.float64))


def _platt(
    margin: npt.NDArray[np.float64], label: npt.NDArray[np.float64], weight: npt.NDArray[np.float64]
) -> Calibration:
    positives, negatives = float(weight @ label), float(weight @ (1.0 - label))
    # Platt's targets: as if each side had been seen once more, so that separable data stay finite.
    truth = np.where(label > 0, (positives + 1.0) / (positives + 2.0), 1.0 / (negatives + 2.0))

    def loss(ab: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        logit = ab[0] * margin + ab[1]
        slope = weight * (1.0 / (1.0 + np.exp(-np.clip(logit, -500.0, 500.0))) - truth)
        value = float(weight @ (np.logaddexp(0.0, logit) - truth * logit))
        total = float(weight.sum())
        return value / total, np.array([slope @ margin, slope.sum()]) / total

    from scipy.optimize import minimize  # type: ignore[import-untyped]  # noqa: PLC0415  read late, like the other one

    found = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(0.05, 20.0), (-20.0, 20.0)])
    return Calibration(float(np.float32(found.x[0])), float(np.float32(found.x[1])), np.empty((0, 2), np.float32))


def _isotonic(
    margin: npt.NDArray[np.float64], label: npt.NDArray[np.float64], weight: npt.NDArray[np.float64]
) -> Calibration:
    order = np.argsort(margin, kind="stable")
    margin, label, weight = margin[order], label[order], weight[order]
    from scipy.optimize import isotonic_regression  # noqa: PLC0415  only class heads need it; workers start without

    blocks = isotonic_regression(label, weights=weight).blocks
    total = np.add.reduceat(weight, blocks[:-1])
    centre = np.add.reduceat(weight * margin, blocks[:-1]) / total
    share = np.add.reduceat(weight * label, blocks[:-1]) / total
    if len(centre) > KNOTS_MAX:  # groups of equal logit steps keep the rare end, where alarms live
        logit = np.log(np.clip(share, _FLOOR, 1 - _FLOOR) / (1 - np.clip(share, _FLOOR, 1 - _FLOOR)))
        group = np.minimum((logit - logit[0]) / (logit[-1] - logit[0]) * KNOTS_MAX, KNOTS_MAX - 1).astype(np.int64)
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        weights = np.add.reduceat(total, starts)
        centre = np.add.reduceat(total * centre, starts) / weights
        share = np.add.reduceat(total * share, starts) / weights
    # A flat end would tie the most urgent rows; let the ends run to the extreme margins, short of certainty.
    centre = np.concatenate([[margin[0]], centre, [margin[-1]]])
    share = np.concatenate([[share[0] / 2], share, [(1.0 + share[-1]) / 2]])
    knots = np.column_stack([centre, np.clip(share, _FLOOR, 1 - _FLOOR)]).astype(np.float32)
    ascending = np.concatenate([[True], (np.diff(knots[:, 0]) > 0) & (np.diff(knots[:, 1]) > 0)])
    knots = knots[ascending]
    return Calibration(1.0, 0.0, knots) if len(knots) > 1 else _platt(margin, label, weight)
