"""Figures of merit of plain arrays. Rows with an unknown label or no score count in none of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Doubles = npt.NDArray[np.float64]


def known(label: Floats, score: Floats) -> npt.NDArray[np.bool_]:
    """bool[n]: the rows that have both."""
    return np.isfinite(label) & np.isfinite(score)


def rmse(label: Floats, score: Floats, weight: Floats | None = None) -> float:
    """Root mean squared error; NaN of no rows."""
    return float(np.sqrt(_mean(lambda truth, found: (found - truth) ** 2, label, score, weight)))


def mae(label: Floats, score: Floats, weight: Floats | None = None) -> float:
    """Mean absolute error; NaN of no rows."""
    return _mean(lambda truth, found: np.abs(found - truth), label, score, weight)


def brier(label: Floats, probability: Floats, weight: Floats | None = None) -> float:
    """Mean squared error of a probability; NaN of no rows."""
    return _mean(lambda truth, found: (found - truth) ** 2, label, probability, weight)


def phm08(label: Floats, score: Floats) -> float:
    """The PHM08 challenge's penalty: exp(late/10) - 1 or exp(early/13) - 1 per row, summed (Saxena et al., 2008).

    NaN of no rows.
    """
    there = known(label, score)
    return float(np.sum(phm08_penalty(label[there], score[there]))) if there.any() else float("nan")


def phm08_penalty(label: Floats, score: Floats) -> npt.NDArray[np.float64]:
    """float64[n]: each row's part of `phm08`; NaN where either is missing."""
    error = score.astype(np.float64) - label.astype(np.float64)
    return np.asarray(np.expm1(np.where(error < 0, -error / 13.0, error / 10.0)))


def calibration_error(bins: Sequence[Mapping[str, float]]) -> float:
    """Expected calibration error: how far the observed share lies from what was predicted, over all rows of `bins`."""
    rows = sum(one["rows"] for one in bins)
    return sum(one["rows"] * abs(one["observed"] - one["predicted"]) for one in bins) / rows if rows else float("nan")


def inspected(week: npt.NDArray[np.int64], score: Floats, inspections: int) -> npt.NDArray[np.bool_]:
    """bool[n]: the rows that are looked at, where each week the `inspections` highest scores are.

    A row is an asset in a week; of equal scores the first rows are taken.
    """
    order = np.lexsort((-score, week))
    first = np.flatnonzero(np.diff(week[order], prepend=-1 << 60))
    rank = np.arange(len(order)) - np.repeat(first, np.diff(np.append(first, len(order))))
    taken = np.zeros(len(order), np.bool_)
    taken[order[rank < inspections]] = True
    return taken


def pr_auc(label: Floats, score: Floats, weight: Floats | None = None) -> float:
    """Average precision: precision weighted by each step of recall, ties taken together; NaN without a positive."""
    return pr_auc_of(*_curve(label, score, weight))


def pr_auc_of(hits: npt.NDArray[np.float64], taken: npt.NDArray[np.float64]) -> float:
    """`pr_auc` of (positives, rows) at or above each distinct score, highest first."""
    if not len(hits) or hits[-1] == 0:
        return float("nan")
    precision = np.divide(hits, taken, out=np.zeros_like(hits), where=taken > 0)
    return float(np.sum(np.diff(hits, prepend=0.0) / hits[-1] * precision))


def roc_auc(label: Floats, score: Floats, weight: Floats | None = None) -> float:
    """The chance that a positive outscores a negative, ties half; NaN without both."""
    return roc_auc_of(*_curve(label, score, weight))


def roc_auc_of(hits: npt.NDArray[np.float64], taken: npt.NDArray[np.float64]) -> float:
    """`roc_auc` of (positives, rows) at or above each distinct score, highest first."""
    if not len(hits) or hits[-1] == 0 or taken[-1] == hits[-1]:
        return float("nan")
    recall = np.concatenate([[0.0], hits / hits[-1]])
    fallout = np.concatenate([[0.0], (taken - hits) / (taken[-1] - hits[-1])])
    return float(np.trapezoid(recall, fallout))


def calibration_bins(label: Floats, probability: Floats, bins: int = 10) -> list[dict[str, float]]:
    """Mean probability against observed share in at most `bins` groups of equally many positives and scores.

    Groups are quantiles of the probability, because most rows of a rare failure lie close to zero.
    """
    there = known(label, probability)
    truth, found = label[there].astype(np.float64), probability[there].astype(np.float64)
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
    statistic: Callable[[npt.NDArray[np.float64]], float], assets: int, seed: int, draws: int = 100
) -> tuple[float, float]:
    """The 90 % interval of `statistic(how often each asset was drawn, float64[assets])`, drawing assets with return.

    Assets, not rows, because an asset's rows resemble each other. (NaN, NaN) where fewer than half the draws have a
    value.
    """
    drawn = draws_of(assets, seed, draws)
    return interval_of(np.array([statistic(counts.astype(np.float64)) for counts in drawn]), draws)


def draws_of(assets: int, seed: int, draws: int = 100) -> npt.NDArray[np.uint8]:
    """uint8[draws, assets]: how often each asset is drawn; of fewer than two assets nothing can be drawn."""
    random = np.random.default_rng(seed)
    found = np.empty((draws if assets > 1 else 0, assets), np.uint8)
    for row in found:
        row[:] = random.multinomial(assets, np.full(assets, 1.0 / assets))
    return found


def interval_of(found: npt.NDArray[np.float64], draws: int = 100) -> tuple[float, float]:
    """The 90 % interval of a statistic's values float64[draws]; (NaN, NaN) where fewer than half the draws have one."""
    found = found[np.isfinite(found)]
    if len(found) * 2 < draws or not len(found):
        return float("nan"), float("nan")
    low, high = np.quantile(found, [0.05, 0.95])
    return float(low), float(high)


def _mean(loss: Callable[[Floats, Floats], Floats], label: Floats, score: Floats, weight: Floats | None) -> float:
    there = known(label, score)
    found = loss(label[there].astype(np.float64), score[there].astype(np.float64))
    weights = np.ones(len(found)) if weight is None else weight[there].astype(np.float64)
    total = weights.sum()
    return float(weights @ found / total) if total > 0 else float("nan")


def curves_of(label: Floats, score: Floats) -> Callable[[Floats], tuple[Doubles, Doubles]]:
    """weight float[n] → (positives, rows) with a score at or above each distinct score, highest score first.

    Rows are sorted and ties found once, for as many weights as are drawn.
    """
    there = np.flatnonzero(known(label, score))
    order = there[np.argsort(-score[there].astype(np.float64), kind="stable")]
    truth, found = label[order].astype(np.float64), score[order].astype(np.float64)
    last_of_tie = np.append(np.flatnonzero(np.diff(found)), len(found) - 1) if len(found) else np.empty(0, np.int64)

    def curve(weight: Floats) -> tuple[Doubles, Doubles]:
        weights = weight[order].astype(np.float64)
        return np.cumsum(truth * weights)[last_of_tie], np.cumsum(weights)[last_of_tie]

    return curve


def _curve(label: Floats, score: Floats, weight: Floats | None) -> tuple[Doubles, Doubles]:
    return curves_of(label, score)(np.ones(len(label)) if weight is None else weight)
