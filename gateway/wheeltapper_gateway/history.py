"""Histories and answers in Parquet: the gateway's only importer of pyarrow, installed with the extra [replay].

An asset's rows lie together, so time order across assets needs a second pass: the first deals rows into buckets of
time, in temporary files where the history is larger than one bucket; the second sorts one bucket at a time.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pf
import pyarrow.parquet as pq
from wheeltapper_command.errors import NotFound, UsageError

from wheeltapper_gateway.rows import Event, HistoryClass, Rows

BUCKET_ROWS = 2_000_000  # readings in memory at a time, about 0.2 GB of 16 sensors, twice that while sorting
_BATCH_ROWS = 1 << 16
_BUCKETS_MAX = 512  # temporary files open at a time
_SAMPLE_STRIDE = 64
_TIME = pa.timestamp("us", tz="UTC")


class ParquetHistory:
    """A `HistorySource` of Parquet files; `path` is a folder or an object store's URI."""

    def __init__(self, path: str) -> None:
        self._files, self._root = pf.FileSystem.from_uri(path if "://" in path else Path(path).resolve().as_uri())
        selected = self._files.get_file_info(pf.FileSelector(f"{self._root}/readings", allow_not_found=True))
        self._readings = sorted(info.path for info in selected if info.path.endswith(".parquet"))
        if not self._readings:
            raise NotFound(f"expected {path}/readings/*.parquet, found none")
        table = self._table("assets", ("asset_id", "asset_class"))
        class_of = dict(zip(table["asset_id"].to_pylist(), table["asset_class"].to_pylist(), strict=True))
        columns: dict[str, dict[str, None]] = {}
        seen: dict[str, set[str]] = {}
        first, last = [], []
        self._sample: list[int] = []
        for file in self._readings:
            present, times, sensors = self._survey(file)
            strangers = [asset for asset in present if asset not in class_of]
            if strangers:
                raise UsageError(
                    f"expected every asset of {file} in assets.parquet, found {strangers[0]!r} without a row"
                )
            for asset in present:
                columns.setdefault(class_of[asset], {}).update(dict.fromkeys(sensors))
                seen.setdefault(class_of[asset], set()).add(asset)
            if len(times):
                first.append(pc.min(times).as_py())
                last.append(pc.max(times).as_py())
                self._sample += times.take(pa.array(range(0, len(times), _SAMPLE_STRIDE))).to_pylist()
        self._span = (min(first, default=0), max(last, default=0))
        statics = _statics(table)
        self.classes = tuple(
            HistoryClass(name, tuple(columns[name]), tuple(sorted(ids)), {asset: statics[asset] for asset in ids})
            for name, ids in sorted(seen.items())
        )

    def events(self) -> list[Event]:
        if self._files.get_file_info(f"{self._root}/events.parquet").type == pf.FileType.NotFound:
            return []
        table = self._table("events", ("asset_id", "time", "kind", "code"))
        rows = zip(*(column.to_pylist() for column in self._event_columns(table)), strict=True)
        return sorted(Event(time, asset, f"{kind}:{code}") for time, asset, kind, code in rows)

    def span_us(self) -> tuple[int, int]:
        return self._span

    def count(self, begin_us: int, end_us: int) -> int:
        total = 0
        for file in self._readings:
            times = _microseconds(self._open(file).read(columns=["time"])["time"])
            inside = pc.and_(pc.greater_equal(times, begin_us), pc.less(times, end_us))
            total += pc.sum(inside).as_py() or 0
        return total

    def slices(self, begin_us: int, sensors: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Rows]]:
        borders = self._borders(begin_us)
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="wheeltapper-")) if borders else None
            buckets: dict[str, list[_Bucket]] = {}
            for own in self.classes:
                schema = _schema(sensors[own.name])
                buckets[own.name] = [
                    _Bucket(schema, Path(folder) / f"{len(buckets)}-{i}.arrow" if folder else None)
                    for i in range(len(borders) + 1)
                ]
                self._deal(own, sensors[own.name], begin_us, borders, buckets[own.name])
            for i in range(len(borders) + 1):
                slices = {name: _rows(own[i].take(), sensors[name]) for name, own in buckets.items()}
                yield {name: rows for name, rows in slices.items() if len(rows)}

    def _deal(
        self,
        own: HistoryClass,
        sensors: Sequence[str],
        begin_us: int,
        borders: Sequence[int],
        buckets: Sequence[_Bucket],
    ) -> None:
        """One pass over the files: rows of the class into their buckets of time."""
        ids, schema = pa.array(own.asset_ids), _schema(sensors)
        for path in self._readings:
            file = self._open(path)
            present = [name for name in sensors if name in file.schema_arrow.names]
            for batch in file.iter_batches(_BATCH_ROWS, columns=["asset_id", "time", *present]):
                number = pc.index_in(batch["asset_id"].cast(pa.string()), value_set=ids)
                time = _microseconds(batch["time"])
                columns = [number, time, *(_floats(batch, name) for name in sensors)]
                table = pa.Table.from_arrays(columns, schema=schema)
                table = table.filter(pc.and_(pc.is_valid(number), pc.greater_equal(time, begin_us)))
                for i, bucket in enumerate(buckets):
                    inside = pc.scalar(True)
                    if i > 0:
                        inside = pc.field("time") >= borders[i - 1]
                    if i < len(borders):
                        inside &= pc.field("time") < borders[i]
                    bucket.add(table.filter(inside) if borders else table)
        for bucket in buckets:
            bucket.close()

    def _borders(self, begin_us: int) -> list[int]:
        """Times that cut the readings into pieces of about BUCKET_ROWS, from a sample of the times."""
        sample = sorted(time for time in self._sample if time >= begin_us)
        step = max(BUCKET_ROWS // _SAMPLE_STRIDE, len(sample) // _BUCKETS_MAX, 1)
        return sorted({sample[i] for i in range(step, len(sample), step)})

    def _survey(self, file: str) -> tuple[list[str], Any, list[str]]:
        """The assets, the times and the sensor columns of a file."""
        schema = self._open(file).schema_arrow
        for name in ("asset_id", "time"):
            if name not in schema.names:
                raise UsageError(f"{file}: expected a column {name}, found {', '.join(schema.names)}")
        table = self._open(file, read_dictionary=["asset_id"]).read(columns=["asset_id", "time"])
        sensors = [name for name in schema.names if name not in ("asset_id", "time")]
        return pc.unique(table["asset_id"].cast(pa.string())).to_pylist(), _microseconds(table["time"]), sensors

    def _event_columns(self, table: Any) -> list[Any]:
        return [_microseconds(table["time"]), *(table[name].cast(pa.string()) for name in ("asset_id", "kind", "code"))]

    def _open(self, file: str, **options: Any) -> Any:
        return pq.ParquetFile(self._files.open_input_file(file), **options)

    def _table(self, name: str, expected: Sequence[str]) -> Any:
        path = f"{self._root}/{name}.parquet"
        if self._files.get_file_info(path).type == pf.FileType.NotFound:
            raise NotFound(f"expected {path}, found no such file")
        table = self._open(path).read()
        for column in expected:
            if column not in table.column_names:
                raise UsageError(f"{path}: expected a column {column}, found {', '.join(table.column_names)}")
        return table


class _Bucket:
    """Rows of one span of time: in memory, or in an Arrow file where a path is given."""

    def __init__(self, schema: Any, path: Path | None) -> None:
        self._schema, self._path = schema, path
        self._tables: list[Any] = []
        self._writer: Any = None

    def add(self, table: Any) -> None:
        if self._path is None:
            self._tables.append(table)
        elif table.num_rows:
            if self._writer is None:
                self._writer = pa.ipc.new_file(str(self._path), self._schema)
            self._writer.write_table(table)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def take(self) -> Any:
        """All rows, once."""
        if self._writer is not None and self._path is not None:
            with pa.OSFile(str(self._path)) as source:
                table = pa.ipc.open_file(source).read_all()
            self._path.unlink()
            return table
        tables, self._tables = self._tables, []
        return pa.concat_tables(tables) if tables else self._schema.empty_table()


def write_parquet(path: Path, columns: Mapping[str, array[Any] | Sequence[str]]) -> None:
    """Columns as a Parquet file: `time` as a timestamp, arrays in their own width, lists as strings."""
    kinds = {"q": pa.int64(), "f": pa.float32(), "B": pa.uint8(), "I": pa.uint32(), "Q": pa.uint64()}
    arrays = []
    for name, column in columns.items():
        if isinstance(column, array):
            kind = _TIME if name == "time" else kinds[column.typecode]
            arrays.append(pa.Array.from_buffers(kind, len(column), [None, pa.py_buffer(column)]))
        else:
            arrays.append(pa.array(column, pa.string()))
    pq.write_table(pa.Table.from_arrays(arrays, names=list(columns)), path)


def _schema(sensors: Sequence[str]) -> Any:
    # Sensor columns by position: a sensor may be called anything, "time" included.
    fields = [(f"sensor {i}", pa.float32()) for i in range(len(sensors))]
    return pa.schema([("number", pa.int32()), ("time", pa.int64()), *fields])


def _rows(table: Any, sensors: Sequence[str]) -> Rows:
    """A table as columns in the order of time, then of asset."""
    table = table.take(pc.sort_indices(table, [("time", "ascending"), ("number", "ascending")])).combine_chunks()
    width = len(sensors)
    values = array("f", bytes(4 * len(table) * width))
    for i in range(width):
        values[i::width] = _column("f", table.column(i + 2))
    times = _column("q", table.column(1))
    return Rows(_column("I", table.column(0)), times, values, times)


def _column(code: str, chunked: Any) -> array[Any]:
    """An Arrow column without nulls as an array of 4- or 8-byte items."""
    column = array(code)
    for chunk in chunked.chunks:
        begin = chunk.offset * column.itemsize
        column.frombytes(memoryview(chunk.buffers()[1])[begin : begin + len(chunk) * column.itemsize])
    return column


def _microseconds(column: Any) -> Any:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", tz=column.type.tz), safe=False)
    if not (pa.types.is_timestamp(column.type) or pa.types.is_integer(column.type)):
        raise UsageError(f"time: expected a timestamp or whole microseconds, found {column.type}")
    return column.cast(pa.int64())


def _floats(batch: Any, name: str) -> Any:
    """A sensor as float32 without nulls: what is missing is NaN."""
    if name not in batch.schema.names:
        return pa.array([float("nan")], pa.float32()).take(pa.array([0] * batch.num_rows))
    column = batch[name]
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_boolean(column.type)):
        raise UsageError(f"sensor {name}: expected numbers, found {column.type}")
    return pc.fill_null(column.cast(pa.float32(), safe=False), float("nan"))


def _statics(table: Any) -> dict[str, dict[str, float]]:
    """The attributes that are numbers, by asset."""
    kinds = (pa.types.is_floating, pa.types.is_integer, pa.types.is_boolean)
    names = [name for name in table.column_names if any(test(table[name].type) for test in kinds)]
    columns = [table[name].to_pylist() for name in names]
    return {
        asset: {name: float(column[i]) for name, column in zip(names, columns, strict=True) if column[i] is not None}
        for i, asset in enumerate(table["asset_id"].to_pylist())
    }
