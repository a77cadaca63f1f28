"""Plain CSV files: readings (asset_id, time, a column per sensor), events.csv and assets.csv where there are any."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wheeltapper.errors import NotFound
from wheeltapper.spec import ClassSpec

from wheeltapper_trainer.fleets import DAY, HOUR, MINUTE, SECOND, starter_class, starter_fleet
from wheeltapper_trainer.history import read_csv
from wheeltapper_trainer.records import Asset, HistoryError, Imported, Times, Values

_KEYS = ("asset_id", "time", "asset_class")
_EVENT_KINDS = ("failure", "maintenance", "error")
_BESIDE = ("events.csv", "assets.csv")
_CLASS = "machine"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_STEPS = (SECOND, 10 * SECOND, 30 * SECOND, MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE)
_CADENCES = (*_STEPS, *(HOUR * hours for hours in (1, 2, 4, 6, 8, 12)), DAY)


def read_plain(source: Path) -> Imported:
    """One file of readings or a folder of them, in any order. A column left empty by a whole class is not its sensor.

    The class of an asset stands in assets.csv or in a column asset_class of its readings, else it is "machine". The
    fleet it comes with is a start: windows and horizons follow the usual distance between readings, and a class of
    which nothing can be predicted (no failures, one sensor) is left out of it.
    """
    folder = source.parent if source.is_file() else source
    paths = [source] if source.is_file() else sorted(p for p in source.rglob("*.csv") if p.name not in _BESIDE)
    if not paths:
        raise NotFound(f"no CSV file of readings in {source}")
    assets = _assets(folder / "assets.csv")
    pieces: dict[str, list[tuple[Times, dict[str, NDArray[Any]]]]] = defaultdict(list)
    for path in paths:
        for asset_id, asset_class, times, columns in _pieces(path):
            assets.setdefault(asset_id, Asset(asset_id, asset_class or _CLASS, {}))
            pieces[asset_id].append((times, columns))

    sensors: dict[str, tuple[str, ...]] = {}
    for name in sorted({asset.asset_class for asset in assets.values()}):
        members = [piece for asset_id in pieces if assets[asset_id].asset_class == name for piece in pieces[asset_id]]
        sensors[name] = _filled(columns for _, columns in members)
    readings = [_joined(assets[asset_id], pieces[asset_id], sensors) for asset_id in sorted(assets)]
    events = _events(folder / "events.csv", assets)
    classes = [_starter(name, columns, readings, events) for name, columns in sensors.items() if columns]
    classes = [spec for spec in classes if spec.targets]
    if not classes:
        wrong = f"{source}: nothing can be predicted: no failures, and no class with two sensors"
        raise HistoryError(wrong, "add failures in events.csv, or a second sensor")
    return Imported(starter_fleet(_fleet_name(folder), classes), sensors, readings, events)


def _pieces(path: Path) -> Iterable[tuple[str, str, Times, dict[str, NDArray[Any]]]]:
    """(asset id, class or "", times, sensor columns) of each asset in a file, sorted by time."""
    with_class = "asset_class" in _header(path)
    table = read_csv(path, ["asset_id", *(["asset_class"] if with_class else [])], ["time"])
    names = [name for name in table if name not in _KEYS]
    for name in names:
        if not _NAME.fullmatch(name):
            raise HistoryError(f"{path} has a column {name!r}", "name sensors with letters, digits, '_', '.' and '-'")
    if not names:
        raise HistoryError(f"{path} has no sensors: expected columns asset_id, time and one for each sensor")
    ids, stamps = table["asset_id"], table["time"]
    if (ids == "").any() or np.isnat(stamps).any():
        row = int(np.argmax((ids == "") | np.isnat(stamps))) + 2
        raise HistoryError(f"{path}, row {row}: asset_id or time is empty", "every reading has both")
    times = stamps.astype(np.int64)
    order = np.lexsort((times, ids))
    cuts = np.flatnonzero(ids[order][1:] != ids[order][:-1]) + 1
    for rows in np.split(order, cuts) if len(order) else []:
        asset_class = str(table["asset_class"][rows[0]]) if with_class else ""
        yield str(ids[rows[0]]), asset_class, times[rows], {name: table[name][rows] for name in names}


def _filled(tables: Iterable[dict[str, NDArray[Any]]]) -> tuple[str, ...]:
    """The columns that hold at least one value, in the order in which they come."""
    found: dict[str, bool] = {}
    for columns in tables:
        for name, values in columns.items():
            found[name] = found.get(name, False) or not bool(np.isnan(values).all())
    return tuple(name for name, filled in found.items() if filled)


def _joined(
    asset: Asset, pieces: list[tuple[Times, dict[str, NDArray[Any]]]], sensors: dict[str, tuple[str, ...]]
) -> tuple[Asset, Times, Values]:
    """An asset's readings out of all files, sorted by time; a sensor that a file lacks is missing in its rows."""
    names = sensors[asset.asset_class]
    times = np.concatenate([np.empty(0, np.int64), *(piece[0] for piece in pieces)])
    values = np.full((len(times), len(names)), np.nan, np.float32)
    begin = 0
    for own, columns in pieces:
        for position, name in enumerate(names):
            if name in columns:
                values[begin : begin + len(own), position] = columns[name]
        begin += len(own)
    order = np.argsort(times, kind="stable")
    return asset, times[order], values[order]


