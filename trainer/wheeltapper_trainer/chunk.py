"""The stages that run as tasks: SAMPLE a chunk, fit a CLASS head, train and score the ASSETs of a chunk.

Plain functions of the job; what they leave in the run folder depends on the history, the fleet and the seed alone,
never on how assets were cut into chunks or in which order chunks ran.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from wheeltapper.spec import ClassSpec

from wheeltapper_trainer.heads import Rows, fit_class_head, load_head, save_head, slot_label
from wheeltapper_trainer.inputs import AssetRows, Reader, reason_of
from wheeltapper_trainer.job import (
    TEST,
    TRAIN,
    VALID,
    Chunk,
    ChunkDone,
    ClassDone,
    SampleDone,
    Slot,
    TrainJob,
    load_arrays,
    save_arrays,
    slots_of,
)
from wheeltapper_trainer.own import OwnHeads, train_asset

_QUOTA_MIN = 16  # rows of an asset, however many assets there are
_CAPPED_WORTH = 0.5
_POSITIVES_PER_QUOTA = 2  # rows before failures are rare and precious: up to twice as many as of all others

Sample = dict[str, npt.NDArray[Any]]


def sample_chunk(job: TrainJob, chunk: Chunk) -> SampleDone:
    """SAMPLE: a bounded, deterministic choice of every asset's training and validation rows, for the class heads."""
    reader = Reader(job, chunk.asset_class, chunk.source)
    taught = job.asset_count(chunk.asset_class) - len(job.split(chunk.asset_class).test_assets)
    quota = max(_QUOTA_MIN, job.class_rows // max(1, taught))
    found: list[Sample] = []
    for asset in reader.each(chunk.asset_ids):
        rows, weight = _choose(job, reader.spec, asset, quota)
        found.append(
            {
                "asset_ids": np.full(len(rows), asset.asset_id),
                "times": asset.times[rows],
                "rows": rows,  # where each stands among its asset's readings
                "features": asset.features[rows],
                "labels": asset.labels[rows],
                "parts": asset.parts[rows],
                "weight": weight,
            }
        )
    save_arrays(job.sample_path(chunk), _stack(found))
    clock = reader.clock
    kept = sum(len(sample["weight"]) for sample in found)
    return SampleDone(chunk.digest, len(found), clock.rows, kept, clock.read, clock.features, tuple(clock.failed))


def load_samples(job: TrainJob, asset_class: str, chunks: Sequence[Chunk]) -> Sample:
    """All sampled rows of a class in the order of asset id, then time; empty arrays where there are none."""
    own = [chunk for chunk in chunks if chunk.asset_class == asset_class]
    samples = [(load_arrays(job.sample_path(chunk)), chunk) for chunk in own]
    sample = _stack([_of_assets(found, chunk.asset_ids) for found, chunk in samples if found])
    order = np.argsort(sample["asset_ids"], kind="stable") if sample else np.empty(0, np.int64)
    return {name: column[order] for name, column in sample.items()}


def fit_class(job: TrainJob, asset_class: str, slot: int, chunks: Sequence[Chunk]) -> ClassDone:
    """CLASS: fit the class's head of one slot on the samples of all `chunks`, calibrate it, store it."""
    begin = time.perf_counter()
    spec = job.asset_class(asset_class)
    chosen = slots_of(spec)[slot]
    sample = load_samples(job, asset_class, chunks)
    head, train = None, Rows(*(np.empty(0, np.float32),) * 3)
    if sample:
        label = slot_label(spec, chosen, sample["features"], sample["labels"])
        part = np.where(np.isfinite(label), sample["parts"][:, chosen.output], np.uint8(TEST))
        counted = {**sample, "weight": sample["weight"] * worth_of(chosen, label)}
        train, valid = (rows_of(counted, label, part == which) for which in (TRAIN, VALID))
        # Where own heads are to be judged on validation rows, the class head they continue must not have seen them.
        by_asset = job.split(asset_class).by == "asset"
        folds = []
        if by_asset and chosen.target.kind == "rul":  # the validation machines are the first of `split.folds`
            folds = folds_of(job, sample["asset_ids"][part == TRAIN], max(2, job.spec.split.folds) - 1)
        refit = by_asset or spec.model.asset_rounds == 0
        head = fit_class_head(spec, chosen, train, valid, job.seed, refit, folds)
    save_head(job.class_path(asset_class, slot), head)
    positives = int((train.label > 0).sum()) if chosen.target.kind == "failure" else 0
    trees = 0 if head is None else head.final.rounds
    return ClassDone(asset_class, slot, trees, len(train), positives, time.perf_counter() - begin)


def train_chunk(job: TrainJob, chunk: Chunk) -> ChunkDone:
    """ASSET: train each asset's own heads, keep those that earn their place, and score validation and test rows.

    An asset that raises is left out of the file and named in the result; the rest of the chunk goes on.
    """
    reader = Reader(job, chunk.asset_class, chunk.source)
    heads = [load_head(job.class_path(chunk.asset_class, slot.index)) for slot in slots_of(reader.spec)]
    done: list[OwnHeads] = []
    for asset in reader.each(chunk.asset_ids):
        begin = time.perf_counter()
        try:
            done.append(train_asset(job, reader.spec, heads, asset))
        except Exception as error:  # one asset that cannot be learnt must not cost the others; its reason is kept
            reader.clock.failed.append((asset.asset_id, reason_of(error)))
        reader.clock.fit += time.perf_counter() - begin
    save_arrays(job.chunk_path(chunk), _chunk_arrays(done))
    clock = reader.clock
    return ChunkDone(
        chunk.digest,
        len(done),
        sum(int(own.tried.sum()) for own in done),
        sum(len(own.kept) for own in done),
        clock.rows,
        clock.read,
        clock.features,
        clock.fit,
        tuple(clock.failed),
    )


def _choose(
    job: TrainJob, spec: ClassSpec, asset: AssetRows, quota: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """(rows ascending, weight of each): rows before failures first, then a fair draw of the others.

    A weight says how many rows of its kind a sampled row stands for.
    """
    usable = ((asset.parts == TRAIN) | (asset.parts == VALID)).any(axis=1)
    failure = [output for output, target in enumerate(spec.targets) if target.kind == "failure"]
    urgent = usable & (asset.labels[:, failure] == 1).any(axis=1)
    random = np.random.default_rng([job.seed, zlib.crc32(asset.asset_id.encode())])
    rows: list[npt.NDArray[np.int64]] = []
    weights: list[npt.NDArray[np.float32]] = []
    for stratum, limit in ((urgent, _POSITIVES_PER_QUOTA * quota), (usable & ~urgent, quota)):
        there = np.flatnonzero(stratum)
        drawn = there if len(there) <= limit else random.choice(there, limit, replace=False)
        rows.append(drawn)
        weights.append(np.full(len(drawn), len(there) / max(1, len(drawn)), np.float32))
    chosen = np.concatenate(rows)
    order = np.argsort(chosen)
    return chosen[order], np.concatenate(weights)[order]


def worth_of(slot: Slot, label: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What a row counts for. Lives at the cap are all alike, and most rows are: they count half, so that the rows with
    something to tell lead (on grouped folds of C-MAPSS FD001 and FD002: PHM08 142 to 134, 455 to 433)."""
    capped = (slot.target.kind == "rul") & (label >= slot.target.cap) & (slot.target.cap > 0)
    return np.where(capped, np.float32(_CAPPED_WORTH), np.float32(1))


def folds_of(job: TrainJob, asset_ids: npt.NDArray[np.str_], count: int) -> list[npt.NDArray[np.bool_]]:
    """bool[n] per fold of `count`: whole machines, so that no machine is in two of them."""
    owners, owner = np.unique(asset_ids, return_inverse=True)
    turn = np.array([zlib.crc32(f"{job.seed}:{name}".encode()) for name in owners], np.int64).argsort().argsort()
    return [(turn % count == fold)[owner] for fold in range(count)]


def rows_of(sample: Sample, label: npt.NDArray[np.float32], wanted: npt.NDArray[np.bool_]) -> Rows:
    """The wanted rows as a head learns them."""
    weight = sample["weight"][wanted]
    # Mean one, so that min_child_weight and reg_lambda mean what they mean without sampling.
    scale = np.float32(len(weight) / weight.sum(dtype=np.float64)) if len(weight) else np.float32(1)
    return Rows(sample["features"][wanted], label[wanted], weight * scale)


def _of_assets(sample: Sample, asset_ids: Sequence[str]) -> Sample:
    """The rows of some assets: a file may hold others that have changed since, and are in another file now."""
    there = np.isin(sample["asset_ids"], asset_ids)
    return {name: column[there] for name, column in sample.items()}


def _stack(found: Sequence[Sample]) -> Sample:
    return {name: np.concatenate([sample[name] for sample in found]) for name in found[0]} if found else {}


def _chunk_arrays(done: Sequence[OwnHeads]) -> dict[str, npt.NDArray[Any]]:
    """The file of a chunk: per-asset arrays, rows behind one another with `row_begin`, kept heads with `head_*`."""
    if not done:
        return {"asset_ids": np.empty(0, np.str_)}
    kept = [(asset, slot, head) for asset, own in enumerate(done) for slot, head in own.kept]
    trees = [head.final.added_trees() for _, _, head in kept]
    rows = [own.rows for own in done]
    arrays: dict[str, npt.NDArray[Any]] = {
        "asset_ids": np.array([own.asset_id for own in done], np.str_),
        "statics": np.stack([own.statics for own in done]),
        "start": np.stack([own.start for own in done]),
        "reasons": np.stack([own.reasons for own in done]),
        "tried": np.stack([own.tried for own in done]),
        "losses": np.stack([own.losses for own in done]),
        "row_begin": _offsets([len(r["times"]) for r in rows]),
        "failure_begin": _offsets([len(own.failure_times) for own in done]),
        "failure_times": np.concatenate([own.failure_times for own in done]),
        "failure_codes": np.concatenate([own.failure_codes for own in done]),
        "head_asset": np.array([asset for asset, _, _ in kept], np.int64),
        "head_slot": np.array([slot for _, slot, _ in kept], np.int64),
        "head_scale": np.array([[head.a, head.b] for _, _, head in kept], np.float64).reshape(-1, 2),
        "head_trees": _offsets([len(tree.depth) for tree in trees]),
        "head_nodes": _offsets([len(tree.nodes) for tree in trees]),
        "tree_begin": np.concatenate([np.empty(0, np.int64), *(tree.begin[:-1] for tree in trees)]),
        "tree_depth": np.concatenate([np.empty(0, np.uint8), *(tree.depth for tree in trees)]),
    }
    if any(
        head.final.parent is None for _, _, head in kept
    ):  # one that continues its class starts at that one's margin
        arrays["head_base"] = np.array([head.final.base for _, _, head in kept], np.float32)
    if trees:
        arrays["nodes"] = np.concatenate([tree.nodes for tree in trees])
        arrays["node_cover"] = np.concatenate([tree.cover for tree in trees])
    return arrays | _stack(rows)


def _offsets(lengths: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
