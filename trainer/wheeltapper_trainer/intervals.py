"""How far a remaining life may be from the truth: a 90 % interval around each prediction, from errors on machines the
model had not seen (split conformal prediction by bins of the predicted life; Lei et al., 2018).

A short life is known better than a long one, so the interval depends on what was predicted. It covers the life as it
was learnt, at most the cap.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

COVERAGE = 0.9
_BINS_MAX = 10
_ROWS_MIN = 40  # a bin with fewer says nothing about one row in twenty

Floats = npt.NDArray[np.floating]


def interval_knots(life: Floats, predicted: Floats, weight: Floats | None = None) -> list[list[float]]:
    """[predicted, lowest − predicted, highest − predicted] for up to ten predictions, ascending; [] of too few rows.

    life, predicted, weight: float[n], of rows of machines that did not teach the model. A row of weight 2 counts twice.
    """
    known = np.isfinite(life) & np.isfinite(predicted)
    order = np.flatnonzero(known)[np.argsort(predicted[known], kind="stable")]
    truth, found = life[order].astype(np.float64), predicted[order].astype(np.float64)
    weights = np.ones(len(order)) if weight is None else weight[order].astype(np.float64)
    bins = min(_BINS_MAX, len(order) // _ROWS_MIN)
    if not bins:
        return []
    reach = np.cumsum(weights)
    cuts = np.searchsorted(reach, np.linspace(0.0, 1.0, bins + 1)[1:-1] * reach[-1])
    knots: list[list[float]] = []
    parts = (np.split(column, cuts) for column in (truth - found, found, weights))
    for errors, values, counts in zip(*parts, strict=True):
        if not len(errors):
            continue
        at = float(np.average(values, weights=counts))
        if knots and at <= knots[-1][0]:
            continue
        low = _quantile(errors, counts, (1.0 - COVERAGE) / 2.0)
        knots.append([round(x, 4) for x in (at, low, -_quantile(-errors, counts, (1.0 - COVERAGE) / 2.0))])
    return knots


def interval_of(knots: Sequence[Sequence[float]], predicted: Floats, cap: float) -> tuple[Floats, Floats]:
    """(low, high), float64[n] each, within [0, cap], of predictions float[n]; NaN without knots."""
    if not len(knots):
        return np.full(len(predicted), np.nan), np.full(len(predicted), np.nan)
    at, low, high = np.array(knots, np.float64).T
    values = predicted.astype(np.float64)
    top = cap or np.inf
    return (
        np.clip(values + np.interp(values, at, low), 0.0, top),
        np.clip(values + np.interp(values, at, high), 0.0, top),
    )


def _quantile(errors: npt.NDArray[np.float64], weight: npt.NDArray[np.float64], share: float) -> float:
    """The lower weighted quantile; as if one more error, beyond all, had been seen (the conformal correction)."""
    order = np.argsort(errors, kind="stable")
    reach = np.cumsum(weight[order])
    one = reach[-1] / len(errors)
    place = int(np.searchsorted(reach, share * (reach[-1] + one) - one, side="right"))
    return float(errors[order][min(place, len(errors) - 1)])