def _assets(path: Path) -> dict[str, Asset]:
    if not path.is_file():
        return {}
    with_class = "asset_class" in _header(path)
    table = read_csv(path, ["asset_id", *(["asset_class"] if with_class else [])])
    names = [name for name in table if name not in _KEYS]
    found: dict[str, Asset] = {}
    for row, asset_id in enumerate(table["asset_id"].tolist()):
        if asset_id in found:
            raise HistoryError(f"{path}, row {row + 2}: asset {asset_id!r} a second time", "one row for each asset")
        asset_class = str(table["asset_class"][row]) if with_class else _CLASS
        found[asset_id] = Asset(asset_id, asset_class, {name: float(table[name][row]) for name in names})
    return found


def _events(path: Path, assets: dict[str, Asset]) -> list[tuple[str, int, str, str]]:
    if not path.is_file():
        return []
    table = read_csv(path, ["asset_id", "kind", "code"], ["time"])
    stamps = table["time"].astype(np.int64).tolist()
    rows = list(zip(table["asset_id"].tolist(), stamps, table["kind"].tolist(), table["code"].tolist(), strict=True))
    for number, (asset_id, _, kind, _) in enumerate(rows, start=2):
        if asset_id not in assets:
            raise HistoryError(f"{path}, row {number}: asset {asset_id!r} has no readings", "is the name spelt alike?")
        if kind not in _EVENT_KINDS:
            raise HistoryError(f"{path}, row {number}: kind must be one of {_EVENT_KINDS}, found {kind!r}")
    return rows


def _starter(
    name: str,
    columns: tuple[str, ...],
    readings: list[tuple[Asset, Times, Values]],
    events: list[tuple[str, int, str, str]],
) -> ClassSpec:
    members = [(asset, times) for asset, times, _ in readings if asset.asset_class == name]
    gaps = np.concatenate([np.empty(0, np.int64), *(np.diff(times) for _, times in members)])
    usual = float(np.median(gaps[gaps > 0])) if (gaps > 0).any() else float(HOUR)
    cadence = min(_CADENCES, key=lambda step: abs(np.log(step / usual)))
    owned = {asset.asset_id for asset, _ in members}
    statics = sorted({name for asset, _ in members for name in asset.attributes})
    return starter_class(name, columns, cadence, statics, [(e[2], e[3]) for e in events if e[0] in owned])


def _header(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        return next(csv.reader(lines), [])


def _fleet_name(folder: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.absolute().name).strip("-_.")
    return name or "fleet"
