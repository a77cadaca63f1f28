"""Tables at rest, Parquet or CSV, as plain arrays; and the reading of one column, whatever its writer made of it."""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray
from wheeltapper.errors import NotFound

from wheeltapper_trainer.records import HistoryError, Times

_TIME = pa.timestamp("us", tz="UTC")
_GROUP_ROWS_MAX = 65_536  # a larger piece is cut here
_ZONED = re.compile(r"(Z|[+-]\d\d:?\d\d)$")
_AMERICAN = ("%m/%d/%Y %I:%M:%S %p", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y")


class UnreadableFileError(HistoryError):
    """A file that is no whole Parquet file: truncated, overwritten, or of something else."""


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
        self._open(table.schema).write_table(table, row_group_size=_GROUP_ROWS_MAX)

    def append(self, *paths: str | Path) -> None:
        """Append the rows of tables that TableWriters wrote: of one, row group by row group; of several, as if they had
        been written together."""
        with contextlib.ExitStack() as opened:
            files = [opened.enter_context(pq.ParquetFile(path)) for path in paths]
            if len(files) == 1:
                for group in range(files[0].num_row_groups):
                    rows = files[0].read_row_group(group)
                    self._open(rows.schema).write_table(rows)
            elif files:
                rows = pa.concat_tables([file.read() for file in files]).combine_chunks()
                self._open(rows.schema).write_table(rows, row_group_size=_GROUP_ROWS_MAX)

    def _open(self, schema: pa.Schema) -> pq.ParquetWriter:
        if self._writer is None:
            words = [field.name for field in schema if pa.types.is_string(field.type)]
            self._writer = pq.ParquetWriter(self._partial, schema, compression="zstd", use_dictionary=words)
        return self._writer

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
    table = parquet_errors(str(path), lambda: pq.ParquetFile(path).read(columns))
    require(table.column_names, columns or (), str(path))
    return {name: _numpy(table[name]) for name in columns or table.column_names}


def column_names(path: str | Path) -> list[str]:
    """The columns of a Parquet table."""
    return list(parquet_errors(str(path), lambda: pq.read_schema(path).names))


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
    require(header, [*words, *times], str(path))
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


def strings_of(table: pa.Table, name: str, file: str) -> list[str]:
    column = table[name]
    if not _is_words(column.type) or column.null_count:
        raise HistoryError(f"{file}: column {name!r} must be text without nulls, found {column.type}")
    return [str(word) for word in column.to_pylist()]


def _is_words(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def times_of(table: pa.Table, file: str) -> Times:
    """int64[n] µs of the column `time`, whatever its unit and zone; finer units are cut to whole µs."""
    column = table["time"]
    if not (pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)) or column.null_count:
        found = f"{column.type} with {column.null_count} nulls"
        hint = "convert numbers to timestamps before: their unit would be a guess"
        raise HistoryError(f"{file}: column 'time' must be a timestamp without nulls, found {found}", hint)
    stamps = pc.cast(column, pa.timestamp("us", getattr(column.type, "tz", None)), safe=False)
    return np.ascontiguousarray(stamps.cast(pa.int64()).to_numpy(), np.int64)


def floats_of(table: pa.Table, name: str, file: str, kind: pa.DataType) -> NDArray[Any]:
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


def require(found: Sequence[str], expected: Sequence[str], file: str) -> None:
    missing = [name for name in expected if name not in found]
    if missing:
        raise HistoryError(f"{file} has no column {missing[0]!r}: expected {list(expected)}, found {list(found)}")


def parquet_errors(file: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (pa.ArrowException, OSError) as error:
        raise UnreadableFileError(
            f"{file} cannot be read as Parquet: {error}", "is it whole? write it again"
        ) from error


def _arrow(column: NDArray[Any]) -> pa.Array:
    return pa.array(column).cast(_TIME) if column.dtype.kind == "M" else pa.array(column)


def _numpy(column: pa.ChunkedArray) -> NDArray[Any]:
    if _is_words(column.type):
        return np.array(column.to_pylist(), np.str_)
    if pa.types.is_timestamp(column.type):
        return np.asarray(pc.cast(column, pa.timestamp("us"), safe=False).to_numpy(), "M8[us]")
    return np.asarray(column.to_numpy())
