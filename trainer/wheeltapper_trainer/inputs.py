"""One asset as the learner sees it: features of every reading, truth of every target, the part each row is in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from wheeltapper.features import feature_rows
from wheeltapper.regimes import Regimes
from wheeltapper.spec import ClassSpec

from wheeltapper_trainer.history import Excerpt, History
from wheeltapper_trainer.job import TrainJob
from wheeltapper_trainer.labels import label_column
from wheeltapper_trainer.records import Asset, AssetReadings, Events
from wheeltapper_trainer.regimes import load_regimes
from wheeltapper_trainer.split import parts_of
from wheeltapper_trainer.starts import start_of

LIFE_AT_END = "rul_at_end"  # an attribute of test sets that disclose the life left after an asset's last reading


@dataclass(frozen=True, slots=True)
class AssetRows:
    """The scored rows of one asset, ascending in time; O is the number of outputs.

    times int64[n] µs; features float32[n, F]; labels float32[n, O], NaN unknown, and raw_labels, where rul has
    no cap; parts uint8[n, O];
    statics float32[attributes]; failure_times int64[k] µs and failure_codes [k], of the whole history; start
    float64[start_width], the asset's own.
    """

    asset_id: str
    times: npt.NDArray[np.int64]
    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32]
    raw_labels: npt.NDArray[np.float32]
    parts: npt.NDArray[np.uint8]
    statics: npt.NDArray[np.float32]
    failure_times: npt.NDArray[np.int64]
    failure_codes: npt.NDArray[np.str_]
    start: npt.NDArray[np.float64]


@dataclass(slots=True)
class Clock:
    """Where a task's time went, in seconds, and how many readings it read."""

    read: float = 0.0
    features: float = 0.0
    fit: float = 0.0
    rows: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)  # (asset id, reason)


class Reader:
    """Reads assets of one class for a job; opened once per task. `source`: those it will be asked for, or all."""

    def __init__(self, job: TrainJob, asset_class: str, source: Excerpt | None = None) -> None:
        self.job = job
        self.spec = job.asset_class(asset_class)
        self.clock = Clock()
        self._history = History.open(job.history) if source is None else History.of(source)
        self._regimes = load_regimes(job, asset_class)
        self._assets = {asset.asset_id: asset for asset in self._history.assets() if asset.asset_class == asset_class}
        self._events = self._history.events()
        self._failure_codes = self._history.failed_components(asset_class)

    def rows(self, asset_id: str) -> AssetRows:
        """Everything about one asset. HistoryError where its file is broken."""
        begin = time.perf_counter()
        readings = next(iter(self._history.read([asset_id], [sensor.name for sensor in self.spec.sensors])))
        read = time.perf_counter()
        found = asset_rows(
            self.job,
            self.spec,
            self._regimes,
            self._assets[asset_id],
            readings,
            self._events.of_asset(asset_id),
            self._failure_codes,
        )
        self.clock.read += read - begin
        self.clock.features += time.perf_counter() - read
        self.clock.rows += len(readings.times)
        return found

    def each(self, asset_ids: tuple[str, ...]) -> Iterator[AssetRows]:
        """The assets that can be read; the others are noted in `clock.failed` and left out."""
        for asset_id in asset_ids:
            try:
                found = self.rows(asset_id)
            except Exception as error:  # one broken asset must not cost the others; its reason is kept
                self.clock.failed.append((asset_id, reason_of(error)))
                continue
            yield found


def reason_of(error: Exception) -> str:
    """One line that says what went wrong with an asset."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"


def failure_codes(events: Events, assets: dict[str, Asset]) -> frozenset[str]:
    """The components that ever failed on any of `assets`."""
    failed = (events.kinds == "failure") & np.isin(events.asset_ids, sorted(assets))
    return frozenset(events.codes[failed].tolist())


def asset_rows(
    job: TrainJob,
    spec: ClassSpec,
    regimes: Regimes,
    asset: Asset,
    readings: AssetReadings,
    events: Events,
    codes: frozenset[str],
) -> AssetRows:
    """Features, labels and parts of one asset; rows that only repeat or were superseded are left out."""
    statics = statics_of(spec, asset)
    event_times, event_codes = event_inputs(spec, events)
    values = np.ascontiguousarray(readings.values, np.float32)
    start = start_of(spec, regimes, job.split(spec.name), readings.times, values)
    features, status = feature_rows(spec, regimes, statics, readings.times, values, event_times, event_codes, start)
    kept = status == 0
    times = readings.times[kept]
    split = job.split(spec.name)
    life_at_end = float(asset.attributes.get(LIFE_AT_END, float("nan")))
    columns = [label_column(spec, target, times, events, codes, life_at_end) for target in spec.targets]
    uncapped = [replace(target, cap=0.0) if target.kind == "rul" else target for target in spec.targets]
    raw = [label_column(spec, target, times, events, codes, life_at_end) for target in uncapped]
    parts = [parts_of(spec, split, target, asset.asset_id, times) for target in spec.targets]
    return AssetRows(
        asset.asset_id,
        times,
        features[kept],
        np.column_stack(columns),
        np.column_stack(raw),
        np.column_stack(parts),
        statics,
        events.times[events.kinds == "failure"],
        events.codes[events.kinds == "failure"],
        start,
    )


def statics_of(spec: ClassSpec, asset: Asset) -> npt.NDArray[np.float32]:
    """float32[attributes] in the order of the class, NaN where the asset has none."""
    return np.array([asset.attributes.get(name, float("nan")) for name in spec.statics], np.float32)


def event_inputs(spec: ClassSpec, events: Events) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """One asset's events as the feature kernel takes them: times ascending, and positions in `spec.events`.

    An event that serves two event features comes twice.
    """
    times: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)]
    codes: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)]
    for position, feature in enumerate(spec.events):
        found = events.times_of(feature.kind, feature.code)
        times.append(found)
        codes.append(np.full(len(found), position, np.int64))
    when, what = np.concatenate(times), np.concatenate(codes)
    order = np.lexsort((what, when))
    return when[order], what[order]
