"""A history at rest: Parquet files that a worker reads asset by asset. The trainer's only importer of pyarrow.

    readings/*.parquet   asset_id, time [µs, UTC], one float32 column per sensor; sorted by asset_id, then time
    events.parquet       asset_id, time, kind, code            (absent: no events)
    assets.parquet       asset_id, asset_class, one number per static attribute

All rows of an asset lie in one file. Files of other writers are taken as they are: any timestamp unit or zone, any
number type, nulls as NaN; what would have to be guessed is refused.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.fs
import pyarrow.parquet as pq
from numpy.typing import NDArray
from wheeltapper.errors import NotFound

from wheeltapper_trainer.records import Asset, AssetReadings, Events, HistoryError, Times, content_digest

__all__ = ["Asset", "AssetReadings", "Events", "History", "HistoryError", "Part", "TableWriter", "column_names"]
__all__ += ["read_csv", "read_table", "write_table"]

_TIME = pa.timestamp("us", tz="UTC")
_KEYS = ("asset_id", "time")
_GROUP_ROWS_MAX = 65_536  # a larger piece is cut here
_ZONED = re.compile(r"(Z|[+-]\d\d:?\d\d)$")
_AMERICAN = ("%m/%d/%Y %I:%M:%S %p", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y")


@dataclass(frozen=True, slots=True)
class Part:
    """Where one asset's rows lie: file, and (row group, first row in it, rows) for each row group it touches."""

    asset_id: str
    asset_class: str
    file: str
    groups: tuple[tuple[int, int, int], ...]
    rows: int


