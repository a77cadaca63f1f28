"""One asset's turn: its own heads tried and judged, and its later rows scored by whatever will answer for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from wheeltapper.outputs import KEPT, Why, anomaly_values
from wheeltapper.spec import ANY_CODE, LEVELS, ClassSpec

from wheeltapper_trainer.heads import Head, Rows, earns_its_place, fit_alone_head, fit_own_head, slot_label
from wheeltapper_trainer.inputs import AssetRows
from wheeltapper_trainer.job import TEST, TRAIN, VALID, Slot, TrainJob, slots_of

Floats = npt.NDArray[np.float32]
NONE_LEVEL, CLASS_LEVEL, ASSET_LEVEL = (LEVELS.index(name) for name in ("none", "class", "asset"))
_CANDIDATES = {Why.OWN_HEAD_KEPT: "own_values", Why.ALONE_HEAD_KEPT: "alone_values"}  # in the order of their trial


@dataclass(slots=True)
class OwnHeads:
    """What training one asset left: kept heads, why others were not, and the scores of its later rows.

    reasons uint8[S] (Why); tried bool[S]; losses float32[S, 2], mean validation loss of class and own head; rows: times
    int64[m], labels, raw_labels, values, class_values, own_values float32[m, O], parts and levels uint8[m, O].
    Where the class asks for forests without it, losses is float32[S, 3] and rows has alone_values, too.
    """

    asset_id: str
    statics: Floats
    start: npt.NDArray[np.float64]
    failure_times: npt.NDArray[np.int64]
    failure_codes: npt.NDArray[np.str_]
    reasons: npt.NDArray[np.uint8]
    tried: npt.NDArray[np.bool_]
    losses: Floats
    rows: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    kept: list[tuple[int, Head]] = field(default_factory=list)  # (slot, head)


def train_asset(job: TrainJob, spec: ClassSpec, heads: Sequence[Head | None], asset: AssetRows) -> OwnHeads:
    """Try own heads in every slot of one asset and score its validation and test rows. `heads`: its class's, by slot.

    Where whole assets are held out nothing is tried: such a machine's life is over, so its own head would serve nobody.
    """
    slots = slots_of(spec)
    split = job.split(spec.name)
    candidates = list(_CANDIDATES)[: 2 if spec.model.asset_alone else 1]
    later = np.flatnonzero(((asset.parts == VALID) | (asset.parts == TEST)).any(axis=1))
    features = asset.features[later]
    done = OwnHeads(
        asset.asset_id,
        asset.statics,
        asset.start,
        asset.failure_times,
        asset.failure_codes,
        np.full(len(slots), Why.NOT_TRAINED, np.uint8),
        np.zeros(len(slots), np.bool_),
        np.full((len(slots), 1 + len(candidates)), np.nan, np.float32),
    )
    of_class, answer, *others = (
        np.full((len(later), len(slots)), np.nan, np.float32) for _ in range(2 + len(candidates))
    )
    of = dict(zip(candidates, others, strict=True))
    for slot, head in zip(slots, heads, strict=True):
        if head is None:
            done.reasons[slot.index] = Why.NO_CLASS_HEAD
            continue
        margins = head.final.margins(asset.features)
        later_margins = margins[later]
        if head.judge is not head.final:  # what served was fitted on validation rows too, so its judge scores those
            rows = asset.parts[later, slot.output] == VALID
            later_margins[rows] = head.judge.margins(features[rows])
        of_class[:, slot.index] = head.values(slot, spec, later_margins, features)
        for values in (answer, *others):
            values[:, slot.index] = of_class[:, slot.index]
        if split.by == "asset":
            continue
        tried = _try_own(job, spec, slot, head, asset, later, margins, done)
        for why, (own, own_margins) in tried.items():
            of[why][:, slot.index] = own.values(slot, spec, own_margins, features)
        verdict = Why(done.reasons[slot.index])
        if verdict in tried:
            done.kept.append((slot.index, tried[verdict][0]))
            answer[:, slot.index] = of[verdict][:, slot.index]
    done.rows = {
        "times": asset.times[later],
        "labels": asset.labels[later],
        "raw_labels": asset.raw_labels[later],
        "parts": asset.parts[later],
        "values": _outputs(spec, slots, answer),
        "class_values": _outputs(spec, slots, of_class),
        **{_CANDIDATES[why]: _outputs(spec, slots, values) for why, values in of.items()},
        "levels": np.broadcast_to(_levels(spec, slots, done.reasons), (len(later), len(spec.targets))),
    }
    return done


def _try_own(
    job: TrainJob,
    spec: ClassSpec,
    slot: Slot,
    head: Head,
    asset: AssetRows,
    later: npt.NDArray[np.int64],
    margins: Floats,
    done: OwnHeads,
) -> dict[Why, tuple[Head, Floats]]:
    """The candidates and their margins on the rows `later`, if any could be trained; the verdict goes into `done`.

    `margins` float32[n]: the class's, of every row of the asset. First the class answers; then own trees on top of it
    have to beat it by more than luck, and then a forest without it has to beat the better of these. Of equals the one
    that leans more on the class stays.
    """
    label = slot_label(spec, slot, asset.features, asset.labels)
    part = np.where(np.isfinite(label), asset.parts[:, slot.output], np.uint8(TEST))
    train, valid = _rows(asset, label, part == TRAIN), _rows(asset, label, part == VALID)
    start = margins[part == TRAIN], margins[part == VALID]
    own = fit_own_head(spec, slot, head, train, valid, _lives(job, spec, slot, asset), job.seed, start)
    if isinstance(own, Why):
        done.reasons[slot.index] = own
        return {}
    tried = {Why.OWN_HEAD_KEPT: (own, own.final.margins(asset.features[later], margins[later]))}
    if spec.model.asset_alone:
        alone = fit_alone_head(spec, slot, head, train, valid, job.seed)
        tried[Why.ALONE_HEAD_KEPT] = (alone, alone.final.margins(asset.features[later]))
    done.tried[slot.index] = True
    done.reasons[slot.index] = Why.DID_NOT_BEAT_CLASS
    standing = start[1]
    for place, (why, (_, of_later)) in enumerate(tried.items(), 1):
        found = of_later[part[later] == VALID]
        won, (before, after) = earns_its_place(slot, valid.label, standing, found)
        if place == 1:
            done.losses[slot.index, 0] = before
        done.losses[slot.index, place] = after
        if won:
            done.reasons[slot.index], standing = why, found
    return tried


def _rows(asset: AssetRows, label: Floats, wanted: npt.NDArray[np.bool_]) -> Rows:
    return Rows(asset.features[wanted], label[wanted], np.ones(int(wanted.sum()), np.float32))


def _lives(job: TrainJob, spec: ClassSpec, slot: Slot, asset: AssetRows) -> tuple[int, int]:
    """How often the slot's component failed before validation, and during it."""
    split = job.split(spec.name)
    times = asset.failure_times
    if slot.target.code != ANY_CODE:
        times = times[asset.failure_codes == slot.target.code]
    before = int((times < split.valid_from_us).sum())
    return before, int((times < split.test_from_us).sum()) - before


def _outputs(spec: ClassSpec, slots: Sequence[Slot], by_slot: Floats) -> Floats:
    """float32[n, O] from float32[n, S]: one slot each, but for anomalies the root mean square over their slots."""
    columns = []
    for output, target in enumerate(spec.targets):
        own = by_slot[:, [slot.index for slot in slots if slot.output == output]]
        columns.append(anomaly_values(np.ascontiguousarray(own)) if target.kind == "anomaly" else own[:, 0])
    return np.column_stack(columns)


def _levels(spec: ClassSpec, slots: Sequence[Slot], reasons: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """uint8[O]: the deepest level that has a part in each output."""
    levels = np.full(len(spec.targets), NONE_LEVEL, np.uint8)
    for slot in slots:
        reason = Why(reasons[slot.index])
        level = ASSET_LEVEL if reason in KEPT else NONE_LEVEL if reason == Why.NO_CLASS_HEAD else CLASS_LEVEL
        levels[slot.output] = max(levels[slot.output], level)
    return levels
