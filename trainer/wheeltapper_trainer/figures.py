"""One output on one level: figures added up a chunk at a time, with intervals by bootstrap over assets.

What is kept grows with assets and weeks, not with rows: sums per asset, each asset's last score of each week, a tally
of scores, and a bounded sample of rows for the intervals of figures that depend on the order of scores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from wheeltapper.spec import MICROSECONDS_PER_HOUR, Costs

from wheeltapper_trainer import metrics
from wheeltapper_trainer.bounds import rates_at_most, share_at_least
from wheeltapper_trainer.cases import MONTH_US, WEEK_US, Warnings, cost_of
from wheeltapper_trainer.tally import Tally

Floats = npt.NDArray[np.float32]
Sums = npt.NDArray[np.float64]
Draws = npt.NDArray[np.uint8]
Figure = dict[str, float | None]
SAMPLE_ROWS_MAX = 5_000  # of each kind, before a failure and not
_BINS = 10
_MONDAY_US = 3 * 86_400_000_000  # 1970 began on a Thursday


@dataclass(frozen=True, slots=True)
class Rows:
    """The test rows of some assets for one output, asset behind asset in time.

    asset int64[n], position among all assets seen; times int64[n] µs; labels, raw_labels, values float32[n]; hits
    bool[n]: a failure follows within the span in which a warning counts; draw uint64[n]: fixed by asset and time.
    """

    asset: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64]
    labels: Floats
    raw_labels: Floats
    values: Floats
    hits: npt.NDArray[np.bool_]
    draw: npt.NDArray[np.uint64]


_NO_ROWS = Rows(
    np.empty(0, np.int64),
    np.empty(0, np.int64),
    np.empty(0, np.float32),
    np.empty(0, np.float32),
    np.empty(0, np.float32),
    np.empty(0, np.bool_),
    np.empty(0, np.uint64),
)


@dataclass(slots=True)
class LevelFigures:
    """Figures of one output as one level answers it. `kind` is its target's."""

    kind: str
    tally: Tally = field(default_factory=Tally)
    _sums: list[Sums] = field(default_factory=list)
    _last: list[Floats] = field(default_factory=list)
    _alarms: list[npt.NDArray[np.int64]] = field(default_factory=list)  # [assets, 5]: Warnings.by_asset, observed µs
    _leads: list[npt.NDArray[np.int64]] = field(default_factory=list)
    _weeks: list[npt.NDArray[np.int64]] = field(default_factory=list)  # [k, 3]: asset, week, hit
    _weekly: list[Floats] = field(default_factory=list)
    _sample: list[Rows] = field(default_factory=lambda: [_NO_ROWS, _NO_ROWS])  # not before a failure, before one

    def add(self, rows: Rows, first: int, assets: int, seen: Warnings) -> None:
        """Count some assets' rows and alarms; they are the assets `first` … `first + assets - 1`."""
        self._sums.append(_sums_of(rows, first, assets))
        self._last.append(_last_of(rows, first, assets))
        self._alarms.append(np.column_stack([seen.by_asset(), seen.observed_us]))
        self._leads.append(seen.lead_us[seen.lead_us >= 0])
        there = np.flatnonzero(metrics.known(rows.labels, rows.values))
        week = (rows.times[there] + _MONDAY_US) // WEEK_US
        last = np.flatnonzero((np.diff(week, append=-1) != 0) | (np.diff(rows.asset[there], append=-1) != 0))
        self._weeks.append(np.column_stack([rows.asset[there][last], week[last], rows.hits[there][last]]))
        self._weekly.append(rows.values[there][last])
        if self.kind != "rul":
            self.tally.add(rows.values, rows.labels)
            for kind in (0, 1):
                self._sample[kind] = _thinned(self._sample[kind], rows, there[rows.labels[there] == kind])

    def rows_known(self) -> int:
        """Rows with both a score and a known label."""
        return sum(int(sums[:, 0].sum()) for sums in self._sums)

    def lead_hours(self) -> list[float]:
        """The lead of each failure that was warned of, ascending."""
        leads = np.concatenate([np.empty(0, np.int64), *self._leads])
        return sorted((leads / MICROSECONDS_PER_HOUR).tolist())

    def bins(self) -> list[dict[str, float]]:
        """Predicted probability against the observed share, in up to ten groups of about equally many rows."""
        tally, group = self.tally, self.tally.equal_bins(_BINS)
        rows, hits, predicted = (
            np.bincount(group, weights, _BINS) for weights in (tally.rows, tally.hits, tally.rows * tally.middle)
        )
        return [
            {"predicted": float(predicted[g] / rows[g]), "observed": float(hits[g] / rows[g]), "rows": int(rows[g])}
            for g in np.flatnonzero(rows)
        ]

    def figures(
        self, order: npt.NDArray[np.int64], drawn: Draws, inspections: int, costs: Costs | None
    ) -> dict[str, Figure]:
        """Every figure. `order` int64[A]: the assets by their ids, so that no sum depends on how they were chunked;
        `drawn` uint8[draws, A]: how often each is drawn for the intervals."""
        sums, alarms = np.concatenate(self._sums)[order], np.concatenate(self._alarms)[order]
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        if self.kind == "rul":
            found = _of_lives(sums, np.concatenate(self._last)[order], drawn)
        else:
            found = self._of_ranks(sums, place, drawn)
        found |= _of_alarms(alarms, drawn)
        leads = self.lead_hours()
        found["lead_median_hours"] = figure(float(np.median(leads)) if leads else math.nan)
        found["inspection_precision"] = self._of_weeks(place, drawn, inspections)
        if costs is not None:
            found["cost_per_asset_month"] = _ratio(cost_of(costs, alarms[:, :4]), alarms[:, 4] / MONTH_US, drawn)
        return found

    def _of_ranks(self, sums: Sums, place: npt.NDArray[np.int64], drawn: Draws) -> dict[str, Figure]:
        rows, error, hits = sums[:, 0], sums[:, 1], sums[:, 3]
        sample = self._sample
        totals = rows.sum() - hits.sum(), hits.sum()  # a sampled row stands for so many of its kind
        kinds = zip(sample, totals, strict=True)
        weight = np.concatenate([np.full(len(kind.asset), n / max(1, len(kind.asset))) for kind, n in kinds])
        asset = place[np.concatenate([s.asset for s in sample])]
        label, value = (np.concatenate([getattr(s, name) for s in sample]) for name in ("labels", "values"))
        times = np.concatenate([s.times for s in sample])
        best_first = np.lexsort((times, asset, -value))  # sorted once, so each draw's sort has nothing to do
        asset, label, value, weight = (column[best_first] for column in (asset, label, value, weight))

        weights = [weight * counts[asset] for counts in drawn]
        drawn_curves = map(metrics.curves_of(label, value), weights)
        ranks = np.array([(metrics.pr_auc_of(*one), metrics.roc_auc_of(*one)) for one in drawn_curves])
        pr_auc, roc_auc = ranks.reshape(-1, 2).T
        curve = self.tally.curve()
        found = {
            "base_rate": _ratio(hits, rows, drawn),
            "pr_auc": figure(metrics.pr_auc_of(*curve), metrics.interval_of(pr_auc)),
            "roc_auc": figure(metrics.roc_auc_of(*curve), metrics.interval_of(roc_auc)),
        }
        if self.kind == "failure":
            edges = self.tally.low[np.flatnonzero(np.diff(self.tally.equal_bins(_BINS), prepend=0))]
            errors = np.array([_binned_error(label, value, one, edges) for one in weights])
            found["brier"] = _ratio(error, rows, drawn)
            found["calibration_error"] = figure(metrics.calibration_error(self.bins()), metrics.interval_of(errors))
        return found

    def _of_weeks(self, place: npt.NDArray[np.int64], drawn: Draws, inspections: int) -> Figure:
        """Of the assets with the worst scores of each week, the share that failed; a row is an asset in a week."""
        rows, score = np.concatenate(self._weeks), np.concatenate(self._weekly)
        asset = place[rows[:, 0]]
        order = np.lexsort((asset, rows[:, 1]))  # equal scores are inspected in the order of asset ids
        taken = order[metrics.inspected(rows[order, 1], (-score if self.kind == "rul" else score)[order], inspections)]
        looks = np.bincount(asset[taken], minlength=len(place)).astype(np.float64)
        hits = np.bincount(asset[taken], rows[taken, 2].astype(np.float64), len(place)).astype(np.float64)
        return _ratio(hits, looks, drawn)


