"""Folds of the training part, and what one setting of a class's parameters is worth on one of them.

Split by time, a fold trains before its cut, an embargo early, and is judged on all machines between its cut and the
next: as many stretches of equal length as `split.folds`, each behind the ones that teach it. Split by asset, a fold
holds out whole machines. The test part is in none of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from wheeltapper.errors import CommandError
from wheeltapper.outputs import rul_values
from wheeltapper.spec import ClassSpec, ModelSpec

from wheeltapper_trainer import metrics
from wheeltapper_trainer.boosting import fit
from wheeltapper_trainer.chunk import Sample, folds_of, load_samples, rows_of, worth_of
from wheeltapper_trainer.heads import slot_label
from wheeltapper_trainer.job import TRAIN, VALID, Chunk, Slot, TrainJob, allowed_features, slots_of
from wheeltapper_trainer.split import embargo_of

Bools = npt.NDArray[np.bool_]
TRAIN_ROWS_MIN, JUDGED_ROWS_MIN, FAILING_ROWS_MIN, FOLDS_MIN = 200, 50, 10, 2
METRIC = {"rul": "rmse", "failure": "pr_auc", "anomaly": "mae"}


def judged_slots(job: TrainJob, spec: ClassSpec, sample: Sample) -> tuple[dict[str, list[int]], dict[str, str]]:
    """(slot → folds it can be judged on, slot → why it cannot be). CommandError where no slot of the class can."""
    usable: dict[str, list[int]] = {}
    reasons: dict[str, str] = {}
    for slot in slots_of(spec):
        label = slot_label(spec, slot, sample["features"], sample["labels"])
        found = []
        for fold, (train, judged) in enumerate(_parts(job, spec, slot, sample, label)):
            reasons[slot.name] = _too_small(slot, label, train, judged)
            if not reasons[slot.name]:
                found.append(fold)
        if len(found) >= FOLDS_MIN:
            usable[slot.name] = found
            del reasons[slot.name]
        else:
            reasons[slot.name] = f"{len(found)} of {job.spec.split.folds} folds are large enough ({reasons[slot.name]})"
    if not usable:
        why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise CommandError(
            f"class {spec.name!r} cannot be tuned: expected at least {FOLDS_MIN} folds to judge by, found {why}",
            "bring more history or assets, shorten horizons and windows, or lower split.folds",
        )
    return usable, reasons


def try_fold(
    job: TrainJob,
    asset_class: str,
    parameters: Mapping[str, Any],
    fold: int,
    slots: Sequence[str],
    chunks: Sequence[Chunk],
) -> dict[str, dict[str, Any]]:
    """Fit a class's heads with `parameters` on one fold: slot → {"metric", "value", "loss", "train_rows", "rows"}.

    Smaller losses are better: the error itself, or what the average precision lacks.
    """
    spec = job.asset_class(asset_class)
    sample = load_samples(job, asset_class, chunks)
    model = dataclasses.replace(spec.model, **parameters)
    return {slot.name: _judged(job, spec, model, slot, sample, fold) for slot in slots_of(spec) if slot.name in slots}


def _judged(job: TrainJob, spec: ClassSpec, model: ModelSpec, slot: Slot, sample: Sample, fold: int) -> dict[str, Any]:
    label = slot_label(spec, slot, sample["features"], sample["labels"])
    train, judged = list(_parts(job, spec, slot, sample, label))[fold]
    counted = {**sample, "weight": sample["weight"] * worth_of(slot, label)}
    rows, later = rows_of(counted, label, train), rows_of(sample, label, judged)
    fitted = fit(
        rows.features,
        rows.label,
        model,
        objective="logistic" if slot.target.kind == "failure" else "squared",
        seed=job.seed,
        weight=rows.weight,
        columns=np.flatnonzero(allowed_features(spec, slot)).tolist(),
    )
    found = fitted.margins(later.features)
    if slot.target.kind == "failure":
        value = metrics.pr_auc(later.label, found, later.weight)
        loss = 1.0 - value
    elif slot.target.kind == "rul":
        value = loss = metrics.rmse(later.label, rul_values(found, 1.0, 0.0, slot.target.cap or np.inf), later.weight)
    else:
        value = loss = metrics.mae(later.label, found, later.weight)
    return {
        "metric": METRIC[slot.target.kind],
        "value": value,
        "loss": loss,
        "train_rows": len(rows),
        "rows": len(later),
    }


def _parts(
    job: TrainJob, spec: ClassSpec, slot: Slot, sample: Sample, label: npt.NDArray[np.float32]
) -> Iterator[tuple[Bools, Bools]]:
    """(rows that teach, rows that judge), bool[n] each, of every fold of a slot."""
    part = sample["parts"][:, slot.output]
    known = np.isfinite(label) & ((part == TRAIN) | (part == VALID))
    split, count = job.split(spec.name), job.spec.split.folds
    if split.by == "asset":
        for fold in folds_of(job, sample["asset_ids"], count):
            yield known & ~fold, known & fold
        return
    times = sample["times"]
    cuts = np.linspace(float(times.min()), float(split.test_from_us), count + 2)[1:].astype(np.int64)
    embargo = embargo_of(spec, slot.target)
    for begin, end in pairwise(cuts.tolist()):
        taught = times < begin - embargo if spec.cadence_us else _readings_before(sample, begin) > embargo
        yield known & taught, known & (times >= begin) & (times < end)


def _readings_before(sample: Sample, cut: int) -> npt.NDArray[np.float64]:
    """float64[n]: how many readings lie at least between each row and the cut; below 0 behind it."""
    _, owner = np.unique(sample["asset_ids"], return_inverse=True)
    last = np.full(owner.max() + 1, -1, np.int64)
    before = sample["times"] < cut
    np.maximum.at(last, owner[before], sample["rows"][before])
    return np.asarray((last[owner] - sample["rows"]).astype(np.float64))


def _too_small(slot: Slot, label: npt.NDArray[np.float32], train: Bools, judged: Bools) -> str:
    """Why a fold says nothing about a slot, or ""."""
    for rows, least, what in ((train, TRAIN_ROWS_MIN, "teach"), (judged, JUDGED_ROWS_MIN, "judge")):
        if rows.sum() < least:
            return f"{rows.sum()} sampled rows {what} it, at least {least} are needed"
        failing = int((label[rows] > 0).sum())
        if slot.target.kind == "failure" and not FAILING_ROWS_MIN <= failing < rows.sum():
            return f"{failing} rows before a failure {what} it, at least {FAILING_ROWS_MIN} are needed"
    return ""
