"""Figures with their intervals, as rows: machines are drawn again, because a machine's rows resemble each other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from wheeltapper_trainer.metrics import bootstrap_interval

from benchmarks.harness import Row

_DRAWS = 400
_SEED = 7

Statistic = Callable[[npt.NDArray[np.float64]], float]


def figure(
    case: str,
    unit: str,
    statistic: Statistic,
    machines: int,
    peer: str | None = None,
    peer_value: float | None = None,
    more_is_better: bool = False,
) -> Row:
    """A row of `statistic(how often each machine counts, float64[machines])`, `spread` being its 90 % interval."""
    value = statistic(np.ones(machines))
    low, high = bootstrap_interval(statistic, machines, _SEED, _DRAWS)
    spread = (low, high) if np.isfinite(low) else None
    if peer_value is None or not value:
        return Row(case, value, unit, peer, peer_value, spread=spread)
    ratio = value / peer_value if more_is_better else peer_value / value
    return Row(case, value, unit, peer, peer_value, ratio, spread)


def plain(
    case: str,
    unit: str,
    value: float,
    peer: str | None = None,
    peer_value: float | None = None,
    more_is_better: bool = False,
) -> Row:
    """A row without an interval."""
    if not peer_value or not value:
        return Row(case, value, unit, peer, peer_value)
    return Row(case, value, unit, peer, peer_value, value / peer_value if more_is_better else peer_value / value)


def best_f1_threshold(label: npt.NDArray[np.floating], score: npt.NDArray[np.floating]) -> float:
    """The score from which on calling a row positive gives the best F1. Chosen where nothing is reported."""
    there = np.isfinite(label) & np.isfinite(score)
    order = np.argsort(-score[there], kind="stable")
    truth, found = label[there][order].astype(np.float64), score[there][order]
    f1 = 2 * np.cumsum(truth) / (np.arange(1, len(truth) + 1) + truth.sum())
    last_of_tie = np.append(np.flatnonzero(np.diff(found)), len(found) - 1)
    return float(found[last_of_tie[np.argmax(f1[last_of_tie])]])


def counts_of(
    label: npt.NDArray[np.floating], called: npt.NDArray[np.bool_], machine: npt.NDArray[np.int64], machines: int
) -> npt.NDArray[np.float64]:
    """float64[machines, 4]: rows rightly called, wrongly called, missed and rightly left, of known labels."""
    known = np.isfinite(label)
    truth = label[known] > 0
    said, owner = called[known], machine[known]
    kinds = (truth & said, ~truth & said, truth & ~said, ~truth & ~said)
    return np.stack([np.bincount(owner[kind], minlength=machines) for kind in kinds], axis=1).astype(np.float64)


def f1_of(counts: npt.NDArray[np.float64]) -> Statistic:
    """Micro F1 from `counts_of`: every row counts once, whatever its machine or component."""

    def f1(times: npt.NDArray[np.float64]) -> float:
        hit, false, missed, _ = times @ counts
        return float(2 * hit / (2 * hit + false + missed)) if hit + false + missed else float("nan")

    return f1


def share_of(counts: npt.NDArray[np.float64], part: tuple[int, ...], whole: tuple[int, ...]) -> Statistic:
    """The share of some columns of `counts_of` in others: precision (0) of (0, 1), recall (0) of (0, 2) …"""

    def share(times: npt.NDArray[np.float64]) -> float:
        total = times @ counts
        among = float(total[list(whole)].sum())
        return float(total[list(part)].sum()) / among if among else float("nan")

    return share
