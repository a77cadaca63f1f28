"""Public sets without failures, only labelled anomalies: SKAB, NAB and SMD. Their labels go to labels.parquet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wheeltapper.errors import NotFound

from wheeltapper_trainer.fleets import (
    MINUTE,
    NAB_SENSORS,
    SKAB_BEGIN_US,
    SKAB_SENSORS,
    SMD_SENSORS,
    SMD_TEST_FROM_US,
    spec_for,
)
from wheeltapper_trainer.history import read_csv
from wheeltapper_trainer.records import Asset, HistoryError, Imported, Times, Values

_SKAB_LABELS = ("anomaly", "changepoint")
_Readings = list[tuple[Asset, Times, Values]]


def read_skab(folder: Path) -> Imported:
    """The water loop, one asset for each experiment: valve1-0 …, anomaly-free.

    Experiments are put on one clock, all beginning at the same moment, so that one cut in time is the customary split
    (the first 400 seconds train). Labels: asset_id, time, anomaly, changepoint; none are set in the anomaly-free run.
    """
    readings: _Readings = []
    labels: dict[str, list[NDArray[Any]]] = {name: [] for name in ("asset_id", "time", *_SKAB_LABELS)}
    for path in _files(folder, "*.csv"):
        asset_id = path.stem if path.stem == "anomaly-free" else f"{path.parent.name}-{path.stem}"
        table = read_csv(path, times=["datetime"], delimiter=";")
        missing = sorted(set(SKAB_SENSORS) - table.keys())
        if missing:
            raise HistoryError(
                f"{path} has no column {missing[0]!r}: expected {list(SKAB_SENSORS)}, found {list(table)}"
            )
        order = np.argsort(table["datetime"], kind="stable")
        own = table["datetime"][order].astype(np.int64)
        times = SKAB_BEGIN_US + own - own[0]
        values = np.stack([table[name][order] for name in SKAB_SENSORS], axis=1)
        readings.append((Asset(asset_id, "loop", {}), times, values))
        labels["asset_id"].append(np.repeat(np.str_(asset_id), len(times)))
        labels["time"].append(times.view("M8[us]"))
        for name in _SKAB_LABELS:
            labels[name].append(table[name][order] > 0 if name in table else np.zeros(len(times), np.bool_))
    joined = {name: np.concatenate(columns) for name, columns in labels.items()}
    return Imported(spec_for("skab"), {"loop": tuple(SKAB_SENSORS.values())}, _sorted(readings), labels=joined)


def read_nab(source: Path) -> Imported:
    """Series of (timestamp, value), one asset for each file; combined_windows.json beside them, above them, or nowhere.

    Sensors: value, and of the time: hour_sin, hour_cos, weekend. Labels: asset_id, begin, end of each anomalous window.
    """
    paths = [source] if source.is_file() else _files(source, "*.csv")
    root = source.parent if source.is_file() else source
    listed = [
        path for path in (root / "combined_windows.json", root.parent / "combined_windows.json") if path.is_file()
    ]
    windows: dict[str, list[list[str]]] = json.loads(listed[0].read_text(encoding="utf-8")) if listed else {}
    by_file = {key.rsplit("/", 1)[-1]: spans for key, spans in windows.items()}
    readings: _Readings = []
    found: list[tuple[str, str, str]] = []
    for path in paths:
        table = read_csv(path, times=["timestamp"])
        if "value" not in table:
            raise HistoryError(f"{path} has no column 'value': found {list(table)}")
        order = np.argsort(table["timestamp"], kind="stable")
        times = table["timestamp"][order].astype(np.int64)
        angle = (times % (24 * 60 * MINUTE)) * (2 * np.pi / (24 * 60 * MINUTE))
        weekend = (times // (24 * 60 * MINUTE) + 3) % 7 >= 5  # 1970-01-01 was a Thursday
        columns = [table["value"][order], np.sin(angle), np.cos(angle), weekend]
        readings.append((Asset(path.stem, "machine", {}), times, np.stack(columns, axis=1).astype(np.float32)))
        found += [(path.stem, begin, end) for begin, end in by_file.get(path.name, [])]
    labels = {
        "asset_id": np.array([row[0] for row in found], np.str_),
        "begin": np.array([row[1] for row in found], "M8[us]"),
        "end": np.array([row[2] for row in found], "M8[us]"),
    }
    return Imported(spec_for("nab"), {"machine": NAB_SENSORS}, _sorted(readings), labels=labels if found else None)


def read_smd(folder: Path) -> Imported:
    """Servers, one row a minute without a clock: train/ ends and test/ begins at the same moment for all of them.

    Labels: asset_id, time, anomaly (of the test rows, from test_label/ where it is).
    """
    readings: _Readings = []
    labels: dict[str, list[NDArray[Any]]] = {"asset_id": [], "time": [], "anomaly": []}
    for path in _files(folder / "train", "*.txt*"):
        name = path.name.split(".")[0]
        train, test = _metrics(path), _metrics(_one(folder / "test", name))
        times = SMD_TEST_FROM_US + (np.arange(len(train) + len(test)) - len(train)) * MINUTE
        readings.append((Asset(name, "server", {}), times, np.concatenate([train, test])))
        if (folder / "test_label").is_dir():
            label = _one(folder / "test_label", name)
            anomaly = _loaded(label, 1)[:, 0] > 0
            if len(anomaly) != len(test):
                raise HistoryError(
                    f"{label} has {len(anomaly)} rows, the test of {name} {len(test)}", "one label for each row"
                )
            labels["asset_id"].append(np.repeat(np.str_(name), len(test)))
            labels["time"].append(times[len(train) :].view("M8[us]"))
            labels["anomaly"].append(anomaly)
    joined = {name: np.concatenate(columns) for name, columns in labels.items()} if labels["time"] else None
    return Imported(spec_for("smd"), {"server": SMD_SENSORS}, _sorted(readings), labels=joined)


def _metrics(path: Path) -> Values:
    return _loaded(path, len(SMD_SENSORS))


def _loaded(path: Path, columns: int) -> Values:
    """float32[rows, columns] of a CSV without header, gzip or not."""
    try:
        rows = np.loadtxt(path, np.float32, delimiter=",", ndmin=2)
    except ValueError as error:
        raise HistoryError(f"{path}: {error}", f"expected {columns} numbers in each row") from error
    if rows.shape[1] != columns:
        raise HistoryError(f"{path}: expected {columns} columns, found {rows.shape[1]}")
    return np.asarray(rows, np.float32)


def _one(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.txt", folder / f"{name}.txt.gz"):
        if path.is_file():
            return path
    raise NotFound(
        f"no {name}.txt or {name}.txt.gz in {folder}", "train/, test/ and test_label/ hold the same machines"
    )


def _files(folder: Path, pattern: str) -> list[Path]:
    found = sorted(path for path in folder.rglob(pattern) if path.is_file())
    if not found:
        raise NotFound(f"no {pattern} below {folder}")
    return found


def _sorted(readings: _Readings) -> _Readings:
    return sorted(readings, key=lambda reading: reading[0].asset_id)