def figure(value: float, interval: tuple[float, float] = (math.nan, math.nan)) -> Figure:
    """A figure of the Evaluation document."""
    return {"value": number(value), "low": number(interval[0]), "high": number(interval[1])}


def number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def draw_of(asset: npt.NDArray[np.uint64], times: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """uint64[n]: an even draw for each reading, the same in every run: SplitMix64 of its asset's number and time."""
    state = times.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + asset
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(state ^ (state >> np.uint64(31)))


def _thinned(kept: Rows, rows: Rows, more: npt.NDArray[np.int64]) -> Rows:
    """The rows with the lowest draws among those kept and `more` of `rows`."""
    names = Rows.__slots__
    columns = {name: np.concatenate([getattr(kept, name), getattr(rows, name)[more]]) for name in names}
    if len(columns["draw"]) > SAMPLE_ROWS_MAX:
        lowest = np.argsort(columns["draw"], kind="stable")[:SAMPLE_ROWS_MAX]
        columns = {name: column[lowest] for name, column in columns.items()}
    return Rows(**columns)


def _sums_of(rows: Rows, first: int, assets: int) -> Sums:
    """float64[assets, 6]: each asset's known rows, their squared and absolute error, their hits; its rows with a known
    raw label and their squared error."""
    there, raw = metrics.known(rows.labels, rows.values), metrics.known(rows.raw_labels, rows.values)
    error = np.where(there, rows.values.astype(np.float64) - rows.labels, 0.0)
    raw_error = np.where(raw, rows.values.astype(np.float64) - rows.raw_labels, 0.0)
    columns = (there, error**2, np.abs(error), there & rows.hits, raw, raw_error**2)
    return np.column_stack([np.bincount(rows.asset - first, c.astype(np.float64), assets) for c in columns])


def _last_of(rows: Rows, first: int, assets: int) -> Floats:
    """float32[assets, 3]: label, raw label and score of each asset's last row, NaN where it has none."""
    out = np.full((assets, 3), np.nan, np.float32)
    last = np.flatnonzero(np.diff(rows.asset, append=-1))
    out[rows.asset[last] - first] = np.column_stack([rows.labels[last], rows.raw_labels[last], rows.values[last]])
    return out


def _of_lives(sums: Sums, last: Floats, drawn: Draws) -> dict[str, Figure]:
    """Errors of remaining lives, against the label (at most the cap) and the raw label."""
    rows, squared, absolute, _, raw_rows, raw_squared = sums.T
    found = {
        "rmse": _ratio(squared, rows, drawn, root=True),
        "mae": _ratio(absolute, rows, drawn),
        "rmse_raw": _ratio(raw_squared, raw_rows, drawn, root=True),
    }
    for ending, column in (("", 0), ("_raw", 1)):
        there = metrics.known(last[:, column], last[:, 2])
        label, value = np.where(there, last[:, column], 0), np.where(there, last[:, 2], 0)
        error = (value.astype(np.float64) - label) ** 2
        found[f"rmse_last{ending}"] = _ratio(error, there.astype(np.float64), drawn, root=True)
        penalty = metrics.phm08_penalty(label, value)
        again = np.array([counts @ penalty for counts in drawn if counts @ there])
        total = float(penalty.sum()) if there.any() else math.nan
        found[f"phm08_last{ending}"] = figure(total, metrics.interval_of(again))
    return found


def _of_alarms(alarms: npt.NDArray[np.int64], drawn: Draws) -> dict[str, Figure]:
    failures, warned, cases, false, observed = alarms.astype(np.float64).T
    weeks = observed / WEEK_US
    return {
        "failures": figure(float(failures.sum())),
        "warned": figure(float(warned.sum())),
        "recall": _ratio(warned, failures, drawn),
        "cases": figure(float(cases.sum())),
        "precision": _ratio(cases - false, cases, drawn),
        "cases_per_asset_week": _ratio(cases, weeks, drawn),
        "false_per_asset_week": _ratio(false, weeks, drawn),
        # What few alarms and few failures leave possible: drawing the same assets again makes nothing of nothing.
        "false_per_asset_week_high": figure(rates_at_most(alarms[observed > 0, 3], float(weeks.sum()))),
        "recall_low": figure(share_at_least(float(warned.sum()), float(failures.sum()))),
    }


def _ratio(part: Sums, whole: Sums, drawn: Draws, *, root: bool = False) -> Figure:
    """The sum of `part` over that of `whole`, per asset float64[A], or its root; NaN where `whole` is nothing."""

    def of(part: float, whole: float) -> float:
        found = part / whole if whole > 0 else math.nan
        return math.sqrt(found) if root else found

    again = np.array([of(float(counts @ part), float(counts @ whole)) for counts in drawn])
    return figure(of(float(part.sum()), float(whole.sum())), metrics.interval_of(again))


def _binned_error(label: Floats, value: Floats, weight: Sums, edges: Floats) -> float:
    """`metrics.calibration_error` of weighted rows, in groups that begin at `edges`."""
    group = np.searchsorted(edges, value, side="right")
    rows, hits, predicted = (
        np.bincount(group, column, len(edges) + 1) for column in (weight, weight * label, weight * value)
    )
    return float(np.abs(hits - predicted).sum() / rows.sum()) if rows.sum() > 0 else math.nan
