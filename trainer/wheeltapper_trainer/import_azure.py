"""Microsoft's predictive-maintenance template: telemetry, errors, maintenance, failures and machines as CSV files."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wheeltapper.errors import NotFound

from wheeltapper_trainer.fleets import AZURE_SENSORS, DAY, spec_for
from wheeltapper_trainer.history import read_csv
from wheeltapper_trainer.records import Asset, HistoryError, Imported

_CLASS = "machine"
_HOURLY, _DAILY = "PdM_telemetry.csv", "PdM_telemetry_daily.csv"
_NAMES = {  # what the variants of the template call a column, in lower case
    "machine": ("machineid", "machine_id"),
    "time": ("datetime", "date"),
    "volt": ("volt", "mean_daily_voltage"),
    "rotate": ("rotate", "mean_daily_rotation"),
    "pressure": ("pressure", "mean_daily_pressure"),
    "vibration": ("vibration", "mean_daily_vibration"),
    "error": ("errorid", "error"),
    "maintenance": ("comp", "component"),
    "failure": ("failure", "comp"),
    "model": ("model",),
    "age": ("age",),
}


def read_azure(folder: Path) -> Imported:
    """Assets machine-001 …, attributes age and model (the number in "model3"); events error, maintenance, failure.

    The daily means of a day are known when it ends, so such a reading is stamped with the midnight after it.
    """
    daily = not (folder / _HOURLY).is_file()
    if daily and not (folder / _DAILY).is_file():
        raise NotFound(f"no telemetry in {folder}: expected {_HOURLY} or {_DAILY}")
    machines = _read(folder / "PdM_machines.csv", ("machine", "model"), ("age",))
    ids = _asset_ids(machines["machine"], folder / "PdM_machines.csv")
    models = [float(str(model).lower().removeprefix("model")) for model in machines["model"]]
    assets = {
        asset_id: Asset(asset_id, _CLASS, {"age": float(age), "model": model})
        for asset_id, age, model in zip(ids, machines["age"], models, strict=True)
    }

    telemetry = _read(folder / (_DAILY if daily else _HOURLY), ("machine",), AZURE_SENSORS)
    times = telemetry["time"].astype(np.int64) + (DAY if daily else 0)
    values = np.stack([telemetry[name] for name in AZURE_SENSORS], axis=1)
    owners = np.array(_asset_ids(telemetry["machine"], folder), np.str_)
    unknown = sorted(set(owners.tolist()) - assets.keys())
    if unknown:
        raise HistoryError(f"the telemetry in {folder} has {unknown[0]}, which PdM_machines.csv does not list")
    order = np.lexsort((times, owners))
    cuts = np.flatnonzero(owners[order][1:] != owners[order][:-1]) + 1
    readings = [(assets[str(owners[rows[0]])], times[rows], values[rows]) for rows in np.split(order, cuts)]

    maintenance = "PdM_maint.csv" if (folder / "PdM_maint.csv").is_file() else "PdM_maintenance.csv"
    events: list[tuple[str, int, str, str]] = []
    for kind, file in (("error", "PdM_errors.csv"), ("maintenance", maintenance), ("failure", "PdM_failures.csv")):
        table = _read(folder / file, ("machine", kind), ())
        owned = _asset_ids(table["machine"], folder / file)
        events += zip(
            owned, table["time"].astype(np.int64).tolist(), [kind] * len(owned), table[kind].tolist(), strict=True
        )
    fleet = spec_for("azure-pdm-daily" if daily else "azure-pdm")
    return Imported(fleet, {_CLASS: AZURE_SENSORS}, readings, events)


def _read(path: Path, words: tuple[str, ...], numbers: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """The columns asked for under our names, and `time` where the file has one."""
    if not path.is_file():
        raise NotFound(f"no file {path}")
    with path.open(encoding="utf-8-sig", newline="") as lines:
        header = next(csv.reader(lines), [])
    found = {name: _column(header, name, path) for name in (*words, *numbers)}
    times = [name for name in header if name.lower() in _NAMES["time"]]
    if not times and "model" not in words:
        raise HistoryError(f"{path} has no column of times: expected one of {_NAMES['time']}, found {header}")
    table = read_csv(path, [found[name] for name in words], times[:1])
    named = {name: table[column] for name, column in found.items()}
    return {**named, "time": table[times[0]]} if times else named


def _column(header: list[str], name: str, path: Path) -> str:
    for column in header:
        if column.lower() in _NAMES[name]:
            return column
    raise HistoryError(f"{path} has no column {name!r}: expected one of {_NAMES[name]}, found {header}")


def _asset_ids(machines: NDArray[Any], path: Path) -> list[str]:
    try:
        return [f"machine-{int(number):03d}" for number in machines.tolist()]
    except ValueError as error:
        raise HistoryError(f"{path}: expected machines by number: {error}") from error
