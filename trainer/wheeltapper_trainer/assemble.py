"""ASSEMBLE: from the files of a finished run to the content of a pack.

Heads stand in the order class, slot, then class, asset, slot, so the bytes do not depend on how assets were chunked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from wheeltapper.features import KERNELS
from wheeltapper.forest import Trees, no_trees
from wheeltapper.outputs import Why
from wheeltapper.pack_content import QUANTILES, AssetContent, ClassContent, HeadContent, PackContent
from wheeltapper.pack_meta import Output
from wheeltapper.spec import LEVELS, ClassSpec

from wheeltapper_trainer.chunk import Sample, load_samples
from wheeltapper_trainer.forest_file import ForestFile
from wheeltapper_trainer.heads import Head, load_head
from wheeltapper_trainer.history import History
from wheeltapper_trainer.inputs import statics_of
from wheeltapper_trainer.job import TRAIN, Chunk, TrainJob, load_arrays, slots_of
from wheeltapper_trainer.regimes import load_regimes
from wheeltapper_trainer.thresholds import Threshold

_GOLDEN_ROWS = 16
CLASS_LEVEL, ASSET_LEVEL = LEVELS.index("class"), LEVELS.index("asset")

Arrays = Mapping[str, npt.NDArray[Any]]
_ASSET_ARRAYS = ("asset_ids", "reasons", "statics", "start", "head_asset", "head_slot", "head_scale", "head_base")
_TREE_ARRAYS = ("head_trees", "head_nodes", "tree_begin", "tree_depth", "nodes", "node_cover")


@dataclass(slots=True)
class _Content:
    """What has been gathered so far. The trees of `heads` are in `forest`, in the same order."""

    forest: ForestFile
    heads: list[HeadContent] = field(default_factory=list)
    classes: list[ClassContent] = field(default_factory=list)
    assets: list[AssetContent] = field(default_factory=list)


def assemble(
    job: TrainJob,
    samples: Sequence[Chunk],
    chunks: Sequence[Chunk],
    thresholds: Sequence[Threshold],
    lineage: Mapping[str, Any],
    metrics: Mapping[tuple[str, str], Mapping[str, Any]] | None = None,
) -> PackContent:
    """The content of the pack of a finished run.

    `samples` and `chunks`: what SAMPLE and ASSET finished; an asset of the history that is in none of `chunks` was
    quarantined, and its class answers for it. `metrics`: figures per (class, output) to keep beside the thresholds.
    Trees go from the chunks' files to the job's pack folder and are mapped from there; no more than two chunks' are in
    memory at a time.
    """
    history = History.open(job.history)
    with ForestFile(job.pack_folder()) as file:
        content = _Content(file)
        class_heads = [
            [load_head(job.class_path(spec.name, slot.index)) for slot in slots_of(spec)] for spec in job.spec.classes
        ]
        for index, (spec, heads) in enumerate(zip(job.spec.classes, class_heads, strict=True)):
            _add_class(job, content, index, spec, heads, samples, thresholds, metrics or {})
        for index, spec in enumerate(job.spec.classes):
            trained = _add_trained(job, content, index, chunks)
            for asset in history.assets():
                if asset.asset_class == spec.name and asset.asset_id not in trained:
                    known = content.classes[index].heads
                    reasons = tuple(Why.QUARANTINED if head >= 0 else Why.NO_CLASS_HEAD for head in known)
                    statics = tuple(float(x) for x in statics_of(spec, asset))
                    content.assets.append(AssetContent(asset.asset_id, index, known, reasons, statics))
        forest = file.forest()
    return PackContent(
        fleet=job.spec.name,
        seed=job.seed,
        kernels=KERNELS,
        classes=tuple(content.classes),
        heads=content.heads,
        assets=content.assets,
        lineage=lineage,
        forest=forest,
    )


def sketch_of(features: npt.NDArray[np.float32], weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """float32[F, 17]: weighted quantiles 0/16 … 16/16 of each feature, of its finite values; NaN where it has none."""
    out = np.full((features.shape[1], QUANTILES), np.nan, np.float32)
    for column in range(features.shape[1]):
        there = np.isfinite(features[:, column])
        if not there.any():
            continue
        values, weights = features[there, column], weight[there].astype(np.float64)
        order = np.argsort(values, kind="stable")
        reach = np.cumsum(weights[order])
        ranks = np.searchsorted(reach, np.linspace(0.0, 1.0, QUANTILES) * reach[-1])
        out[column] = values[order][np.minimum(ranks, len(values) - 1)]
    return out


def _add_class(
    job: TrainJob,
    content: _Content,
    index: int,
    spec: ClassSpec,
    heads: Sequence[Head | None],
    samples: Sequence[Chunk],
    thresholds: Sequence[Threshold],
    metrics: Mapping[tuple[str, str], Mapping[str, Any]],
) -> None:
    """One class's own heads, outputs, sketch and golden rows."""
    numbers: list[int] = []
    for slot, head in zip(slots_of(spec), heads, strict=True):
        if head is None:
            numbers.append(-1)
            continue
        numbers.append(content.forest.add(head.final.trees(), head.final.base))
        content.heads.append(
            HeadContent(
                class_index=index,
                slot=slot.index,
                level=CLASS_LEVEL,
                trees=no_trees(),
                base=head.final.base,
                scale=(head.a, head.b),
                knots=head.knots if len(head.knots) else None,
            )
        )
    sample = load_samples(job, spec.name, samples)
    rows, sketch = _golden_rows(sample), None
    if sample:
        training = (sample["parts"] == TRAIN).any(axis=1)
        sketch = sketch_of(sample["features"][training], sample["weight"][training])
    said = None
    if rows is not None:
        columns = [np.zeros(len(rows), np.float32) if head is None else head.final.margins(rows) for head in heads]
        said = np.column_stack(columns)
    content.classes.append(
        ClassContent(
            spec=spec,
            outputs=_outputs(spec, heads, thresholds, metrics),
            heads=tuple(numbers),
            regimes=load_regimes(job, spec.name),
            sketch=sketch,
            golden_rows=rows,
            golden_heads=None if rows is None else np.tile(np.array(numbers, np.int32), (len(rows), 1)),
            golden_margins=said,
        )
    )


