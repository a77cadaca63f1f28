"""NASA C-MAPSS turbofans: 26 blank-separated columns without a header; one row is one flight.

Training engines run to failure, test engines stop before it. A cycle has no clock, so cycle c is put c hours after a
fixed moment; the fleet's cadence is "reading", where only the order counts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from wheeltapper.errors import NotFound
from wheeltapper.spec import MICROSECONDS_PER_HOUR

from wheeltapper_trainer.fleets import CMAPSS_SENSORS, CMAPSS_SETTINGS, INSTALLED, spec_for
from wheeltapper_trainer.records import Asset, HistoryError, Imported, Times, Values

_BEGIN_US = 1_199_145_600_000_000  # 2008-01-01 UTC
_COLUMNS = 2 + len(CMAPSS_SETTINGS) + len(CMAPSS_SENSORS)
_MANY_CONDITIONS = ("FD002", "FD004")
_CLASS = "turbofan"


def read_cmapss(folder: Path, subset: str) -> Imported:
    """Assets FD001-train-001 … and FD001-test-001 …; every training engine ends with failure "engine".

    Every engine is recorded from its first flight on, so its first cycle carries the maintenance event "installed":
    its age is known, in a stream as in a history.
    Attributes: `test` 0 or 1, and for test engines `rul_at_end`, the true cycles left: to evaluate with, not to learn.
    """
    known = sorted(path.stem.removeprefix("train_") for path in folder.glob("train_*.txt"))
    if subset not in known:
        raise NotFound(f"no subset {subset} in {folder}: found {known or 'no train_*.txt'}", "name one with --subset")
    rul_at_end = _numbers(folder / f"RUL_{subset}.txt", 1)[:, 0]
    readings: list[tuple[Asset, Times, Values]] = []
    events: list[tuple[str, int, str, str]] = []
    for part in ("test", "train"):
        engines = _engines(folder / f"{part}_{subset}.txt")
        width = max(3, len(str(len(engines))))
        if part == "test" and len(engines) != len(rul_at_end):
            wrong = f"RUL_{subset}.txt has {len(rul_at_end)} rows, test_{subset}.txt has {len(engines)} engines"
            raise HistoryError(f"{folder}: {wrong}", "one remaining life for each test engine")
        for number, rows in enumerate(engines):
            name = f"{subset}-{part}-{number + 1:0{width}d}"
            left = float(rul_at_end[number]) if part == "test" else float("nan")
            times = _BEGIN_US + rows[:, 1].astype(np.int64) * MICROSECONDS_PER_HOUR
            asset = Asset(name, _CLASS, {"test": float(part == "test"), "rul_at_end": left})
            readings.append((asset, times, rows[:, 2:].astype(np.float32)))
            events.append((name, int(times[0]), "maintenance", INSTALLED))
            if part == "train":
                events.append((name, int(times[-1]), "failure", "engine"))
    kind = "cmapss-regimes" if subset in _MANY_CONDITIONS else "cmapss"
    fleet = spec_for(kind, f"cmapss-{subset.lower()}")
    return Imported(fleet, {_CLASS: CMAPSS_SETTINGS + CMAPSS_SENSORS}, readings, events)


def _engines(path: Path) -> list[NDArray[np.float64]]:
    """The rows float64[cycles, 26] of each engine, engines numbered from 1, cycles from 1 without a gap."""
    rows = _numbers(path, _COLUMNS)
    starts = np.flatnonzero(np.diff(rows[:, 0], prepend=np.nan) != 0)
    engines = np.split(rows, starts[1:])
    for number, engine in enumerate(engines, start=1):
        cycles = np.arange(1, len(engine) + 1)
        if engine[0, 0] != number or not np.array_equal(engine[:, 1], cycles):
            row = int(starts[number - 1]) + 1
            raise HistoryError(
                f"{path}, row {row}: expected engine {number} with cycles 1 to {len(engine)}, "
                f"found engine {engine[0, 0]:g} with cycles {engine[0, 1]:g} to {engine[-1, 1]:g}"
            )
    return engines


def _numbers(path: Path, columns: int) -> NDArray[np.float64]:
    """float64[rows, columns] of a blank-separated file; NotFound, HistoryError with the row."""
    if not path.is_file():
        raise NotFound(f"no file {path}: expected train_, test_ and RUL_ of the same subset")
    try:
        rows = np.loadtxt(path, np.float64, ndmin=2)
    except ValueError as error:
        raise HistoryError(f"{path}: {error}", f"expected {columns} numbers in each row") from error
    if rows.shape[1:] != (columns,) or not len(rows):
        raise HistoryError(f"{path}: expected rows of {columns} numbers, found {rows.shape[0]} rows of {rows.shape[1]}")
    return rows
