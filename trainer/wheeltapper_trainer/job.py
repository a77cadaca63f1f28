"""What every training task is told: the history, the fleet, the cut between training and test, the run folder.

The journey, and the function of each stage. None of them knows Ray; each writes its files whole (temporary name, then
rename) under names this module gives, and returns only a small summary:

    resolve_split(history, spec)             split.py        -> one ClassSplit per class, for TrainJob.splits
    learn_regimes(job, class)                regimes.py      -> RUN/regimes/<class>.npz
    sample_chunk(job, chunk)                 chunk.py        -> SampleDone, RUN/samples/<digest>.npz
    fit_class(job, class, slot, chunks)      chunk.py        -> ClassDone,  RUN/class/<class>-<slot>.npz
    train_chunk(job, chunk)                  chunk.py        -> ChunkDone,  RUN/chunks/<digest>.npz
    choose_thresholds(job, chunks)           thresholds.py   -> Thresholds (one per class and output)
    assemble(job, chunks, thresholds, ...)   assemble.py     -> PackContent
    evaluate(job, chunks, thresholds)        evaluation.py   -> the Evaluation document (JSON-able dict)
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from wheeltapper.spec import (
    ClassSpec,
    FleetSpec,
    Gate,
    SplitSpec,
    Target,
    class_from_json,
    features_of,
    to_json,
)

from wheeltapper_trainer.records import Excerpt

TRAIN, VALID, TEST, UNUSED = 0, 1, 2, 3  # the part a row belongs to; UNUSED rows lie in an embargo


@dataclass(frozen=True, slots=True)
class Chunk:
    """The assets one task reads and trains; all of one class. `digest` names its files.

    `source`: where their rows lie, on the way to a worker; None: to be looked up in the history.
    """

    asset_class: str
    asset_ids: tuple[str, ...]
    rows: int
    digest: str
    source: Excerpt | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ClassSplit:
    """Where training ends for one class. Times are int64 microseconds since 1970 UTC.

    by = "time": train before `valid_from_us`, validate before `test_from_us`, test after it, each of the first two
    ending an embargo early. by = "asset": `valid_assets` and `test_assets` are whole assets, the rest trains.
    """

    asset_class: str
    by: str
    valid_from_us: int = 0
    test_from_us: int = 0
    valid_assets: tuple[str, ...] = ()
    test_assets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Slot:
    """One head's job in a class: a target, and for anomalies the sensor and which statistic of it the head predicts."""

    index: int
    output: int  # position of `target` among the class's targets
    target: Target
    sensor: str = ""
    statistic: str = ""
    window: int = 0

    @property
    def name(self) -> str:
        watched = f"shift of {self.sensor}" if self.statistic == "shift" else self.sensor
        return f"{self.target.name}[{watched}]" if watched else self.target.name


@dataclass(frozen=True, slots=True)
class TrainJob:
    """Plain data, equal on every worker. `assets` counts the assets per class, so that samples can be bounded."""

    history: str  # folder or URI
    run_dir: str
    spec: FleetSpec
    splits: tuple[ClassSplit, ...]
    assets: tuple[tuple[str, int], ...]  # (class, number of assets)
    seed: int
    class_rows: int = 60_000  # about this many sampled rows fit a class head

    def asset_class(self, name: str) -> ClassSpec:
        return self.spec.asset_class(name)

    def split(self, asset_class: str) -> ClassSplit:
        return next(split for split in self.splits if split.asset_class == asset_class)

    def asset_count(self, asset_class: str) -> int:
        return dict(self.assets)[asset_class]

    def regimes_path(self, asset_class: str) -> Path:
        return Path(self.run_dir, "regimes", f"{asset_class}.npz")

    def sample_path(self, chunk: Chunk) -> Path:
        return Path(self.run_dir, "samples", f"{chunk.digest}.npz")

    def class_path(self, asset_class: str, slot: int) -> Path:
        return Path(self.run_dir, "class", f"{asset_class}-{slot}.npz")

    def pack_folder(self) -> Path:
        """Where the pack is put together; nothing in it outlives the run."""
        return Path(self.run_dir, "pack")

    def chunk_path(self, chunk: Chunk) -> Path:
        return Path(self.run_dir, "chunks", f"{chunk.digest}.npz")


