"""One asset's turn: its own heads tried and judged, and its later rows scored by whatever will answer for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from wheeltapper.outputs import Why, anomaly_values
from wheeltapper.spec import ANY_CODE, LEVELS, ClassSpec

from wheeltapper_trainer.heads import Head, Rows, earns_its_place, fit_own_head, slot_label
from wheeltapper_trainer.inputs import AssetRows
from wheeltapper_trainer.job import TEST, TRAIN, VALID, Slot, TrainJob, slots_of

Floats = npt.NDArray[np.float32]
NONE_LEVEL, CLASS_LEVEL, ASSET_LEVEL = (LEVELS.index(name) for name in ("none", "class", "asset"))


@dataclass(slots=True)
class OwnHeads:
    """What training one asset left: kept heads, why others were not, and the scores of its later rows.

    reasons uint8[S] (Why); tried bool[S]; losses float32[S, 2], mean validation loss of class and own head; rows: times
    int64[m], labels, raw_labels, values, class_values, own_values float32[m, O], parts and levels uint8[m, O].
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
        np.full((len(slots), 2), np.nan, np.float32),
    )
    of_class, of_own, answer = (np.full((len(later), len(slots)), np.nan, np.float32) for _ in range(3))
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
        answer[:, slot.index] = of_own[:, slot.index] = of_class[:, slot.index]
        if split.by == "asset":
            continue
        own = _try_own(job, spec, slot, head, asset, later, margins, done)
        if own is None:
            continue
        of_own[:, slot.index] = own[0].values(slot, spec, own[1], features)
        if done.reasons[slot.index] == Why.OWN_HEAD_KEPT:
            done.kept.append((slot.index, own[0]))
            answer[:, slot.index] = of_own[:, slot.index]
    done.rows = {
        "times": asset.times[later],
        "labels": asset.labels[later],
        "raw_labels": asset.raw_labels[later],
        "parts": asset.parts[later],
        "values": _outputs(spec, slots, answer),
        "class_values": _outputs(spec, slots, of_class),
        "own_values": _outputs(spec, slots, of_own),
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
) -> tuple[Head, Floats] | None:
    """The candidate and its margins on the rows `later`, if one could be trained; the verdict goes into `done`.

    `margins` float32[n]: the class's, of every row of the asset.
    """
    label = slot_label(spec, slot, asset.features, asset.labels)
    part = np.where(np.isfinite(label), asset.parts[:, slot.output], np.uint8(TEST))
    train, valid = _rows(asset, label, part == TRAIN), _rows(asset, label, part == VALID)
    start = margins[part == TRAIN], margins[part == VALID]
    own = fit_own_head(spec, slot, head, train, valid, _lives(job, spec, slot, asset), job.seed, start)
    if isinstance(own, Why):
        done.reasons[slot.index] = own
        return None
    own_margins = own.final.margins(asset.features[later], margins[later])
    done.tried[slot.index] = True
    won, losses = earns_its_place(slot, valid.label, start[1], own_margins[part[later] == VALID])
    done.losses[slot.index] = losses
    done.reasons[slot.index] = Why.OWN_HEAD_KEPT if won else Why.DID_NOT_BEAT_CLASS
    return own, own_margins


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
        reason = reasons[slot.index]
        level = {Why.OWN_HEAD_KEPT: ASSET_LEVEL, Why.NO_CLASS_HEAD: NONE_LEVEL}.get(Why(reason), CLASS_LEVEL)
        levels[slot.output] = max(levels[slot.output], level)
    return levels
