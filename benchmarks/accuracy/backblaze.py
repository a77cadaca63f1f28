"""Backblaze's drives: which will fail within 30 days, for a fixed number of alarms, on a later part of the years.

The file holds intervals of unchanged SMART values; a reading is taken at the start of each and every 30 days in it. A
drive that was withdrawn is censored. One drive in four is read, by a hash of its serial number, failed or not.
A drive's first alarm counts, and is right if the drive fails within 30 days after it.
"""

from __future__ import annotations

import dataclasses
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from wheeltapper.spec import FleetSpec
from wheeltapper_trainer.history import read_table
from wheeltapper_trainer.history_writer import HistoryWriter
from wheeltapper_trainer.records import Asset

from benchmarks.accuracy.figures import Statistic, figure, plain
from benchmarks.accuracy.journey import Journey, example, travel
from benchmarks.harness import Row

SENSORS = (*(f"smart_{n}" for n in (5, 10, 12, 187, 188, 189, 196, 197, 198)), "power_on")
DAY_US = 86_400_000_000
HORIZON_US = 30 * DAY_US
STEP_HOURS = 30 * 24
ONE_IN = 4
ALARMS_PER_DRIVE_MONTH = 0.002
COST_MISSED, COST_ALARM = 20.0, 1.0
# The five values that Backblaze itself watches: a drive is suspect when any leaves zero.
_WATCHED = ("smart_5", "smart_187", "smart_188", "smart_197", "smart_198")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Drive:
    """times int64[n] µs, values float32[n, sensors], failed: when, or None; seen_until µs."""

    asset: Asset
    times: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]
    failed: int | None
    seen_until: int


def measure(root: Path, subset: str, work: Path, plots: Path | None = None) -> list[Row]:  # noqa: ARG001  # draws nothing
    """Rows over a quarter of the drives; `subset` names one class of examples/backblaze to leave the figures at."""
    fleet = example("backblaze")
    drives = _drives(root / "drive_intervals.parquet", {spec.name for spec in fleet.classes})
    ours = travel(_written(drives, work / "by-model", ""), fleet, work / "run-by-model")
    alone = dataclasses.replace(fleet, classes=(dataclasses.replace(fleet.classes[-1], name="drive"),))
    pooled = travel(_written(drives, work / "pooled", "drive"), alone, work / "run-pooled")
    judged = [drive for drive in drives if subset in ("", drive.asset.asset_class)]
    return rows_of(judged, ours, pooled, fleet)


def rows_of(drives: list[Drive], ours: Journey, pooled: Journey, fleet: FleetSpec) -> list[Row]:
    test_from = ours.job.splits[0].test_from_us
    later = [drive for drive in drives if drive.seen_until > test_from]
    months = sum(float(d.seen_until - max(test_from, int(d.times[0]))) / (30 * DAY_US) for d in later)
    alarms = max(1, round(months * ALARMS_PER_DRIVE_MONTH))
    failed = np.array([d.failed is not None for d in later])
    ends = np.array([d.seen_until if d.failed is None else d.failed for d in later])
    unit = f"of {alarms} drives alarmed in {months:,.0f} drive-months ({ALARMS_PER_DRIVE_MONTH:g} for each)"
    methods = {
        "classes by model": [_scores(ours, d, test_from) for d in later],
        "one global XGBoost": [_scores(pooled, d, test_from) for d in later],
        "SMART values over zero": [_suspicion(d, test_from) for d in later],
    }
    hits = {name: _hits(found, ends, failed, alarms) for name, found in methods.items()}
    mine = hits.pop("classes by model")
    every = np.ones(len(later))

    def precision(of: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]) -> Statistic:
        return lambda n: float(n @ of[0]) / max(1.0, float(n @ of[1]))

    def recall(of: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]) -> Statistic:
        return lambda n: float(n @ of[0]) / max(1.0, float(n @ failed))

    def cost(of: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]) -> Statistic:
        return lambda n: float(
            (COST_ALARM * (n @ of[1]) + COST_MISSED * (n @ (failed & ~of[0]))) * len(later) / n.sum() / months * 1_000
        )

    rows: list[Row] = []
    for peer, theirs in hits.items():
        rows.append(figure("precision", unit, precision(mine), len(later), peer, precision(theirs)(every), True))
        caught = f"share of {int(failed.sum())} test failures"
        rows.append(figure("recall", caught, recall(mine), len(later), peer, recall(theirs)(every), True))
        words = f"per 1,000 drive-months; an alarm costs {COST_ALARM:g}, a missed failure {COST_MISSED:g}"
        rows.append(figure("cost", words, cost(mine), len(later), peer, cost(theirs)(every)))
    nothing = COST_MISSED * float(failed.sum()) / months * 1_000
    rows.append(plain("cost_of_no_alarms", "per 1,000 drive-months", nothing))
    rows.append(
        plain("classes", f"drive models with heads of their own, of {len(drives):,} drives", len(fleet.classes) - 1)
    )
    return rows


