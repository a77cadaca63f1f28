"""Heads: a class's forest for one slot, and a machine's own trees on top of it, kept only where they earn their place.
Where asked for, a machine's own forest without its class has to earn it, too.

An own head is judged on its machine's later rows, against the class head that would answer without it. Neighbouring
rows resemble each other, so the rows are cut into ten stretches of time, and the gain must be more than one standard
error of the stretches' gains, and most stretches must gain: a lucky week is no evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from wheeltapper.outputs import Why, anomaly_residuals, failure_values, rul_values
from wheeltapper.spec import ClassSpec

from wheeltapper_trainer.boosting import Check, Model, fit
from wheeltapper_trainer.calibration import calibrate
from wheeltapper_trainer.intervals import interval_knots
from wheeltapper_trainer.job import Slot, actual_feature, allowed_features, load_arrays, save_arrays

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
_STRETCHES = 10
_TRAIN_ROWS_MIN = 200  # fewer rows than this say more about the week than about the machine
_VALID_ROWS_MIN = 50
_PRIOR_STRETCHES = 2  # how many stretches of its own data the class's spread counts for, in an own anomaly head
_LIVES_MIN = 2  # an own rul head needs to have seen this machine wear out more than once


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows that teach one slot: features float32[n, F], label float32[n] (all known), weight float32[n]."""

    features: Floats
    label: Floats
    weight: Floats

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True, slots=True)
class Head:
    """A fitted head. `final` serves; `judge` was fitted without the validation assets, so it may score them.

    a, b, knots: how a margin becomes a value (docs/pack-v1.md); interval: how far from the truth (intervals.py).
    """

    final: Model
    judge: Model
    a: float = 1.0
    b: float = 0.0
    knots: Floats = field(default_factory=lambda: np.empty((0, 2), np.float32))
    interval: list[list[float]] = field(default_factory=list)

    def values(self, slot: Slot, spec: ClassSpec, margins: Floats, features: Floats) -> Floats:
        """float32[n]: life left, probability of failure, or standardised residual of the slot's sensor."""
        if slot.target.kind == "rul":
            return rul_values(margins, self.a, self.b, slot.target.cap or np.inf)
        if slot.target.kind == "failure":
            return failure_values(margins, self.a, self.b, self.knots)
        return anomaly_residuals(features[:, actual_feature(spec, slot)], margins, self.a, self.b)


def slot_label(spec: ClassSpec, slot: Slot, features: Floats, labels: Floats) -> Floats:
    """float32[n]: what the slot's head learns, NaN on rows it must not learn from.

    An anomaly head learns its sensor's value on rows known to be healthy.
    """
    truth = labels[:, slot.output]
    if slot.target.kind != "anomaly":
        return truth
    return np.where(truth == 0, features[:, actual_feature(spec, slot)], np.float32("nan"))


def fit_class_head(
    spec: ClassSpec, slot: Slot, train: Rows, valid: Rows, seed: int, refit: bool, folds: Sequence[Bools] = ()
) -> Head | None:
    """The class's head for a slot; None where nothing can be learnt (no known row, no failure).

    Rounds are chosen on `valid`, and so is the calibration. `refit` fits the serving head anew on both parts with that
    number of rounds: failures are too few to leave any unused. `folds`: bool[n] over the training rows, machines that a
    further fit each leaves out, so that a rul head's interval rests on more machines than those of `valid`.
    """
    logistic = slot.target.kind == "failure"
    if len(train) == 0 or (logistic and not 0 < train.label.sum() < len(train)):
        return None
    objective = "logistic" if logistic else "squared"
    columns = np.flatnonzero(allowed_features(spec, slot)).tolist()
    usable = len(valid) > 0 and (not logistic or 0 < valid.label.sum() < len(valid))
    check = Check(valid.features, valid.label, valid.weight) if usable else None
    judge = fit(
        train.features,
        train.label,
        spec.model,
        objective=objective,
        seed=seed,
        weight=train.weight,
        columns=columns,
        check=check,
    )
    head = Head(judge, judge)
    if usable:
        head = _with_scale(slot, head, judge.margins(valid.features), valid)
        if slot.target.kind == "rul":
            head = replace(head, interval=_interval(spec, slot, head, train, valid, folds, seed))
    if refit and len(valid) and columns:
        both = Rows(*(np.concatenate(pair) for pair in zip(_arrays(train), _arrays(valid), strict=True)))
        final = fit(
            both.features,
            both.label,
            spec.model,
            objective=objective,
            seed=seed,
            weight=both.weight,
            rounds=max(1, judge.rounds),
            columns=columns,
        )
        head = replace(head, final=final)
    return head