class History:
    """A history folder, local or in object storage ("s3://bucket/pump-fleet"). Opening reads no readings."""

    @classmethod
    def open(cls, uri: str | Path) -> History:
        """NotFound without such a folder. Later calls raise HistoryError where content is not that of a history."""
        if "://" in str(uri):
            files, root = pyarrow.fs.FileSystem.from_uri(str(uri))
        else:
            files, root = pyarrow.fs.LocalFileSystem(), str(Path(uri).absolute())
        if files.get_file_info(f"{root}/readings").type != pyarrow.fs.FileType.Directory:
            raise NotFound(
                f"no history at {uri}: expected a folder with readings/*.parquet and assets.parquet",
                "write one with `wheeltapper simulate` or `wheeltapper import`",
            )
        return cls(str(uri), files, root)

    def __init__(self, uri: str, files: pyarrow.fs.FileSystem, root: str) -> None:
        self.uri, self._files, self._root = uri, files, root
        self._open: tuple[str, pq.ParquetFile] | None = None
        self._group: tuple[str, int, tuple[str, ...], pa.Table] | None = None

    @cached_property
    def _assets(self) -> dict[str, Asset]:
        table = self._table("assets.parquet", ("asset_id", "asset_class"))
        ids, classes = (_strings(table, name, "assets.parquet") for name in ("asset_id", "asset_class"))
        names = [name for name in table.column_names if name not in ("asset_id", "asset_class")]
        columns = [_floats(table, name, "assets.parquet", pa.float64()) for name in names]
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
        ids, kinds, codes = (_strings(table, name, "events.parquet") for name in ("asset_id", "kind", "code"))
        unknown = sorted(set(ids) - self._assets.keys())
        if unknown:
            raise HistoryError(
                f"events.parquet of {self.uri} has asset {unknown[0]!r}, which assets.parquet does not list"
            )
        return Events.of_rows(list(zip(ids, _times(table, "events.parquet").tolist(), kinds, codes, strict=True)))

    @cached_property
    def _parts(self) -> dict[str, Part]:
        found = {asset_id: Part(asset_id, asset.asset_class, "", (), 0) for asset_id, asset in self._assets.items()}
        for file in self.reading_files():
            for asset_id, groups in self._scan(file):
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

    def sensors(self, asset_class: str) -> list[str]:
        """The sensor columns of a class. HistoryError where its files differ."""
        found: dict[str, list[str]] = {}
        for part in self._parts.values():
            if part.asset_class == asset_class and part.rows and part.file not in found:
                names = self._parquet(part.file).schema_arrow.names
                found[part.file] = [name for name in names if name not in _KEYS]
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
            times = _times(table, part.file)
            if (np.diff(times) < 0).any():
                wrong = f"{part.file} is not sorted: the times of asset {asset_id!r} fall"
                raise HistoryError(wrong, "sort the file by asset_id, then time")
            values = np.empty((len(times), len(sensors)), np.float32)
            for column, name in enumerate(sensors):
                values[:, column] = _floats(table, name, part.file, pa.float32())
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
        found: list[int] = []
        for file in self.reading_files():
            parquet = self._parquet(file)
            column = parquet.schema_arrow.get_field_index("time")
            exact = parquet.schema.column(column).logical_type.to_json().find('"microseconds"') >= 0
            for group in range(parquet.num_row_groups):
                statistics = parquet.metadata.row_group(group).column(column).statistics
                if exact and statistics is not None and statistics.has_min_max:
                    found += [statistics.min_raw, statistics.max_raw]
                elif parquet.metadata.row_group(group).num_rows:
                    times = _times(parquet.read_row_group(group, columns=["time"]), file)
                    found += [int(times.min()), int(times.max())]
        if not found:
            raise HistoryError(f"the history {self.uri} has no readings")
        return min(found), max(found)

    def _scan(self, file: str) -> Iterator[tuple[str, list[tuple[int, int, int]]]]:
        """Each asset of a file with its row groups; HistoryError where ids fall or a column is not what it must be."""
        parquet = self._parquet(file)
        _require(parquet.schema_arrow.names, _KEYS, file)
        column = parquet.schema_arrow.get_field_index("asset_id")
        last, groups = "", list[tuple[int, int, int]]()
        for group in range(parquet.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            statistics = parquet.metadata.row_group(group).column(column).statistics
            if statistics is not None and statistics.has_min_max and statistics.min == statistics.max:
                runs = [(str(statistics.min), 0, rows)] if not statistics.null_count else []
            else:
                runs = []
            for asset_id, start, count in runs or _runs(parquet.read_row_group(group, columns=["asset_id"]), file):
                if groups and asset_id != last:
                    yield last, groups
                    groups = []
                if asset_id < last:
                    wrong = f"{file} is not sorted: asset {asset_id!r} follows {last!r}"
                    raise HistoryError(wrong, "sort the file by asset_id, then time")
                last = asset_id
                groups.append((group, start, count))
        if groups:
            yield last, groups

    def _read_group(self, file: str, group: int, sensors: tuple[str, ...]) -> pa.Table:
        if self._group is None or self._group[:3] != (file, group, sensors):
            parquet = self._parquet(file)
            _require(parquet.schema_arrow.names, ("time", *sensors), file)
            columns = ["time", *dict.fromkeys(sensors)]
            table = _parquet_errors(file, lambda: parquet.read_row_group(group, columns=columns))
            self._group = (file, group, sensors, table)
        return self._group[3]

    def _parquet(self, file: str) -> pq.ParquetFile:
        if self._open is None or self._open[0] != file:
            self._open = (
                file,
                _parquet_errors(file, lambda: pq.ParquetFile(self._files.open_input_file(f"{self._root}/{file}"))),
            )
        return self._open[1]

    def _table(self, file: str, columns: tuple[str, ...]) -> pa.Table:
        if self._files.get_file_info(f"{self._root}/{file}").type != pyarrow.fs.FileType.File:
            raise NotFound(f"the history {self.uri} has no {file}: expected columns {list(columns)}")
        table = _parquet_errors(file, lambda: pq.read_table(f"{self._root}/{file}", filesystem=self._files))
        _require(table.column_names, columns, file)
        return table


class TableWriter:
    """A Parquet table written piece by piece, each its own row groups; whole on a clean exit, or not there at all."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._partial = self._path.with_name(f".{self._path.name}.partial")
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> TableWriter:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def write(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Append rows: str, number, bool and datetime64[us] (UTC) columns, the same names and types at every call."""
        table = pa.table({name: _arrow(column) for name, column in columns.items()})
        if self._writer is None:
            words = [field.name for field in table.schema if pa.types.is_string(field.type)]
            self._writer = pq.ParquetWriter(self._partial, table.schema, compression="zstd", use_dictionary=words)
        self._writer.write_table(table, row_group_size=_GROUP_ROWS_MAX)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()
            if kind is None:
                self._partial.replace(self._path)
        if kind is not None:
            self._partial.unlink(missing_ok=True)


def write_table(path: str | Path, columns: Mapping[str, NDArray[Any]]) -> None:
    """One Parquet table from named arrays of one length; see TableWriter."""
    with TableWriter(path) as writer:
        writer.write(columns)


def read_table(path: str | Path, columns: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
    """Named arrays of a Parquet table: words as str, times as datetime64[us], numbers as they are."""
    if not Path(path).is_file():
        raise NotFound(f"no table at {path}")
    table = _parquet_errors(str(path), lambda: pq.ParquetFile(path).read(columns))
    _require(table.column_names, columns or (), str(path))
    return {name: _numpy(table[name]) for name in columns or table.column_names}


def column_names(path: str | Path) -> list[str]:
    """The columns of a Parquet table."""
    return list(_parquet_errors(str(path), lambda: pq.read_schema(path).names))


def read_csv(
    path: Path, words: Sequence[str] = (), times: Sequence[str] = (), delimiter: str = ","
) -> dict[str, NDArray[Any]]:
    """Named columns of a CSV with a header: `words` as str, `times` (ISO 8601 or 1/31/2015 6:00 AM; UTC where no zone
    is said) as datetime64[us], the rest as float32, empty as NaN. HistoryError names file, column and row."""
    if not path.is_file():
        raise NotFound(f"no file {path}")
    with path.open(encoding="utf-8-sig", newline="") as lines:
        rows = csv.reader(lines, delimiter=delimiter)
        header, first = next(rows, []), next(rows, [])
    _require(header, [*words, *times], str(path))
    types = dict.fromkeys(header, pa.float32()) | dict.fromkeys(words, pa.string())
    for name, value in zip(header, first, strict=False):
        if name in times:
            types[name] = _TIME if _ZONED.search(value) else pa.timestamp("us")
    convert = pyarrow.csv.ConvertOptions(column_types=types, timestamp_parsers=[pyarrow.csv.ISO8601, *_AMERICAN])
    try:
        # One thread, because only then does an error say in which row it is.
        read = pyarrow.csv.ReadOptions(use_threads=False)
        table = pyarrow.csv.read_csv(path, read, pyarrow.csv.ParseOptions(delimiter=delimiter), convert)
    except pa.ArrowInvalid as error:
        column = re.search(r"column #(\d+)", str(error))
        where = f"{path}, column {header[int(column[1])]!r}" if column and int(column[1]) < len(header) else str(path)
        raise HistoryError(f"{where}: {error}", "the row counts from 1 with the header") from error
    return {name: _numpy(table[name]) for name in header}


def _runs(table: pa.Table, file: str) -> list[tuple[str, int, int]]:
    """(asset id, first row, rows) of each run of equal ids in a row group."""
    ids = table["asset_id"].combine_chunks().dictionary_encode() if table.num_rows else None
    if ids is None:
        return []
    if ids.null_count:
        raise HistoryError(f"{file} has rows without asset_id")
    codes = ids.indices.to_numpy()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(codes)) + 1])
    counts = np.diff(np.append(starts, len(codes)))
    names = ids.dictionary.to_pylist()
    return [(names[codes[start]], int(start), int(count)) for start, count in zip(starts, counts, strict=True)]


