"""What the three sets of labelled anomalies share: answers beside labels, events, false alarms, ranks of points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from wheeltapper_trainer import metrics

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating]

_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Scored:
    """The test rows of one machine: anomaly bool[n] (labels), score float[n] (no answer: 0), times int64[n] µs."""

    times: npt.NDArray[np.int64]
    anomaly: Bools
    score: Floats

    @property
    def days(self) -> float:
        return float(self.times[-1] - self.times[0]) / _DAY_US


def filled(values: Floats) -> Floats:
    """Scores with 0, perfectly normal, where there was no answer."""
    return np.where(np.isfinite(values), values, 0.0)


def spans_of(flag: Bools) -> list[tuple[int, int]]:
    """[begin, end) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flag, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def point_pr_auc(found: Mapping[str, Scored]) -> float:
    """Average precision of single points, no point adjusted; the mean over machines."""
    return float(np.mean([metrics.pr_auc(one.anomaly.astype(np.float64), one.score) for one in found.values()]))


def recall_at(found: Mapping[str, Scored], false_per_day: float) -> float:
    """Share of labelled events touched at the lowest threshold, one for each machine, with so few false cases a day.

    A false case is a run of points over the threshold that touches no event.
    """
    caught = events = 0
    for one in found.values():
        spans = spans_of(one.anomaly)
        events += len(spans)
        best = 0
        for threshold in np.unique(np.quantile(one.score, 1.0 - np.geomspace(1e-4, 0.3, 120))):
            over = one.score >= threshold
            false = sum(not one.anomaly[a:b].any() for a, b in spans_of(over))
            if false / one.days <= false_per_day:
                best = max(best, sum(bool(over[a:b].any()) for a, b in spans))
        caught += best
    return caught / max(1, events)
