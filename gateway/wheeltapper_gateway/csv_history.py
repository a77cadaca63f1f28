"""A history in plain CSV, read with the standard library only: readings/*.csv, assets.csv, events.csv.

The whole of it is held in memory as compact columns (4 bytes a value, 12 a row, and as much again while sorting); a
history too large for that belongs in Parquet.
"""

from __future__ import annotations

import csv
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from wheeltapper_command.errors import NotFound, UsageError

from wheeltapper_gateway.rows import Event, HistoryClass, Rows, parse_time


class CsvHistory:
    """A `HistorySource` of CSV files with a header. An empty cell is a missing value."""

    def __init__(self, path: Path) -> None:
        self._path = path
        files = sorted(path.glob("readings/*.csv"))
        if not files:
            raise NotFound(f"expected {path}/readings/*.parquet or *.csv, found neither")
        class_of, statics = self._assets()
        columns: dict[str, dict[str, None]] = {}
        seen: dict[str, set[str]] = {}
        rows: dict[str, list[tuple[int, str, dict[str, float]]]] = {}
        for file in files:
            for place, row in _read(file, ("asset_id", "time")):
                asset, time = row.pop("asset_id"), parse_time(row.pop("time"))
                if asset not in class_of:
                    raise UsageError(f"{place}: expected an asset of assets.csv, found {asset!r}")
                own = class_of[asset]
                columns.setdefault(own, {}).update(dict.fromkeys(row))
                seen.setdefault(own, set()).add(asset)
                cells = {name: _number(cell, name, place) for name, cell in row.items() if cell}
                rows.setdefault(own, []).append((time, asset, cells))
        self.classes = tuple(
            HistoryClass(name, tuple(columns[name]), tuple(sorted(ids)), {asset: statics[asset] for asset in ids})
            for name, ids in sorted(seen.items())
        )
        self._rows = {own.name: self._columns(own, rows.pop(own.name)) for own in self.classes}

    def events(self) -> list[Event]:
        file = self._path / "events.csv"
        if not file.exists():
            return []
        rows = _read(file, ("asset_id", "time", "kind", "code"))
        return sorted(
            Event(parse_time(row["time"]), row["asset_id"], f"{row['kind']}:{row['code']}") for _, row in rows
        )

    def span_us(self) -> tuple[int, int]:
        times = [rows.times for rows in self._rows.values()]
        return min((column[0] for column in times), default=0), max((column[-1] for column in times), default=0)

    def count(self, begin_us: int, end_us: int) -> int:
        return sum(bisect_left(r.times, end_us) - bisect_left(r.times, begin_us) for r in self._rows.values())

    def slices(self, begin_us: int, sensors: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Rows]]:
        slices = {}
        for own in self.classes:
            rows, width, asked = self._rows[own.name], len(own.sensors), sensors[own.name]
            begin = bisect_left(rows.times, begin_us)
            times = rows.times[begin:]
            values = array("f", [float("nan")]) * (len(times) * len(asked))
            for i, name in enumerate(asked):
                if name in own.sensors:
                    values[i :: len(asked)] = rows.values[begin * width + own.sensors.index(name) :: width]
            if times:
                slices[own.name] = Rows(rows.assets[begin:], times, values, times)
        if slices:
            yield slices

    def _assets(self) -> tuple[dict[str, str], dict[str, dict[str, float]]]:
        file = self._path / "assets.csv"
        if not file.exists():
            raise NotFound(f"expected {file}, found no such file")
        class_of, statics = {}, {}
        for _, row in _read(file, ("asset_id", "asset_class")):
            asset = row.pop("asset_id")
            class_of[asset] = row.pop("asset_class")
            statics[asset] = {name: float(cell) for name, cell in row.items() if _is_number(cell)}
        return class_of, statics

    def _columns(self, own: HistoryClass, rows: list[tuple[int, str, dict[str, float]]]) -> Rows:
        rows.sort(key=lambda row: row[:2])
        number = {asset: i for i, asset in enumerate(own.asset_ids)}
        times = array("q", [time for time, _, _ in rows])
        missing = float("nan")
        values = array("f", [cells.get(name, missing) for _, _, cells in rows for name in own.sensors])
        return Rows(array("I", [number[asset] for _, asset, _ in rows]), times, values, times)


def _read(file: Path, expected: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a file with their place for messages. Raises UsageError for a missing column or a ragged row."""
    with file.open(newline="", encoding="utf-8") as text:
        reader = csv.DictReader(text)
        for name in expected:
            if name not in (reader.fieldnames or ()):
                raise UsageError(f"{file}: expected a column {name}, found {', '.join(reader.fieldnames or ())}")
        for row in reader:
            place = f"{file}:{reader.line_num}"
            if None in row or None in row.values():
                raise UsageError(f"{place}: expected {len(reader.fieldnames or ())} cells, found more or fewer")
            yield place, row


def _number(cell: str, name: str, place: str) -> float:
    try:
        return float(cell)
    except ValueError as error:
        raise UsageError(f"{place}: expected a number for {name}, found {cell!r}") from error


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