def fit_own_head(
    spec: ClassSpec,
    slot: Slot,
    parent: Head,
    train: Rows,
    valid: Rows,
    lives: tuple[int, int],
    seed: int,
    start: tuple[Floats, Floats] | None = None,
) -> Head | Why:
    """A machine's own candidate for a slot, or why there is none. `lives`: its failures in (training, validation).

    start: the class's margins of the training and the validation rows, where they are known already.
    """
    if spec.model.asset_rounds == 0 or slot.statistic == "shift":  # whose own part is the asset's start
        return Why.NOT_TRAINED
    if len(train) < _TRAIN_ROWS_MIN or len(valid) < _VALID_ROWS_MIN:
        return Why.TOO_LITTLE_HISTORY
    if slot.target.kind == "rul" and (lives[0] < _LIVES_MIN or lives[1] == 0):
        return Why.NO_EVENTS
    # A machine that did not fail again while it was judged could only prove that it learnt to say no.
    if slot.target.kind == "failure" and not (train.label.any() and valid.label.any()):
        return Why.NO_EVENTS
    model = fit(
        train.features,
        train.label,
        spec.model,
        objective="logistic" if slot.target.kind == "failure" else "squared",
        seed=seed,
        columns=np.flatnonzero(allowed_features(spec, slot)).tolist(),
        continues=parent.final,
        start=start and start[0],
    )
    return _of_machine(slot, parent, model, valid, start and start[1])


def fit_alone_head(spec: ClassSpec, slot: Slot, parent: Head, train: Rows, valid: Rows, seed: int) -> Head:
    """A machine's own forest without its class, where `fit_own_head` found enough to learn from.

    As many rounds as its class's forest has: chosen on the class's validation rows, not on the machine's own, which
    are to judge it.
    """
    model = fit(
        train.features,
        train.label,
        spec.model,
        objective="logistic" if slot.target.kind == "failure" else "squared",
        seed=seed,
        rounds=max(1, parent.final.rounds),
        columns=np.flatnonzero(allowed_features(spec, slot)).tolist(),
    )
    return _of_machine(slot, parent, model, valid)


def earns_its_place(slot: Slot, label: Floats, standing: Floats, own: Floats) -> tuple[bool, tuple[float, float]]:
    """Whether an own head beats the head that would answer without it by more than luck.

    standing, own: float32[n], margins of the two on validation rows in time order. Returns that, and their mean losses.
    """
    of_standing, of_own = _loss(slot, label, standing), _loss(slot, label, own)
    stretches = np.array([part.mean() for part in np.array_split(of_standing - of_own, _STRETCHES)])
    error = stretches.std(ddof=1) / np.sqrt(_STRETCHES)
    won = bool(stretches.mean() > error and np.median(stretches) > 0)
    return won, (float(of_standing.mean()), float(of_own.mean()))


def save_head(path: Path, head: Head | None) -> None:
    """Write a class head into the run folder; None is written too, so that a missing file means unfinished work."""
    if head is None:
        save_arrays(path, {"final": np.empty(0, np.uint8)})
        return
    judge = b"" if head.judge is head.final else head.judge.to_bytes()
    save_arrays(
        path,
        {
            "final": np.frombuffer(head.final.to_bytes(), np.uint8),
            "judge": np.frombuffer(judge, np.uint8),
            "scale": np.array([head.a, head.b]),
            "knots": head.knots,
            "interval": np.array(head.interval, np.float64).reshape(-1, 3),
            "gains": head.final.gains(),
        },
    )