def _hits(
    found: list[tuple[npt.NDArray[np.int64], Floats]],
    ends: npt.NDArray[np.int64],
    failed: npt.NDArray[np.bool_],
    alarms: int,
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """(drives rightly alarmed, drives alarmed): the threshold is that of the `alarms`-th highest drive."""
    highest = np.array([scores.max(initial=-np.inf) for _, scores in found])
    threshold = np.sort(highest)[-min(alarms, len(highest))]
    order = np.argsort(-highest, kind="stable")[:alarms]  # of equals the first by serial number
    chosen = np.zeros(len(found), np.bool_)
    chosen[order] = True
    right = np.zeros(len(found), np.bool_)
    for drive in order:
        times, scores = found[drive]
        over = np.flatnonzero(scores >= threshold)
        right[drive] = bool(failed[drive] and len(over) and ends[drive] - times[over[0]] <= HORIZON_US)
    return right, chosen


def _scores(done: Journey, drive: Drive, test_from: int) -> tuple[npt.NDArray[np.int64], Floats]:
    answers = done.answers[drive.asset.asset_id]
    later = answers.times >= test_from
    return answers.times[later], np.nan_to_num(answers.values[later, 0].astype(np.float64), nan=-1.0)


def _suspicion(drive: Drive, test_from: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """How many of the watched values are over zero; of equally many, the larger uncorrectable counts first."""
    later = drive.times >= test_from
    values = drive.values[later][:, [SENSORS.index(name) for name in _WATCHED]].astype(np.float64)
    size = np.nan_to_num(np.log1p(np.maximum(values, 0))).sum(axis=1)
    return drive.times[later], np.nansum(values > 0, axis=1) + size / 1_000.0


def _drives(path: Path, classes: set[str]) -> list[Drive]:
    """A quarter of the drives, in the order of their serial numbers."""
    columns = ["serial_number", "model", "size_tb", "min_date", "min_hours", "tstart", "tstop", "fails"]
    table: dict[str, Any] = read_table(path, [*columns, *SENSORS[:-1]])
    order = np.lexsort((table["tstart"], table["serial_number"]))
    serials = table["serial_number"][order]
    cuts = np.flatnonzero(serials[1:] != serials[:-1]) + 1
    smart = np.column_stack([table[name].astype(np.float32) for name in SENSORS[:-1]])
    found = []
    for rows in np.split(order, cuts):
        serial, model = str(table["serial_number"][rows[0]]), str(table["model"][rows[0]]).split(" ")[-1].lower()
        if zlib.crc32(serial.encode()) % ONE_IN:
            continue
        begin = int(table["min_date"][rows[0]].astype("M8[us]").astype(np.int64))
        first = int(table["min_hours"][rows[0]])
        hours, source = [], []
        for row in rows:
            taken = np.arange(int(table["tstart"][row]), int(table["tstop"][row]), STEP_HOURS)
            hours.append(taken)
            source.append(np.full(len(taken), row))
        at, where = np.concatenate(hours), np.concatenate(source)
        times = begin + (at - first) * (DAY_US // 24)
        end = begin + (int(table["tstop"][rows[-1]]) - first) * (DAY_US // 24)
        failed = bool(table["fails"][rows[-1]])
        if not failed:  # it was seen alive to the end
            at, where, times = np.append(at, at[-1]), np.append(where, where[-1]), np.append(times, max(end, times[-1]))
        values = np.column_stack([smart[where], at.astype(np.float32)])
        asset = Asset(serial, model if model in classes else "other", {"size_tb": float(table["size_tb"][rows[0]])})
        found.append(Drive(asset, times, values, end if failed else None, end))
    return found


def _written(drives: list[Drive], folder: Path, asset_class: str) -> Path:
    """A history of the drives, in their own classes or all in `asset_class`."""
    classes = sorted({asset_class or drive.asset.asset_class for drive in drives})
    with HistoryWriter(folder, dict.fromkeys(classes, SENSORS)) as writer:
        for drive in drives:
            asset = dataclasses.replace(drive.asset, asset_class=asset_class or drive.asset.asset_class)
            writer.add(asset, drive.times, drive.values)
            if drive.failed is not None:
                writer.add_events([(asset.asset_id, drive.failed, "failure", "drive")])
    return folder
