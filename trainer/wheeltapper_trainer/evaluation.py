"""EVALUATE: what the test part says about every output, on every level, with its uncertainty; one JSON document.

    {"fleet", "totals": {...}, "classes": [{"name", "assets", "outputs": [...], "heads": [...], "features": [...],
     "worst_assets": [...]}]}

A figure is {"value", "low", "high"}: 90 % interval by bootstrap over assets; null where it cannot be known. Levels:
"answering" (what is served), "class" (without own heads), "own" (own heads wherever one was tried).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from wheeltapper.outputs import Why
from wheeltapper.spec import MICROSECONDS_PER_HOUR, ClassSpec, features_of

from wheeltapper_trainer import metrics
from wheeltapper_trainer.assemble import unit_of
from wheeltapper_trainer.job import TEST, Chunk, TrainJob, load_arrays, slots_of
from wheeltapper_trainer.scores import ClassScores, load_scores, part_of
from wheeltapper_trainer.thresholds import Threshold, Warnings, warnings_of

LEVEL_COLUMNS = {"answering": "values", "class": "class_values", "own": "own_values"}
_WORST_ASSETS = 20
_FEATURES = 30
_INTERVAL_ROWS = 10_000

Figure = dict[str, float | None]


def evaluate(job: TrainJob, chunks: Sequence[Chunk], thresholds: Sequence[Threshold]) -> dict[str, Any]:
    """The Evaluation document of a finished run, from the scores its ASSET stage stored."""
    chosen = {(t.asset_class, t.output): t for t in thresholds}
    classes: list[dict[str, Any]] = []
    by_class: list[list[Warnings]] = []
    for spec in job.spec.classes:
        scores = load_scores(job, spec.name, chunks)
        if scores is None:
            continue
        own = [chosen[spec.name, target.name] for target in spec.targets]
        seen = [warnings_of(spec, scores, o, TEST, t.threshold) for o, t in enumerate(own)]
        by_class.append(seen)
        classes.append(
            {
                "name": spec.name,
                "assets": len(scores.asset_ids),
                "outputs": [_output(job, spec, scores, o, t) for o, t in enumerate(own)],
                "heads": _heads(spec, scores),
                "features": _features(job, spec),
                "worst_assets": _worst_assets(scores, seen),
            }
        )
    return {"fleet": job.spec.name, "totals": _totals(by_class), "classes": classes}


def flat_metrics(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, float | None]]:
    """The served figures per (class, output), for the pack's meta and the gates."""
    return {
        (entry["name"], output["name"]): {
            name: figure["value"] for name, figure in output["levels"]["answering"].items()
        }
        for entry in document["classes"]
        for output in entry["outputs"]
    }


def _output(job: TrainJob, spec: ClassSpec, scores: ClassScores, output: int, chosen: Threshold) -> dict[str, Any]:
    target = spec.targets[output]
    rows, begin = part_of(scores, output, TEST)
    asset = np.repeat(np.arange(len(begin) - 1), np.diff(begin))
    last = begin[1:][np.diff(begin) > 0] - 1
    labels, raw = scores.labels[rows, output], scores.raw_labels[rows, output]
    levels: dict[str, dict[str, Figure]] = {}
    for level, column in LEVEL_COLUMNS.items():
        values = getattr(scores, column)[rows, output]
        figures = _row_figures(target.kind, labels, values, asset, len(begin) - 1, job.seed)
        if target.kind == "rul":
            figures |= {
                "rmse_raw": _figure(metrics.rmse(raw, values)),
                "rmse_last": _figure(metrics.rmse(labels[last], values[last])),
                "rmse_last_raw": _figure(metrics.rmse(raw[last], values[last])),
                "phm08_last": _figure(metrics.phm08(labels[last], values[last])),
                "phm08_last_raw": _figure(metrics.phm08(raw[last], values[last])),
            }
        figures |= _alarm_figures(warnings_of(spec, scores, output, TEST, chosen.threshold, column), job.seed)
        levels[level] = figures
    served = scores.values[rows, output]
    return {
        "name": target.name,
        "kind": target.kind,
        "unit": unit_of(spec, target.kind),
        "threshold": _number(chosen.threshold),
        "validation": {
            "cases_per_asset_week": chosen.cases_per_asset_week,
            "failures": chosen.failures,
            "warned": chosen.warned,
        },
        "rows": len(rows),
        "rows_known": int(metrics.known(labels, served).sum()),
        "levels": levels,
        "calibration": metrics.calibration_bins(labels, served) if target.kind == "failure" else [],
        "lead_hours": _lead_hours(warnings_of(spec, scores, output, TEST, chosen.threshold)),
    }