@dataclass(frozen=True, slots=True)
class SampleDone:
    """What SAMPLE returns. `failed` holds (asset id, reason) of assets left out."""

    digest: str
    assets: int
    rows_read: int
    rows_kept: int
    seconds_read: float
    seconds_features: float
    failed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ClassDone:
    """What CLASS returns; `trees` is 0 where no row had a known label, and then the class has no head in that slot."""

    asset_class: str
    slot: int
    trees: int
    rows: int
    positives: int
    seconds_fit: float


@dataclass(frozen=True, slots=True)
class ChunkDone:
    """What ASSET returns."""

    digest: str
    assets: int
    heads_trained: int
    heads_kept: int
    rows_read: int
    seconds_read: float
    seconds_features: float
    seconds_fit: float
    failed: tuple[tuple[str, str], ...] = ()


def slots_of(spec: ClassSpec) -> tuple[Slot, ...]:
    """The heads of a class in pack order: one per rul or failure target, one per feature that an anomaly watches."""
    found: list[Slot] = []
    for output, target in enumerate(spec.targets):
        for statistic, window, sensor in target.watched() if target.kind == "anomaly" else (("", 0, ""),):
            found.append(Slot(len(found), output, target, sensor, statistic, window))
    return tuple(found)


def allowed_features(spec: ClassSpec, slot: Slot) -> npt.NDArray[np.bool_]:
    """bool[F]: the features a slot's head may look at.

    An anomaly head sees nothing of the sensor it predicts, and nothing at all where it predicts a shift: that is
    measured from the asset's own start already, and what all sensors do together must not explain it away.
    """
    if slot.statistic == "shift":
        return np.zeros(len(features_of(spec)), np.bool_)
    return np.array([not slot.sensor or feature.source != slot.sensor for feature in features_of(spec)])


def actual_feature(spec: ClassSpec, slot: Slot) -> int:
    """The feature an anomaly slot predicts, which its residual is measured against."""
    watched = (slot.statistic, slot.window, slot.sensor)
    return next(f.index for f in features_of(spec) if (f.statistic, f.window, f.source) == watched)


def job_to_json(job: TrainJob) -> dict[str, Any]:
    """A JSON object that `job_from_json` reads back to an equal job."""
    return {**dataclasses.asdict(job), "spec": to_json(job.spec)}


def job_from_json(document: dict[str, Any]) -> TrainJob:
    """The inverse of `job_to_json`."""
    splits = tuple(
        ClassSplit(**{**s, "valid_assets": tuple(s["valid_assets"]), "test_assets": tuple(s["test_assets"])})
        for s in document["splits"]
    )
    assets = tuple((name, count) for name, count in document["assets"])
    return TrainJob(**{**document, "spec": _fleet_from_json(document["spec"]), "splits": splits, "assets": assets})


def save_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write plain arrays to `path` as .npz: the old file or the whole new one, never a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".partial", delete=False) as file:
        try:
            np.savez(file, allow_pickle=False, **dict(arrays))
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def load_arrays(path: Path, names: Collection[str] | None = None) -> dict[str, npt.NDArray[Any]]:
    """The arrays `save_arrays` wrote, or those of `names` that are there: the others are not read.

    Object arrays (pickle) are refused by NumPy with ValueError.
    """
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files if names is None or name in names}


def _fleet_from_json(document: dict[str, Any]) -> FleetSpec:
    gates = tuple(
        Gate(
            gate["output"],
            gate["metric"],
            float("inf") if gate["at_most"] is None else gate["at_most"],
            float("-inf") if gate["at_least"] is None else gate["at_least"],
        )
        for gate in document["gates"]
    )
    classes = tuple(class_from_json(entry) for entry in document["classes"])
    return FleetSpec(document["name"], classes, document["seed"], SplitSpec(**document["split"]), gates)
