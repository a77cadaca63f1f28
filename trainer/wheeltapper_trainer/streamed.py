"""What a replay brought back: is it what offline scoring says, and what were its alarms worth?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from wheeltapper.alarms import ACTIVE, NONE, RAISED
from wheeltapper.spec import ANY_CODE, MICROSECONDS_PER_HOUR, ClassSpec, FleetSpec

from wheeltapper_trainer.cases import WEEK_US, Matching
from wheeltapper_trainer.history import History, column_names, read_table
from wheeltapper_trainer.job import ClassSplit

_EXACT = ("asset_id", "time", "status", "level", "release")


def compare(streamed: Path, offline: Path) -> dict[str, Any]:
    """Hold every row's status, level, scores and features of two answer files against each other, bit for bit.

    Returns {"stream_equals_offline", "rows_compared", "columns_compared", "differences"}; a missing row or column is a
    difference. Columns are read one at a time, so memory holds two of them.
    """
    one, other = column_names(streamed), column_names(offline)
    wanted = [name for name in one if name in _EXACT or name.startswith(("score:", "feature:"))]
    missing = [name for name in (*_EXACT, *wanted) if name not in other or name not in one]
    missing += [name for name in other if name.startswith(("score:", "feature:")) and name not in one]
    rows, differences = 0, len(missing)
    for name in wanted if not missing else ():
        left, right = read_table(streamed, [name])[name], read_table(offline, [name])[name]
        rows = len(left)
        differences += int((~_same(left, right)).sum()) if len(left) == len(right) else abs(len(left) - len(right))
    return {
        "stream_equals_offline": differences == 0 and rows > 0,
        "rows_compared": rows,
        "columns_compared": len(wanted),
        "differences": differences,
    }


def streamed_warnings(
    streamed: Path, history: History, spec: FleetSpec, splits: Sequence[ClassSplit]
) -> dict[str, Any]:
    """Failures, warnings and false alarms of the streamed alarms themselves, by the rules of the evaluation.

    A failure is warned of if any output raised a case in time; a case that was open when the stream began counts from
    there; every false case of any output counts. Where whole assets are held out, only those are looked at.
    """
    ids, times, status = (read_table(streamed, [name])[name] for name in ("asset_id", "time", "status"))
    answered = status == "OK"
    runs = {asset_id: slice(begin, end) for asset_id, begin, end in _runs(ids)}
    classes = {asset.asset_id: asset.asset_class for asset in history.assets()}
    names = {target.name for entry in spec.classes for target in entry.targets}
    alarms = {name: read_table(streamed, [f"alarm:{name}"])[f"alarm:{name}"] for name in sorted(names)}
    micros = times.astype("M8[us]").astype(np.int64)
    leads: dict[tuple[str, int], int] = {}
    false, cases, weeks = 0, 0, 0.0
    for entry, split in zip(spec.classes, splits, strict=True):
        for asset_id, rows in runs.items():
            if classes[asset_id] != entry.name or (split.by == "asset" and asset_id not in split.test_assets):
                continue
            kept = answered[rows]
            own = {name: column[rows][kept] for name, column in alarms.items()}
            when = micros[rows][kept]
            weeks += float(when[-1] - when[0]) / WEEK_US if len(when) else 0.0
            for wrong, found in _each_output(entry, own, when, history, asset_id):
                false += int(wrong.sum())
                cases += len(wrong)
                for failure, lead in found.items():
                    leads[asset_id, failure] = max(leads.get((asset_id, failure), -1), lead)
    warned = [lead / MICROSECONDS_PER_HOUR for lead in leads.values() if lead >= 0]
    return {
        "failures": len(leads),
        "failures_warned": len(warned),
        "lead_time_median_hours": float(np.median(warned)) if warned else None,
        "alarms": cases,
        "false_alarms_per_asset_week": false / weeks if weeks else None,
        "asset_weeks": weeks,
    }


def _each_output(
    spec: ClassSpec,
    alarms: Mapping[str, npt.NDArray[np.uint8]],
    times: npt.NDArray[np.int64],
    history: History,
    asset_id: str,
) -> Iterator[tuple[npt.NDArray[np.bool_], dict[int, int]]]:
    """Per output of one asset: whether each case was false, and the lead of each failure that counts, or -1."""
    events = history.events().of_asset(asset_id)
    for target in spec.targets:
        failures = events.times_of("failure", target.code if target.code else ANY_CODE)
        # A revision shows a raised alarm as active, so a case is where the alarm was not open on the row before.
        over = np.isin(alarms[target.name], (RAISED, ACTIVE))
        states = np.where(over & ~np.append(False, over[:-1]), np.uint8(RAISED), np.uint8(NONE))
        begin, owner = np.array([0, len(times)]), np.zeros(len(failures), np.int64)
        seen = Matching(spec, target, times, begin, owner, failures).match(np.flatnonzero(states == RAISED))
        yield seen.false_cases, dict(zip(seen.failure_times.tolist(), seen.lead_us.tolist(), strict=True))


def _same(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Equal bits, where a missing number equals a missing number."""
    if left.dtype != np.float32 or right.dtype != np.float32:
        return np.asarray(left == right)
    return np.asarray((left.view(np.uint32) == right.view(np.uint32)) | (np.isnan(left) & np.isnan(right)))


def _runs(ids: npt.NDArray[np.str_]) -> list[tuple[str, int, int]]:
    """(asset, first row, end) of each run of equal ids."""
    cuts = [0, *(np.flatnonzero(ids[1:] != ids[:-1]) + 1).tolist(), len(ids)] if len(ids) else []
    return [(str(ids[begin]), begin, end) for begin, end in pairwise(cuts)]
