"""A history at rest: Parquet files that a worker reads asset by asset.

    readings/*.parquet   asset_id, time [µs, UTC], one float32 column per sensor; sorted by asset_id, then time
    events.parquet       asset_id, time, kind, code            (absent: no events)
    assets.parquet       asset_id, asset_class, one number per static attribute

All rows of an asset lie in one file. Files of other writers are taken as they are: any timestamp unit or zone, any
number type, nulls as NaN; what would have to be guessed is refused. The history*.py modules are the trainer's only
importers of pyarrow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
from wheeltapper.errors import NotFound, UsageError

from wheeltapper_trainer.history_index import KEYS, scan, span_of
from wheeltapper_trainer.history_tables import (
    TableWriter,
    UnreadableFileError,
    column_names,
    floats_of,
    parquet_errors,
    read_csv,
    read_table,
    require,
    strings_of,
    times_of,
    write_table,
)
from wheeltapper_trainer.records import Asset, AssetReadings, Events, Excerpt, HistoryError, Part, content_digest

__all__ = ["Asset", "AssetReadings", "Events", "Excerpt", "History", "HistoryError", "Part", "TableWriter"]
__all__ += ["UnreadableFileError", "column_names", "read_csv", "read_table", "write_table"]

_FILES_NAMED = 3  # of those that cannot be read, in a reason


class History:
    """A history folder, local or in object storage ("s3://bucket/pump-fleet"). Opening reads no readings."""

    @classmethod
    def open(cls, uri: str | Path, skip_unreadable: bool = False) -> History:
        """NotFound without such a folder, UsageError for an address that is none or holds a password. Later calls raise
        HistoryError where content is not that of a history.

        skip_unreadable: go on without files of readings that cannot be read; `lost` names the assets this costs.
        """
        history = cls(str(uri), skip_unreadable)
        if history._files.get_file_info(f"{history._root}/readings").type != pyarrow.fs.FileType.Directory:
            raise NotFound(
                f"no history at {uri}: expected a folder with readings/*.parquet and assets.parquet",
                "write one with `wheeltapper simulate` or `wheeltapper import`",
            )
        return history

    @classmethod
    def of(cls, excerpt: Excerpt) -> History:
        """The history as one of its excerpts knows it: nothing is scanned, and no other asset is there."""
        history = cls(excerpt.uri)
        history._assets = {asset.asset_id: asset for asset in excerpt.assets}
        history._parts = {part.asset_id: part for part in excerpt.parts}
        history._events = excerpt.events
        history._failed = {asset.asset_class: excerpt.failed for asset in excerpt.assets}
        return history

    def __init__(self, uri: str, skip_unreadable: bool = False) -> None:
        self._files, self._root = _place(uri)
        self.uri, self._skip = uri, skip_unreadable
        self._unreadable: dict[str, UnreadableFileError] = {}
        self._open: tuple[str, pq.ParquetFile] | None = None
        self._group: tuple[str, int, tuple[str, ...], pa.Table] | None = None

    @cached_property
    def _assets(self) -> dict[str, Asset]:
        table = self._table("assets.parquet", ("asset_id", "asset_class"))
        ids, classes = (strings_of(table, name, "assets.parquet") for name in ("asset_id", "asset_class"))
        names = [name for name in table.column_names if name not in ("asset_id", "asset_class")]
        columns = [floats_of(table, name, "assets.parquet", pa.float64()) for name in names]
        found = {
            asset_id: Asset(asset_id, asset_class, {n: float(c[row]) for n, c in zip(names, columns, strict=True)})
            for row, (asset_id, asset_class) in enumerate(zip(ids, classes, strict=True))
        }
        if len(found) != len(ids):
            twice = sorted({asset_id for asset_id in ids if ids.count(asset_id) > 1})
            raise HistoryError(f"assets.parquet of {self.uri} lists {twice[0]!r} more than once", "one row per asset")
        return dict(sorted(found.items()))

    @cached_property
    def _events(self) -> Events:
        if self._files.get_file_info(f"{self._root}/events.parquet").type == pyarrow.fs.FileType.NotFound:
            return Events.of_rows([])
        table = self._table("events.parquet", ("asset_id", "time", "kind", "code"))
        ids, kinds, codes = (strings_of(table, name, "events.parquet") for name in ("asset_id", "kind", "code"))
        unknown = sorted(set(ids) - self._assets.keys())
        if unknown:
            raise HistoryError(
                f"events.parquet of {self.uri} has asset {unknown[0]!r}, which assets.parquet does not list"
            )
        return Events.of_rows(list(zip(ids, times_of(table, "events.parquet").tolist(), kinds, codes, strict=True)))

    @cached_property
    def _event_rows(self) -> dict[str, slice]:
        """Asset → where its events stand. A bisection per asset would widen the whole column for every longer id."""
        ids = self._events.asset_ids
        starts = [0, *(np.flatnonzero(ids[1:] != ids[:-1]) + 1).tolist(), len(ids)]
        return {str(ids[begin]): slice(begin, end) for begin, end in pairwise(starts) if end > begin}

    @cached_property
    def _failed(self) -> dict[str, frozenset[str]]:
        found: dict[str, set[str]] = {name: set() for name in self.classes()}
        events = self._events
        rows = np.flatnonzero(events.kinds == "failure")
        for asset_id, code in zip(events.asset_ids[rows].tolist(), events.codes[rows].tolist(), strict=True):
            found[self._assets[asset_id].asset_class].add(code)
        return {name: frozenset(codes) for name, codes in found.items()}

    @cached_property
    def _parts(self) -> dict[str, Part]:
        found = {asset_id: Part(asset_id, asset.asset_class, "", (), 0) for asset_id, asset in self._assets.items()}
        for file in self.reading_files():
            try:
                scanned = list(scan(self._parquet(file), file))
            except UnreadableFileError as error:
                if not self._skip:
                    raise
                self._unreadable[file] = error
                continue
            for asset_id, groups in scanned:
                asset = self._assets.get(asset_id)
                if asset is None:
                    raise HistoryError(f"{file} has asset {asset_id!r}, which assets.parquet does not list")
                if found[asset_id].rows:
                    where = f"{file} holds rows of asset {asset_id!r}, and so does {found[asset_id].file}"
                    raise HistoryError(where, "sort by asset_id, then time; all rows of an asset belong in one file")
                found[asset_id] = Part(asset_id, asset.asset_class, file, tuple(groups), sum(g[2] for g in groups))
        return found

    def reading_files(self) -> list[str]:
        """The files with readings, relative to the history, sorted by name."""
        listed = self._files.get_file_info(pyarrow.fs.FileSelector(f"{self._root}/readings"))
        return [f"readings/{name}" for name in sorted(i.base_name for i in listed) if name.endswith(".parquet")]

    def assets(self) -> list[Asset]:
        """Every asset, sorted by id."""
        return list(self._assets.values())

    def asset_ids(self, asset_class: str | None = None) -> list[str]:
        return [a.asset_id for a in self._assets.values() if asset_class in (None, a.asset_class)]

    def classes(self) -> list[str]:
        return sorted({asset.asset_class for asset in self._assets.values()})

    def plan(self) -> list[Part]:
        """Where each asset's rows lie, sorted by asset; read from the footers, and from ids where those do not say."""
        return list(self._parts.values())

    def lost(self) -> Mapping[str, str]:
        """Asset → why it cannot be read: it is in no file that can be, and some cannot. Its file cannot say more."""
        missing = [part.asset_id for part in self.plan() if not part.rows]
        if not self._unreadable:  # their files hold no row of them, which is no fault
            return {}
        reason = "; ".join(str(error) for error in list(self._unreadable.values())[:_FILES_NAMED])
        more = len(self._unreadable) - _FILES_NAMED
        return dict.fromkeys(missing, f"in no readable file: {reason}" + (f"; and {more} more" if more > 0 else ""))

    def excerpt(self, asset_ids: Sequence[str]) -> Excerpt:
        """What a task needs to read these assets of one class, without a look at the others."""
        ordered = sorted(asset_ids)
        assets = tuple(self._assets[asset_id] for asset_id in ordered)
        parts = tuple(self._parts[asset_id] for asset_id in ordered)
        failed = self.failed_components(assets[0].asset_class) if assets else frozenset[str]()
        found = [self._event_rows.get(asset_id, slice(0, 0)) for asset_id in ordered]
        rows = np.concatenate([np.arange(one.start, one.stop) for one in found]) if found else slice(0, 0)
        return Excerpt(self.uri, assets, parts, self._events.take(rows), failed)

    def failed_components(self, asset_class: str) -> frozenset[str]:
        """The components that ever failed on any asset of a class."""
        return self._failed[asset_class]

    def sensors(self, asset_class: str) -> list[str]:
        """The sensor columns of a class. HistoryError where its files differ."""
        found: dict[str, list[str]] = {}
        for part in self._parts.values():
            if part.asset_class == asset_class and part.rows and part.file not in found:
                names = self._parquet(part.file).schema_arrow.names
                found[part.file] = [name for name in names if name not in KEYS]
        for file, names in found.items():
            first = next(iter(found))
            if set(names) != set(found[first]):
                raise HistoryError(
                    f"class {asset_class!r} has sensors {found[first]} in {first}, but {names} in {file}"
                )
        return next(iter(found.values()), [])

    def read(self, asset_ids: Sequence[str], sensors: Sequence[str]) -> Iterator[AssetReadings]:
        """Each asset's readings in the order asked for, columns in the order of `sensors`.

        Only the row groups and columns needed are read. KeyError for an unknown asset; HistoryError for a missing or
        non-numeric column, or times that fall.
        """
        for asset_id in asset_ids:
            part = self._parts[asset_id]
            pieces = [self._read_group(part.file, g, tuple(sensors)).slice(start, n) for g, start, n in part.groups]
            if not pieces:
                yield AssetReadings(asset_id, np.empty(0, np.int64), np.empty((0, len(sensors)), np.float32))
                continue
            table = pa.concat_tables(pieces)
            times = times_of(table, part.file)
            if (np.diff(times) < 0).any():
                wrong = f"{part.file} is not sorted: the times of asset {asset_id!r} fall"
                raise HistoryError(wrong, "sort the file by asset_id, then time")
            values = np.empty((len(times), len(sensors)), np.float32)
            for column, name in enumerate(sensors):
                values[:, column] = floats_of(table, name, part.file, pa.float32())
            yield AssetReadings(asset_id, times, values)

    def events(self, asset_ids: Sequence[str] | None = None) -> Events:
        return self._events if asset_ids is None else self._events.of_assets(asset_ids)

    def digest(self, asset_id: str) -> str:
        """Hex sha256 of one asset's readings, events and attributes: unchanged content, unchanged digest."""
        asset = self._assets[asset_id]
        sensors = self.sensors(asset.asset_class)
        return content_digest(asset, sensors, next(self.read([asset_id], sensors)), self._events.of_asset(asset_id))

    def span(self) -> tuple[int, int]:
        """The first and the last time of all readings in µs; HistoryError where there are none."""
        files = dict.fromkeys(part.file for part in self.plan() if part.rows)
        found = [time for file in files for time in span_of(self._parquet(file), file)]
        if not found:
            raise HistoryError(f"the history {self.uri} has no readings")
        return min(found), max(found)

    def _read_group(self, file: str, group: int, sensors: tuple[str, ...]) -> pa.Table:
        if self._group is None or self._group[:3] != (file, group, sensors):
            parquet = self._parquet(file)
            require(parquet.schema_arrow.names, ("time", *sensors), file)
            columns = ["time", *dict.fromkeys(sensors)]
            table = parquet_errors(file, lambda: parquet.read_row_group(group, columns=columns))
            self._group = (file, group, sensors, table)
        return self._group[3]

    def _parquet(self, file: str) -> pq.ParquetFile:
        if self._open is None or self._open[0] != file:
            self._open = (
                file,
                parquet_errors(file, lambda: pq.ParquetFile(self._files.open_input_file(f"{self._root}/{file}"))),
            )
        return self._open[1]

    def _table(self, file: str, columns: tuple[str, ...]) -> pa.Table:
        if self._files.get_file_info(f"{self._root}/{file}").type != pyarrow.fs.FileType.File:
            raise NotFound(f"the history {self.uri} has no {file}: expected columns {list(columns)}")
        table = parquet_errors(file, lambda: pq.read_table(f"{self._root}/{file}", filesystem=self._files))
        require(table.column_names, columns, file)
        return table


def _place(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """The files of a history, and its folder among them. An address goes into errors, reports and lists of processes,
    so none is taken with a password in it. Raises UsageError."""
    if "://" not in uri:
        return pyarrow.fs.LocalFileSystem(), str(Path(uri).absolute())
    scheme, _, rest = uri.partition("://")
    if ":" in rest.partition("/")[0].rpartition("@")[0]:
        raise UsageError(
            f"expected a history's address without a name and password, found one of {scheme}:// with them",
            "put them where the store's own tools look, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    try:
        files, root = pyarrow.fs.FileSystem.from_uri(uri)
    except pa.ArrowInvalid as error:
        found = "one that cannot be read" if "@" in uri else str(error)  # which repeats the address
        raise UsageError(f"expected a history's address such as s3://bucket/fleet, found {found}") from None
    return files, root