def _strings(table: pa.Table, name: str, file: str) -> list[str]:
    column = table[name]
    if not _is_words(column.type) or column.null_count:
        raise HistoryError(f"{file}: column {name!r} must be text without nulls, found {column.type}")
    return [str(word) for word in column.to_pylist()]


def _is_words(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _times(table: pa.Table, file: str) -> Times:
    """int64[n] µs of the column `time`, whatever its unit and zone; finer units are cut to whole µs."""
    column = table["time"]
    if not (pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)) or column.null_count:
        found = f"{column.type} with {column.null_count} nulls"
        hint = "convert numbers to timestamps before: their unit would be a guess"
        raise HistoryError(f"{file}: column 'time' must be a timestamp without nulls, found {found}", hint)
    stamps = pc.cast(column, pa.timestamp("us", getattr(column.type, "tz", None)), safe=False)
    return np.ascontiguousarray(stamps.cast(pa.int64()).to_numpy(), np.int64)


def _floats(table: pa.Table, name: str, file: str, kind: pa.DataType) -> NDArray[Any]:
    """One column as `kind`, rounded where it was wider, null as NaN."""
    column = table[name]
    found = column.type
    if pa.types.is_boolean(found):
        column = column.cast(pa.uint8())
    elif not (pa.types.is_floating(found) or pa.types.is_integer(found) or pa.types.is_decimal(found)):
        raise HistoryError(
            f"{file}: column {name!r} must be numeric, found {found}", "sensors and attributes are numbers"
        )
    return np.asarray(pc.cast(column, kind, safe=False).to_numpy())


def _require(found: Sequence[str], expected: Sequence[str], file: str) -> None:
    missing = [name for name in expected if name not in found]
    if missing:
        raise HistoryError(f"{file} has no column {missing[0]!r}: expected {list(expected)}, found {list(found)}")


def _parquet_errors(file: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (pa.ArrowException, OSError) as error:
        raise HistoryError(f"{file} cannot be read as Parquet: {error}", "is it whole? write it again") from error


def _arrow(column: NDArray[Any]) -> pa.Array:
    return pa.array(column).cast(_TIME) if column.dtype.kind == "M" else pa.array(column)


def _numpy(column: pa.ChunkedArray) -> NDArray[Any]:
    if _is_words(column.type):
        return np.array(column.to_pylist(), np.str_)
    if pa.types.is_timestamp(column.type):
        return np.asarray(pc.cast(column, pa.timestamp("us"), safe=False).to_numpy(), "M8[us]")
    return np.asarray(column.to_numpy())