def load_head(path: Path) -> Head | None:
    """The inverse of `save_head`."""
    found = load_arrays(path)
    if not len(found["final"]):
        return None
    final = Model.from_bytes(found["final"].tobytes())
    judge = Model.from_bytes(found["judge"].tobytes()) if len(found["judge"]) else final
    a, b = (float(x) for x in found["scale"])
    return Head(final, judge, a, b, found["knots"], found["interval"].tolist())


def _interval(
    spec: ClassSpec, slot: Slot, head: Head, train: Rows, valid: Rows, folds: Sequence[Bools], seed: int
) -> list[list[float]]:
    """Errors of machines left out: of `valid` by the judge, of each fold by a fit of its own with as many rounds."""
    held, found = [valid], [head.values(slot, spec, head.judge.margins(valid.features), valid.features)]
    for fold in folds:
        out, rest = (Rows(*(column[rows] for column in _arrays(train))) for rows in (fold, ~fold))
        if not len(out) or not len(rest):
            continue
        taught = Rows(*(np.concatenate(pair) for pair in zip(_arrays(rest), _arrays(valid), strict=True)))
        model = fit(
            taught.features,
            taught.label,
            spec.model,
            objective="squared",
            seed=seed,
            weight=taught.weight,
            rounds=max(1, head.judge.rounds),
        )
        held.append(out)
        found.append(head.values(slot, spec, model.margins(out.features), out.features))
    life, weight = (np.concatenate([getattr(rows, name) for rows in held]) for name in ("label", "weight"))
    return interval_knots(life, np.concatenate(found), weight)


def _arrays(rows: Rows) -> tuple[Floats, Floats, Floats]:
    return rows.features, rows.label, rows.weight


def _with_scale(slot: Slot, head: Head, margins: Floats, valid: Rows) -> Head:
    if slot.target.kind == "failure":
        found = calibrate(margins, valid.label, valid.weight)
        return replace(head, a=found.a, b=found.b, knots=found.knots)
    if slot.target.kind == "anomaly":
        middle, spread = _spread_of(valid.label.astype(np.float64) - margins)
        floor = 1e-6 * max(1.0, float(np.abs(valid.label).max()))  # below it a residual is rounding
        return replace(head, a=float(np.float32(1.0 / max(spread, floor))), b=float(np.float32(middle)))
    return head


def _of_machine(slot: Slot, parent: Head, model: Model, valid: Rows, start: Floats | None = None) -> Head:
    """The head of a machine's own model: its class's scale and calibration, but its own spread of residuals."""
    own = replace(parent, final=model, judge=model)
    if slot.target.kind != "anomaly":
        return own
    return _with_own_spread(own, parent, valid.label - model.margins(valid.features, start))


def _with_own_spread(own: Head, parent: Head, residual: Floats) -> Head:
    """The own head with the middle and spread of its residuals on validation rows, shrunk towards its class's.

    One machine's validation is one season of it: as many looks as there are stretches, against a prior of a few.
    """
    middle, spread = _spread_of(residual.astype(np.float64))
    of_class = 1.0 / parent.a
    shrunk = np.sqrt((_STRETCHES * spread**2 + _PRIOR_STRETCHES * of_class**2) / (_STRETCHES + _PRIOR_STRETCHES))
    return replace(own, a=float(np.float32(1.0 / shrunk)), b=float(np.float32(middle)))


def _spread_of(residual: npt.NDArray[np.float64]) -> tuple[float, float]:
    """(middle, one sigma) of healthy residuals, deaf to single outliers but not to a heavy tail.

    The tail decides how often a healthy machine alarms, so one row in a hundred must be as rare as a normal's.
    """
    low, middle, high = (float(q) for q in np.quantile(residual, [0.16, 0.5, 0.84]))  # ± one sigma of a normal
    tail = float(np.quantile(np.abs(residual - middle), 0.99)) / 2.576
    return middle, max((high - low) / 2, tail)


def _loss(slot: Slot, label: Floats, margins: Floats) -> npt.NDArray[np.float64]:
    truth, found = label.astype(np.float64), margins.astype(np.float64)
    if slot.target.kind == "failure":
        return np.asarray(np.logaddexp(0.0, found) - truth * found)
    if slot.target.kind == "rul":
        return (np.clip(found, 0.0, slot.target.cap or np.inf) - truth) ** 2
    return np.abs(found - truth)
