"""EVALUATE: what the test part says about every output, on every level, with its uncertainty; one JSON document.

    {"fleet", "totals": {...}, "classes": [{"name", "assets", "outputs": [...], "heads": [...], "features": [...],
     "worst_assets": [...]}]}

A figure is {"value", "low", "high"}: 90 % interval by bootstrap over assets; null where it cannot be known. Levels:
"answering" (what is served), "class" (without own heads), "own" (own heads wherever one was tried), and where asked for
"alone" (own forests without the class wherever one was tried).

Scores pass through a chunk at a time; what is kept grows with assets and weeks, not with rows.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from wheeltapper.outputs import KEPT, Why
from wheeltapper.spec import MICROSECONDS_PER_HOUR, ClassSpec, Target, costs_of, features_of, lead_of

from wheeltapper_trainer import metrics
from wheeltapper_trainer.assemble import unit_of
from wheeltapper_trainer.bounds import rate_at_most
from wheeltapper_trainer.cases import WEEK_US, Warnings, playable, warned_over
from wheeltapper_trainer.figures import LevelFigures, Rows, draw_of, number
from wheeltapper_trainer.job import TEST, Chunk, TrainJob, load_arrays, slots_of
from wheeltapper_trainer.labels import label_unit
from wheeltapper_trainer.scores import ClassScores, each_scores, part_of
from wheeltapper_trainer.thresholds import Threshold

LEVEL_COLUMNS = {"answering": "values", "class": "class_values", "own": "own_values", "alone": "alone_values"}
JUDGED_BY = {"rul": "rmse", "failure": "pr_auc", "anomaly": "pr_auc"}  # compares levels
_WORST_ASSETS = 20
_FEATURES = 30
_INSPECTED_SHARE = 0.1  # of the assets each week, where fleet.toml does not say how many


def evaluate(job: TrainJob, chunks: Sequence[Chunk], thresholds: Sequence[Threshold]) -> dict[str, Any]:
    """The Evaluation document of a finished run, from the scores its ASSET stage stored."""
    chosen = {(t.asset_class, t.output): t for t in thresholds}
    seen: list[_Class] = []
    for spec in job.spec.classes:
        one = _Class(spec, [chosen[spec.name, target.name] for target in spec.targets])
        for scores in each_scores(job, spec.name, [c for c in chunks if c.asset_class == spec.name]):
            one.add(scores)
        if one.asset_ids:
            seen.append(one)
    return {"fleet": job.spec.name, "totals": _totals(seen), "classes": [one.document(job) for one in seen]}


def flat_metrics(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, float | None]]:
    """The served figures per (class, output), for the pack's meta and the gates.

    Where own forests were asked for, also what every other level would have achieved: `pr_auc_alone` and the like.
    """
    return {
        (entry["name"], output["name"]): {
            **{name: figure["value"] for name, figure in output["levels"]["answering"].items()},
            **_of_other_levels(output),
        }
        for entry in document["classes"]
        for output in entry["outputs"]
    }


def _of_other_levels(output: dict[str, Any]) -> dict[str, float | None]:
    name, levels = JUDGED_BY[output["kind"]], output["levels"]
    if "alone" not in levels:
        return {}
    return {f"{name}_{level}": levels[level][name]["value"] for level in levels if level != "answering"}


@dataclass
class _Class:
    """One class, a chunk at a time."""

    spec: ClassSpec
    thresholds: Sequence[Threshold]
    asset_ids: list[str] = field(default_factory=list)
    leads: list[int] = field(default_factory=list)  # of each failure the longest over all outputs, -1 without a warning
    cases: int = 0
    false_cases: int = 0
    false_squares: int = 0  # the sum over assets of their squared false cases
    observed_us: int = 0
    _rows: list[int] = field(default_factory=list)
    _levels: list[dict[str, LevelFigures]] = field(default_factory=list)  # by output
    _heads: list[tuple[npt.NDArray[Any], ...]] = field(default_factory=list)  # reasons, tried, losses of a chunk
    _worst: list[tuple[int, int, str, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rows = [0] * len(self.spec.targets)
        self._levels = [{} for _ in self.spec.targets]

    def add(self, scores: ClassScores) -> None:
        """Count one chunk."""
        first = len(self.asset_ids)
        self.asset_ids += [str(asset_id) for asset_id in scores.asset_ids]
        self._heads.append((scores.reasons, scores.tried, scores.losses))
        served = [self._add_output(scores, output, first) for output in range(len(self.spec.targets))]
        self.cases += sum(len(seen.case_times) for seen in served)
        false = np.sum([seen.by_asset()[:, 3] for seen in served], axis=0)
        self.false_cases += int(false.sum())
        self.false_squares += int((false**2).sum())
        self.observed_us += int(served[0].observed_us.sum())
        best = _best_leads(served)
        self.leads += best.values()
        self._worst = sorted([*self._worst, *_worth_a_look(scores, served, best)])[:_WORST_ASSETS]

    def _add_output(self, scores: ClassScores, output: int, first: int) -> Warnings:
        """Count one output on every level; returns what the served one warned of."""
        spec, target = self.spec, self.spec.targets[output]
        rows, begin = part_of(scores, output, TEST)
        owner = np.repeat(np.arange(len(scores.asset_ids)), np.diff(begin))
        labels, times = scores.labels[rows, output], scores.times[rows]
        seeds = [int.from_bytes(hashlib.sha256(a.encode()).digest()[:8], "little") for a in scores.asset_ids.tolist()]
        draw = np.array(seeds, np.uint64)[owner]
        self._rows[output] += len(rows)
        by_level: dict[str, Warnings] = {}
        for level, column in LEVEL_COLUMNS.items():
            if getattr(scores, column) is None:  # a level that nobody asked for
                continue
            by_level[level] = playable(spec, scores, output, TEST, column).warnings(self.thresholds[output].threshold)
            found = Rows(
                owner + first,
                times,
                labels,
                scores.raw_labels[rows, output],
                getattr(scores, column)[rows, output],
                _hits(spec, target, labels),
                draw_of(draw, times),
            )
            figures = self._levels[output].setdefault(level, LevelFigures(target.kind))
            figures.add(found, first, len(scores.asset_ids), by_level[level])
        return by_level["answering"]

    def document(self, job: TrainJob) -> dict[str, Any]:
        order = np.argsort(np.array(self.asset_ids), kind="stable")
        drawn = metrics.draws_of(len(order), job.seed)
        names = ("asset_id", "failures", "missed", "false_cases", "own_heads")
        worst = [(asset, failures, -missed, -false, own) for missed, false, asset, failures, own in self._worst]
        return {
            "name": self.spec.name,
            "assets": len(self.asset_ids),
            "outputs": [self._output(output, order, drawn) for output in range(len(self.spec.targets))],
            "heads": self._own_heads(order),
            "features": _features(job, self.spec),
            "worst_assets": [dict(zip(names, row, strict=True)) for row in worst],
        }

    def _output(self, output: int, order: npt.NDArray[np.int64], drawn: npt.NDArray[np.uint8]) -> dict[str, Any]:
        spec, target, chosen = self.spec, self.spec.targets[output], self.thresholds[output]
        inspections = spec.alarm.inspections_per_week or math.ceil(_INSPECTED_SHARE * len(order))
        costs = costs_of(spec, target)
        levels = self._levels[output]
        served = levels["answering"]
        return {
            "name": target.name,
            "kind": target.kind,
            "unit": unit_of(spec, target.kind),
            "threshold": number(chosen.threshold),
            "threshold_by": chosen.by,
            "lead_required_hours": lead_of(spec, target) / MICROSECONDS_PER_HOUR,
            "inspections_per_week": inspections,
            "validation": {
                "cases_per_asset_week": chosen.cases_per_asset_week,
                "failures": chosen.failures,
                "warned": chosen.warned,
                "cost_per_asset_month": number(chosen.cost_per_asset_month),
                "cases_per_asset_week_high": number(chosen.promise.cases_per_asset_week_high),
                "warned_share_low": number(chosen.promise.warned_share_low),
            },
            "rows": self._rows[output],
            "rows_known": served.rows_known(),
            "levels": {level: one.figures(order, drawn, inspections, costs) for level, one in levels.items()},
            "calibration": served.bins() if target.kind == "failure" else [],
            "lead_hours": served.lead_hours(),
        }

    def _own_heads(self, order: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
        """Per slot: how many assets tried an own head, kept it, and why the others have none."""
        reasons, tried, losses = (np.concatenate(column)[order] for column in zip(*self._heads, strict=True))
        found = []
        for slot in slots_of(self.spec):
            own = reasons[:, slot.index]
            why = {reason.name: int((own == reason).sum()) for reason in Why if (own == reason).any()}
            loss = np.full(losses.shape[2], math.nan)
            if tried[:, slot.index].any():
                loss = np.nanmean(losses[tried[:, slot.index], slot.index], axis=0)
            found.append(
                {
                    "slot": slot.name,
                    "tried": int(tried[:, slot.index].sum()),
                    "kept": sum(why.get(reason.name, 0) for reason in KEPT),
                    "why": why,
                    "validation_loss": {
                        level: number(x) for level, x in zip(("class", "own", "alone"), loss, strict=False)
                    },
                }
            )
        return found


def _hits(spec: ClassSpec, target: Target, labels: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """bool[n]: rows that a failure follows within the span in which a warning counts; never where it is unknown."""
    if target.kind != "rul":
        return labels > 0
    span = warned_over(spec, target) / label_unit(spec)
    return (labels <= span) & (labels < (target.cap or math.inf))


def _features(job: TrainJob, spec: ClassSpec) -> list[dict[str, Any]]:
    """The features that matter most: mean share of gain over the class's heads."""
    features = features_of(spec)
    shares: list[npt.NDArray[np.float64]] = []
    for slot in slots_of(spec):
        gains = load_arrays(job.class_path(spec.name, slot.index)).get("gains")
        if gains is not None and gains.sum() > 0:
            shares.append(gains / gains.sum())
    if not shares:
        return []
    mean = np.mean(shares, axis=0)
    best = np.argsort(-mean, kind="stable")[:_FEATURES]
    return [
        {
            "feature": features[i].name,
            "source": features[i].source,
            "statistic": features[i].statistic,
            "window": features[i].window,
            "gain": float(mean[i]),
        }
        for i in best
        if mean[i] > 0
    ]


