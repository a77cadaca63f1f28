"""The stored scores of a class: what every validation and test row was answered, asset behind asset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wheeltapper_trainer.job import UNUSED, Chunk, TrainJob

ROW_COLUMNS = ("times", "labels", "raw_labels", "parts", "levels", "values", "class_values", "own_values")
_ASKED_COLUMNS = ("alone_values",)  # where the class asks for forests without it
_ASSET_COLUMNS = ("asset_ids", "reasons", "tried", "losses")
_FAILURE_COLUMNS = ("failure_times", "failure_codes")
_READ = (*ROW_COLUMNS, *_ASKED_COLUMNS, *_ASSET_COLUMNS, *_FAILURE_COLUMNS, "row_begin", "failure_begin")


@dataclass(frozen=True, slots=True)
class ClassScores:
    """Assets in the order of their ids; the rows of asset a are begin[a]:begin[a+1], ascending in time.

    times int64[n] µs; labels and raw_labels (rul without cap) float32[n, O]; parts, levels uint8[n, O]; values by the
    head that answers, class_values by the class alone, own_values by own heads wherever one was tried: float32[n, O].
    Failures of asset a: failure_begin[a]:failure_begin[a+1]. reasons uint8[A, S], tried bool[A, S], losses
    float32[A, S, 2]. Where own forests without the class were asked for, alone_values are by those wherever one was
    tried, and losses is float32[A, S, 3]; None otherwise.
    """

    asset_ids: npt.NDArray[np.str_]
    begin: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64]
    labels: npt.NDArray[np.float32]
    raw_labels: npt.NDArray[np.float32]
    parts: npt.NDArray[np.uint8]
    levels: npt.NDArray[np.uint8]
    values: npt.NDArray[np.float32]
    class_values: npt.NDArray[np.float32]
    own_values: npt.NDArray[np.float32]
    failure_begin: npt.NDArray[np.int64]
    failure_times: npt.NDArray[np.int64]
    failure_codes: npt.NDArray[np.str_]
    reasons: npt.NDArray[np.uint8]
    tried: npt.NDArray[np.bool_]
    losses: npt.NDArray[np.float32]
    alone_values: npt.NDArray[np.float32] | None = None

    def failures(self, asset: int, code: str | None) -> npt.NDArray[np.int64]:
        """int64[k]: when an asset failed with `code` (None: with any)."""
        rows = slice(self.failure_begin[asset], self.failure_begin[asset + 1])
        times = self.failure_times[rows]
        return times if code is None else times[self.failure_codes[rows] == code]


def each_scores(job: TrainJob, asset_class: str, chunks: Sequence[Chunk]) -> Iterator[ClassScores]:
    """The scores of a class, a chunk at a time, so that no more than one chunk is in memory however large the fleet."""
    for chunk in chunks:
        scores = load_scores(job, asset_class, [chunk])
        if scores is not None:
            yield scores


def load_scores(job: TrainJob, asset_class: str, chunks: Sequence[Chunk]) -> ClassScores | None:
    """All scores of a class from the files of its chunks at once; None where no asset was scored."""
    own = [chunk for chunk in chunks if chunk.asset_class == asset_class]
    read = [(_scored(job.chunk_path(chunk)), chunk.asset_ids) for chunk in own]
    read = [(found, asset_ids) for found, asset_ids in read if len(found["asset_ids"])]
    if not read:
        return None
    files = [found for found, _ in read]
    order = np.argsort(np.concatenate([found["asset_ids"] for found in files]), kind="stable")
    wanted = np.concatenate([np.isin(found["asset_ids"], asset_ids) for found, asset_ids in read])
    order = order[wanted[order]]  # a file may hold assets that have changed since, and are in another file now

    def column(name: str) -> npt.NDArray[Any]:
        return np.concatenate([found[name] for found in files])

    rows, begin = _ranges(files, "row_begin", order)
    failures, failure_begin = _ranges(files, "failure_begin", order)
    per_asset = {name: column(name)[order] for name in _ASSET_COLUMNS}
    asked = [name for name in _ASKED_COLUMNS if name in files[0]]
    per_row = {name: column(name)[rows] for name in (*ROW_COLUMNS, *asked)}
    per_failure = {name: column(name)[failures] for name in _FAILURE_COLUMNS}
    return ClassScores(begin=begin, failure_begin=failure_begin, **per_asset, **per_row, **per_failure)


def part_of(scores: ClassScores, output: int, part: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(rows, begin[A+1]): the rows of one part for one output, and where each asset starts in them."""
    wanted = scores.parts[:, output] == part if part != UNUSED else np.ones(len(scores.times), np.bool_)
    counts = np.concatenate([[0], np.cumsum(wanted)])
    return np.flatnonzero(wanted), counts[scores.begin].astype(np.int64)


def _scored(path: Path) -> dict[str, npt.NDArray[Any]]:
    """A chunk's file without its trees, which are most of it."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in _READ if name in file.files}


def _ranges(
    files: Sequence[dict[str, npt.NDArray[Any]]], name: str, order: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Positions of the concatenated rows in the order of the assets, and the new offsets."""
    lengths = np.concatenate([np.diff(found[name]) for found in files])
    starts = np.concatenate([[0], np.cumsum(lengths)])[:-1]
    rows = [np.arange(starts[a], starts[a] + lengths[a]) for a in order]
    offsets = np.concatenate([[0], np.cumsum(lengths[order])]).astype(np.int64)
    return np.concatenate(rows).astype(np.int64), offsets