def _row_figures(
    kind: str,
    labels: npt.NDArray[np.float32],
    values: npt.NDArray[np.float32],
    asset: npt.NDArray[np.int64],
    assets: int,
    seed: int,
) -> dict[str, Figure]:
    """The figures of single rows, each with its interval."""
    there = np.flatnonzero(metrics.known(labels, values))
    there = there[np.argsort(-values[there], kind="stable")]  # sorted once, so each draw's sort has nothing to do
    labels, values, asset = labels[there], values[there], asset[there]
    wanted: dict[str, Callable[..., float]] = {"rmse": metrics.rmse, "mae": metrics.mae}
    if kind != "rul":
        wanted = {"pr_auc": metrics.pr_auc, "roc_auc": metrics.roc_auc}
    if kind == "failure":
        wanted["brier"] = metrics.brier
    found = {} if kind == "rul" else {"base_rate": _figure(float(labels.mean()) if len(labels) else math.nan)}

    # Every k-th of the rows sorted by score: the same curve, and an interval in a fraction of the time.
    few = slice(None, None, max(1, len(labels) // _INTERVAL_ROWS))

    def drawn(metric: Callable[..., float], counts: npt.NDArray[np.float64]) -> float:
        return metric(labels[few], values[few], counts[asset[few]])

    for name, metric in wanted.items():
        interval = metrics.bootstrap_interval(partial(drawn, metric), assets, seed)
        found[name] = _figure(metric(labels, values), interval)
    return found


def _alarm_figures(seen: Warnings, seed: int) -> dict[str, Figure]:
    """Alarms against failures, per asset so that they can be drawn again."""
    assets = len(seen.asset_weeks)
    failures, warned, false, cases = (
        np.bincount(which, minlength=assets).astype(np.float64)
        for which in (
            seen.failure_assets,
            seen.failure_assets[seen.lead_us >= 0],
            seen.case_assets[seen.false_cases],
            seen.case_assets,
        )
    )

    def share(part: npt.NDArray[np.float64], whole: npt.NDArray[np.float64]) -> Figure:
        def of(counts: npt.NDArray[np.float64]) -> float:
            total = float(counts @ whole)
            return float(counts @ part) / total if total > 0 else math.nan

        return _figure(of(np.ones(assets)), metrics.bootstrap_interval(of, assets, seed))

    leads = _lead_hours(seen)
    return {
        "failures": _figure(float(failures.sum())),
        "warned": _figure(float(warned.sum())),
        "recall": share(warned, failures),
        "cases": _figure(float(cases.sum())),
        "precision": share(cases - false, cases),
        "cases_per_asset_week": share(cases, seen.asset_weeks),
        "false_per_asset_week": share(false, seen.asset_weeks),
        "lead_median_hours": _figure(float(np.median(leads)) if leads else math.nan),
    }


def _heads(spec: ClassSpec, scores: ClassScores) -> list[dict[str, Any]]:
    """Per slot: how many assets tried an own head, kept it, and why the others have none."""
    found = []
    for slot in slots_of(spec):
        reasons = scores.reasons[:, slot.index]
        why = {reason.name: int((reasons == reason).sum()) for reason in Why if (reasons == reason).any()}
        loss = np.array([math.nan, math.nan])
        if scores.tried[:, slot.index].any():
            loss = np.nanmean(scores.losses[scores.tried[:, slot.index], slot.index], axis=0)
        found.append(
            {
                "slot": slot.name,
                "tried": int(scores.tried[:, slot.index].sum()),
                "kept": why.get(Why.OWN_HEAD_KEPT.name, 0),
                "why": why,
                "validation_loss": {"class": _number(loss[0]), "own": _number(loss[1])},
            }
        )
    return found


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


def _worst_assets(scores: ClassScores, seen: Sequence[Warnings]) -> list[dict[str, Any]]:
    """The assets that most need a look: failures nobody was warned of, then false alarms."""
    rows = []
    for asset, asset_id in enumerate(scores.asset_ids):
        leads = _best_leads([_of_asset(w, asset) for w in seen])
        false = sum(int((w.false_cases & (w.case_assets == asset)).sum()) for w in seen)
        missed = sum(lead < 0 for lead in leads.values())
        if missed or false:
            own = int((scores.reasons[asset] == Why.OWN_HEAD_KEPT).sum())
            rows.append((-missed, -false, str(asset_id), len(leads), own))
    names = ("asset_id", "failures", "missed", "false_cases", "own_heads")
    worst = sorted(rows)[:_WORST_ASSETS]
    return [dict(zip(names, (a, f, -missed, -false, own), strict=True)) for missed, false, a, f, own in worst]


def _totals(by_class: Sequence[Sequence[Warnings]]) -> dict[str, Any]:
    """All outputs together: a failure is warned of if any output warned; every false case of any output counts."""
    leads: list[int] = []
    for seen in by_class:
        found = [list(zip(w.failure_assets, w.failure_times, w.lead_us, strict=True)) for w in seen]
        leads += _best_leads(found).values()
    warned = [lead / MICROSECONDS_PER_HOUR for lead in leads if lead >= 0]
    weeks = sum(float(seen[0].asset_weeks.sum()) for seen in by_class if seen)
    false = sum(int(w.false_cases.sum()) for seen in by_class for w in seen)
    cases = sum(len(w.case_times) for seen in by_class for w in seen)
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
    }


def _of_asset(seen: Warnings, asset: int) -> list[tuple[int, int, int]]:
    rows = seen.failure_assets == asset
    return [(asset, int(t), int(lead)) for t, lead in zip(seen.failure_times[rows], seen.lead_us[rows], strict=True)]


def _best_leads(found: Sequence[Sequence[tuple[int, int, int]]]) -> dict[tuple[int, int], int]:
    """(asset, failure time) → its longest lead over all outputs, -1 where none warned."""
    best: dict[tuple[int, int], int] = {}
    for rows in found:
        for asset, failure, lead in rows:
            key = (int(asset), int(failure))
            best[key] = max(best.get(key, -1), int(lead))
    return best


def _lead_hours(seen: Warnings) -> list[float]:
    return sorted((seen.lead_us[seen.lead_us >= 0] / MICROSECONDS_PER_HOUR).tolist())


def _figure(value: float, interval: tuple[float, float] = (math.nan, math.nan)) -> Figure:
    return {"value": _number(value), "low": _number(interval[0]), "high": _number(interval[1])}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