def _worth_a_look(
    scores: ClassScores, served: Sequence[Warnings], best: dict[tuple[int, int], int]
) -> list[tuple[int, int, str, int, int]]:
    """(-missed, -false cases, asset, failures, own heads): failures nobody was warned of first, then false alarms."""
    failures, missed, false = (np.zeros(len(scores.asset_ids), np.int64) for _ in range(3))
    for (asset, _), lead in best.items():
        failures[asset] += 1
        missed[asset] += lead < 0
    for seen in served:
        false += np.bincount(seen.case_assets[seen.false_cases], minlength=len(false))
    own = np.isin(scores.reasons, KEPT).sum(axis=1)
    return [
        (-int(missed[a]), -int(false[a]), str(scores.asset_ids[a]), int(failures[a]), int(own[a]))
        for a in np.flatnonzero(missed + false)
    ]


def _totals(classes: Sequence[_Class]) -> dict[str, Any]:
    """All outputs together: a failure is warned of if any output warned; every false case of any output counts."""
    leads = [lead for one in classes for lead in one.leads]
    warned = [lead / MICROSECONDS_PER_HOUR for lead in leads if lead >= 0]
    weeks = sum(one.observed_us for one in classes) / WEEK_US
    cases, false = sum(one.cases for one in classes), sum(one.false_cases for one in classes)
    squares, assets = sum(one.false_squares for one in classes), sum(len(one.asset_ids) for one in classes)
    return {
        "failures": len(leads),
        "failures_warned": len(warned),
        "lead_median_hours": float(np.median(warned)) if warned else None,
        "lead_hours": sorted(warned),
        "cases": cases,
        "false_cases": false,
        "asset_weeks": weeks,
        "cases_per_asset_week": cases / weeks if weeks else None,
        "false_alarms_per_asset_week": false / weeks if weeks else None,
        "false_alarms_per_asset_week_high": number(rate_at_most(false, squares, assets, weeks)),
    }


def _best_leads(served: Sequence[Warnings]) -> dict[tuple[int, int], int]:
    """(asset, failure time) → its longest lead over all outputs, -1 where none warned."""
    best: dict[tuple[int, int], int] = {}
    for seen in served:
        columns = (seen.failure_assets, seen.failure_times, seen.lead_us)
        for asset, failure, lead in zip(*(column.tolist() for column in columns), strict=True):
            best[asset, failure] = max(best.get((asset, failure), -1), lead)
    return best
