"""Figures of merit of plain arrays. Rows with an unknown label or no score count in none of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]


def known(label: Floats, score: Floats) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The rows that have both, as float64."""
    there = np.isfinite(label) & np.isfinite(score)
    return label[there].astype(np.float64), score[there].astype(np.float64)


def rmse(label: Floats, score: Floats, cap: float = float("inf")) -> float:
    """Root mean squared error, the label cut at `cap`; NaN of no rows."""
    truth, found = known(label, score)
    return float(np.sqrt(np.mean((found - np.minimum(truth, cap)) ** 2))) if len(truth) else float("nan")


def mae(label: Floats, score: Floats) -> float:
    """Mean absolute error; NaN of no rows."""
    truth, found = known(label, score)
    return float(np.mean(np.abs(found - truth))) if len(truth) else float("nan")


def phm08(label: Floats, score: Floats, cap: float = float("inf")) -> float:
    """The PHM08 challenge's penalty: exp(late/10) - 1 or exp(early/13) - 1 per row, summed (Saxena et al., 2008)."""
    truth, found = known(label, score)
    error = found - np.minimum(truth, cap)
    return float(np.sum(np.expm1(np.where(error < 0, -error / 13.0, error / 10.0))))


def pr_auc(label: Floats, score: Floats) -> float:
    """Average precision: precision weighted by each step of recall, ties taken together; NaN without a positive."""
    hits, taken = _curve(label, score)
    if not len(hits) or hits[-1] == 0:
        return float("nan")
    return float(np.sum(np.diff(hits, prepend=0.0) / hits[-1] * hits / taken))


def roc_auc(label: Floats, score: Floats) -> float:
    """The chance that a positive outscores a negative, ties half; NaN without both."""
    hits, taken = _curve(label, score)
    if not len(hits) or hits[-1] == 0 or taken[-1] == hits[-1]:
        return float("nan")
    recall = np.concatenate([[0.0], hits / hits[-1]])
    fallout = np.concatenate([[0.0], (taken - hits) / (taken[-1] - hits[-1])])
    return float(np.trapezoid(recall, fallout))


def brier(label: Floats, probability: Floats) -> float:
    """Mean squared error of a probability; NaN of no rows."""
    truth, found = known(label, probability)
    return float(np.mean((found - truth) ** 2)) if len(truth) else float("nan")


def calibration_bins(label: Floats, probability: Floats, bins: int = 10) -> list[dict[str, float]]:
    """Mean probability against observed share in at most `bins` groups of equally many positives and scores.

    Groups are quantiles of the probability, because most rows of a rare failure lie close to zero.
    """
    truth, found = known(label, probability)
    if not len(truth):
        return []
    edges = np.unique(np.quantile(found, np.linspace(0.0, 1.0, bins + 1)[1:-1]))
    group = np.searchsorted(edges, found, side="right")
    return [
        {"predicted": float(found[rows].mean()), "observed": float(truth[rows].mean()), "rows": int(rows.sum())}
        for rows in (group == g for g in range(len(edges) + 1))
        if rows.any()
    ]


def bootstrap_interval(
    statistic: Callable[[npt.NDArray[np.int64]], float],
    assets: int,
    seed: int,
    draws: int = 200,
    quantiles: Sequence[float] = (0.05, 0.95),
) -> tuple[float, float]:
    """The 90 % interval of `statistic(indices of assets, drawn with return)`; assets, not rows, because an asset's rows
    resemble each other. (NaN, NaN) where fewer than half the draws have a value."""
    random = np.random.default_rng(seed)
    found = np.array([statistic(random.integers(0, assets, assets)) for _ in range(draws if assets > 1 else 0)])
    found = found[np.isfinite(found)]
    if len(found) * 2 < draws:
        return float("nan"), float("nan")
    low, high = np.quantile(found, quantiles)
    return float(low), float(high)


def _curve(label: Floats, score: Floats) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(positives, rows) with a score at or above each distinct score, highest score first."""
    truth, found = known(label, score)
    order = np.argsort(-found, kind="stable")
    last_of_tie = np.append(np.flatnonzero(np.diff(found[order])), len(found) - 1) if len(found) else np.empty(0, int)
    return np.cumsum(truth[order])[last_of_tie], last_of_tie + 1.0
