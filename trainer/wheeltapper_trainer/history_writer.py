"""Writing a history: whole or not at all, in bounded memory, laid out so that a worker reads few assets cheaply."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wheeltapper.errors import Refused

from wheeltapper_trainer.history import TableWriter, write_table
from wheeltapper_trainer.records import Asset, Events, HistoryError, Times, Values

_GROUP_ROWS = 4_096  # an asset this large has row groups of its own; smaller ones share
_FILE_ROWS = 1_000_000


class HistoryWriter:
    """A history folder that appears whole on a clean exit, and not at all on an error.

    Local only: a rename makes it atomic. Assets of a class come in ascending order of their ids. Whatever else
    belongs to the history (its fleet.toml, labels) is written into `folder` before the exit.
    """

    def __init__(self, path: str | Path, sensors: Mapping[str, Sequence[str]], file_rows: int = _FILE_ROWS) -> None:
        """`sensors`: the columns of each asset class. Refused where `path` already holds something."""
        self._path = Path(path).absolute()
        if self._path.exists() and (not self._path.is_dir() or any(self._path.iterdir())):
            raise Refused(f"{path} already exists and is not empty", "choose another folder, or remove this one")
        self.folder = self._path.with_name(f".{self._path.name}.partial")
        self._sensors = sensors
        self._file_rows = file_rows
        self._classes: dict[str, _ClassFiles] = {}
        self._assets: dict[str, Asset] = {}
        self._events: list[tuple[str, int, str, str]] = []
        self._first, self._last, self._rows = np.iinfo(np.int64).max, np.iinfo(np.int64).min, 0

    def __enter__(self) -> HistoryWriter:
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "readings").mkdir(parents=True)
        for name, columns in self._sensors.items():
            self._classes[name] = _ClassFiles(self.folder / "readings", name, tuple(columns), self._file_rows)
        return self

    def add(self, asset: Asset, times: Times, values: Values) -> None:
        """One asset's whole readings: times int64[n] µs ascending, values float32[n, sensors of its class]."""
        if asset.asset_id in self._assets:
            raise HistoryError(f"asset {asset.asset_id!r} was written already", "all readings of an asset come at once")
        self._classes[asset.asset_class].add(asset.asset_id, times, values)
        self._assets[asset.asset_id] = asset
        if len(times):
            self._first, self._last = min(self._first, int(times[0])), max(self._last, int(times[-1]))
        self._rows += len(times)

    def add_events(self, rows: Sequence[tuple[str, int, str, str]]) -> None:
        """(asset_id, time µs, kind, code) in any order."""
        self._events += rows

    def written(self) -> dict[str, Any]:
        """What was written, for a report: assets, readings, events, first and last time (ISO 8601, UTC)."""
        span = [f"{np.datetime64(int(time), 's')}Z" for time in (self._first // 10**6, self._last // 10**6)]
        return {
            "assets": len(self._assets),
            "readings": self._rows,
            "events": len(self._events),
            "first": span[0] if self._rows else None,
            "last": span[1] if self._rows else None,
        }

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for files in self._classes.values():
            files.close()
        if kind is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        events = Events.of_rows(self._events)
        times = events.times.view("M8[us]")
        columns = {"asset_id": events.asset_ids, "time": times, "kind": events.kinds, "code": events.codes}
        write_table(self.folder / "events.parquet", columns)
        assets = [self._assets[asset_id] for asset_id in sorted(self._assets)]
        table: dict[str, NDArray[Any]] = {
            "asset_id": np.array([a.asset_id for a in assets], np.str_),
            "asset_class": np.array([a.asset_class for a in assets], np.str_),
        }
        for name in sorted({name for asset in assets for name in asset.attributes}):
            table[name] = np.array([a.attributes.get(name, np.nan) for a in assets], np.float64)
        write_table(self.folder / "assets.parquet", table)
        self.folder.rename(self._path)  # replaces an empty folder


class _ClassFiles:
    """The files of one class: whole assets gathered into row groups, a new file after `file_rows`."""

    def __init__(self, folder: Path, name: str, sensors: tuple[str, ...], file_rows: int) -> None:
        self._folder, self._name, self._sensors, self._file_rows = folder, name, sensors, file_rows
        self._writer: TableWriter | None = None
        self._waiting: list[tuple[str, Times, Values]] = []
        self._files, self._file_rows_written, self._last = 0, 0, ""

    def add(self, asset_id: str, times: Times, values: Values) -> None:
        if asset_id <= self._last:
            raise HistoryError(
                f"asset {asset_id!r} of class {self._name!r} comes after {self._last!r}", "ids must ascend"
            )
        if values.shape != (len(times), len(self._sensors)):
            expected = f"expected values [{len(times)}, {len(self._sensors)}], found {list(values.shape)}"
            raise HistoryError(f"readings of asset {asset_id!r}: {expected}")
        if (np.diff(times) < 0).any():
            raise HistoryError(f"readings of asset {asset_id!r}: the times fall", "sort them by time")
        self._last = asset_id
        self._waiting.append((asset_id, times, values))
        if sum(len(waiting[1]) for waiting in self._waiting) >= _GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._writer is None:
            self._writer = TableWriter(self._folder / f"{self._name}-{self._files:05d}.parquet").__enter__()
            self._files, self._file_rows_written = self._files + 1, 0
        ids = np.repeat(np.array([w[0] for w in self._waiting], np.str_), [len(w[1]) for w in self._waiting])
        times = np.concatenate([np.asarray(w[1], np.int64) for w in self._waiting]).view("M8[us]")
        values = np.concatenate([np.asarray(w[2], np.float32) for w in self._waiting])
        columns = {name: np.ascontiguousarray(values[:, c]) for c, name in enumerate(self._sensors)}
        self._writer.write({"asset_id": ids, "time": times, **columns})
        self._waiting = []
        self._file_rows_written += len(ids)
        if self._file_rows_written >= self._file_rows:
            self.close()

    def close(self) -> None:
        if self._waiting:
            self._flush()
        if self._writer is not None:
            self._writer.__exit__(None, None, None)
            self._writer = None
