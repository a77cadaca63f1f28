"""Where each asset's rows lie in a file: read from its footer, and from its ids where that does not say."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wheeltapper_trainer.history_tables import parquet_errors, require, times_of
from wheeltapper_trainer.records import HistoryError, Run

KEYS = ("asset_id", "time")


def scan(parquet: pq.ParquetFile, file: str) -> Iterator[tuple[str, list[Run]]]:
    """Each asset of a file with its row groups; HistoryError where ids fall or a column is not what it must be."""
    require(parquet.schema_arrow.names, KEYS, file)
    column = parquet.schema_arrow.get_field_index("asset_id")
    last, groups = "", list[Run]()
    for group in range(parquet.num_row_groups):
        rows = parquet.metadata.row_group(group).num_rows
        statistics = parquet.metadata.row_group(group).column(column).statistics
        if statistics is not None and statistics.has_min_max and statistics.min == statistics.max:
            runs = [(str(statistics.min), 0, rows)] if not statistics.null_count else []
        else:
            runs = []
        for asset_id, start, count in runs or _runs(_column(parquet, group, "asset_id", file), file):
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


def span_of(parquet: pq.ParquetFile, file: str) -> list[int]:
    """First and last time of each row group, in µs; from the footer where its unit is µs."""
    column = parquet.schema_arrow.get_field_index("time")
    exact = parquet.schema.column(column).logical_type.to_json().find('"microseconds"') >= 0
    found: list[int] = []
    for group in range(parquet.num_row_groups):
        statistics = parquet.metadata.row_group(group).column(column).statistics
        if exact and statistics is not None and statistics.has_min_max:
            found += [statistics.min_raw, statistics.max_raw]
        elif parquet.metadata.row_group(group).num_rows:
            times = times_of(_column(parquet, group, "time", file), file)
            found += [int(times.min()), int(times.max())]
    return found


def _column(parquet: pq.ParquetFile, group: int, name: str, file: str) -> pa.Table:
    table: pa.Table = parquet_errors(file, lambda: parquet.read_row_group(group, columns=[name]))
    return table


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