def _golden_rows(sample: Sample) -> npt.NDArray[np.float32] | None:
    """Rows spread evenly over a class's sample, for the scorer to prove its arithmetic with."""
    if not sample or not len(sample["weight"]):
        return None
    count = len(sample["weight"])
    return np.asarray(sample["features"][np.unique(np.linspace(0, count - 1, _GOLDEN_ROWS).astype(np.int64))])


def _outputs(
    spec: ClassSpec,
    heads: Sequence[Head | None],
    thresholds: Sequence[Threshold],
    metrics: Mapping[tuple[str, str], Mapping[str, Any]],
) -> tuple[Output, ...]:
    chosen = {t.output: t.threshold for t in thresholds if t.asset_class == spec.name}
    found: list[Output] = []
    for output, target in enumerate(spec.targets):
        slots = [slot.index for slot in slots_of(spec) if slot.output == output]
        threshold = chosen.get(target.name, float("nan"))
        figures = dict(metrics.get((spec.name, target.name), {}))
        first = heads[slots[0]]
        if first is not None and first.interval:
            figures["interval"] = first.interval
        found.append(
            Output(
                name=target.name,
                kind=target.kind,
                begin=slots[0],
                end=slots[-1] + 1,
                unit=unit_of(spec, target.kind),
                code=target.code,
                cap=target.cap,
                threshold=None if np.isnan(threshold) else threshold,
                hold=spec.alarm.hold,
                hysteresis=spec.alarm.hysteresis,
                metrics=figures,
            )
        )
    return tuple(found)


def unit_of(spec: ClassSpec, kind: str) -> str:
    """What one of an output's numbers means."""
    if kind == "rul":
        return "hours" if spec.cadence_us else "readings"
    return "probability" if kind == "failure" else "standard deviations"


def _add_trained(job: TrainJob, content: _Content, index: int, chunks: Sequence[Chunk]) -> Collection[str]:
    """Every asset of a class that ASSET finished, with its kept heads, in the order of asset ids; returns their ids."""
    of_class = content.classes[index].heads
    own = [chunk for chunk in chunks if chunk.asset_class == job.spec.classes[index].name]
    files = [load_arrays(job.chunk_path(chunk), _ASSET_ARRAYS) for chunk in own]
    # Chunks are neighbours in the order of assets, so that two at a time hold all trees that are looked for again.
    trees_of = lru_cache(2)(lambda number: load_arrays(job.chunk_path(own[number]), _TREE_ARRAYS))
    places = sorted(
        (str(asset_id), number, row)
        for number, (chunk, arrays) in enumerate(zip(own, files, strict=True))
        for row, asset_id in enumerate(arrays["asset_ids"])
        if asset_id in chunk.asset_ids  # a file may hold assets that have changed since, and are in another file now
    )
    for asset_id, number, row in places:
        arrays = files[number]
        heads = list(of_class)
        for head in np.flatnonzero(arrays["head_asset"] == row):
            slot = int(arrays["head_slot"][head])
            a, b = (float(x) for x in arrays["head_scale"][head])
            knots = content.heads[of_class[slot]].knots
            base, parent = 0.0, of_class[slot]
            if arrays["reasons"][row, slot] == Why.ALONE_HEAD_KEPT:
                base, parent = float(arrays["head_base"][head]), -1
            heads[slot] = content.forest.add(_trees_of(trees_of(number), int(head)), base, parent)
            content.heads.append(HeadContent(index, slot, ASSET_LEVEL, no_trees(), base, parent, (a, b), knots))
        reasons = tuple(Why(int(reason)) for reason in arrays["reasons"][row])
        statics = tuple(float(x) for x in arrays["statics"][row])
        start = tuple(float(x) for x in arrays["start"][row])
        content.assets.append(AssetContent(asset_id, index, tuple(heads), reasons, statics, start))
    return {asset_id for asset_id, _, _ in places}


def _trees_of(arrays: Arrays, head: int) -> Trees:
    trees = slice(arrays["head_trees"][head], arrays["head_trees"][head + 1])
    nodes = slice(arrays["head_nodes"][head], arrays["head_nodes"][head + 1])
    count = np.array([nodes.stop - nodes.start], np.int64)
    return Trees(
        arrays["nodes"][nodes],
        np.concatenate([arrays["tree_begin"][trees], count]),
        arrays["tree_depth"][trees],
        arrays["node_cover"][nodes],
    )
