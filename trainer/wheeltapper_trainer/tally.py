"""A tally of scores: how many rows, and how many of them before a failure, had about each score.

Scores that agree in sign, exponent and the first 13 bits of the mantissa (one part in 8,192) are counted together, so
a tally is as small for a billion rows as for a million. Counts are whole numbers: in which order chunks are added, or
how they were cut, changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int64]
_DROPPED_BITS = 10  # of a float32's 23 bits of mantissa


@dataclass(slots=True)
class Tally:
    """Ascending in score: rows and hits int64[b], and the lowest and highest score of each bucket, float32[b]."""

    rows: Counts = field(default_factory=lambda: np.empty(0, np.int64))
    hits: Counts = field(default_factory=lambda: np.empty(0, np.int64))
    low: Floats = field(default_factory=lambda: np.empty(0, np.float32))
    high: Floats = field(default_factory=lambda: np.empty(0, np.float32))

    def add(self, scores: Floats, labels: Floats | None = None) -> None:
        """Count finite `scores` float32[n]; with `labels` (0 or 1) only rows that have one, and those of 1 as hits."""
        there = np.isfinite(scores) if labels is None else np.isfinite(scores) & np.isfinite(labels)
        found = scores[there] + np.float32(0)  # -0 is 0
        hits = np.zeros(len(found), np.int64) if labels is None else (labels[there] > 0).astype(np.int64)
        low, high = np.concatenate([self.low, found]), np.concatenate([self.high, found])
        if not len(low):
            return
        keys = _keys(low)
        order = np.argsort(keys, kind="stable")
        begin = np.flatnonzero(np.diff(keys[order], prepend=-1))
        self.rows = np.add.reduceat(np.concatenate([self.rows, np.ones(len(found), np.int64)])[order], begin)
        self.hits = np.add.reduceat(np.concatenate([self.hits, hits])[order], begin)
        self.low, self.high = np.minimum.reduceat(low[order], begin), np.maximum.reduceat(high[order], begin)

    @property
    def middle(self) -> npt.NDArray[np.float64]:
        """float64[b]: the score that stands for each bucket."""
        return np.asarray((self.low.astype(np.float64) + self.high) / 2)

    def strictest_first(self, count: int, below: bool) -> Floats:
        """At most `count` scores to set a threshold at, the strictest first; steps widen with the share of rows they
        let through, up to half of them. `below`: a score alarms at and under the threshold."""
        total = int(self.rows.sum())
        if not total:
            return np.empty(0, np.float32)
        rows, edge = (self.rows, self.high) if below else (self.rows[::-1], self.low[::-1])
        shares = np.concatenate([[0.0], np.geomspace(1.0 / max(total, 2), 0.5, count - 1)])
        ranks = np.rint(shares * (total - 1)).astype(np.int64)  # how many rows are stricter
        return np.asarray(edge[np.unique(np.searchsorted(np.cumsum(rows), ranks, side="right"))])

    def curve(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """(hits, rows) with a score at or above each bucket's, highest first: what average precision is made of."""
        return np.cumsum(self.hits[::-1]).astype(np.float64), np.cumsum(self.rows[::-1]).astype(np.float64)

    def equal_bins(self, bins: int) -> npt.NDArray[np.int64]:
        """int64[b]: which of `bins` groups of about equally many rows each bucket is in; ties stay together."""
        before = np.cumsum(self.rows) - self.rows
        return before * bins // max(1, int(self.rows.sum()))


def _keys(scores: Floats) -> Counts:
    """int64[n] ascending with the score, equal for scores that are counted together."""
    bits = np.ascontiguousarray(scores).view(np.uint32)
    return (np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)) >> _DROPPED_BITS).astype(np.int64)
