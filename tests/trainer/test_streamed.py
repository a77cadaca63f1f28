"""Warnings and false alarms counted by hand on a stream's alarms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from wheeltapper.spec import AlarmSpec, ClassSpec, FleetSpec, Sensor, Target
from wheeltapper_trainer.history import History, write_table
from wheeltapper_trainer.history_writer import HistoryWriter
from wheeltapper_trainer.job import ClassSplit
from wheeltapper_trainer.records import Asset
from wheeltapper_trainer.streamed import streamed_warnings

HOUR = 3_600_000_000
START = 1_700_000_000_000_000 // HOUR * HOUR
HOURS = 24 * 7 + 1  # exactly one week from the first to the last reading
RAISED, ACTIVE, CLEARED = 2, 3, 4
SPEC = ClassSpec(
    "pump",
    (Sensor("a"),),
    HOUR,
    (6,),
    ("mean",),
    0,
    0,
    (
        Target("failure", "failure:seal", "seal", horizon_us=20 * HOUR),
        Target("failure", "failure:shaft", "shaft", horizon_us=20 * HOUR),
        Target("rul", "rul", cap=100.0),  # any failure, within the horizon of the others
    ),
    alarm=AlarmSpec(lead_us=4 * HOUR),
)


@pytest.fixture
def history(tmp_path: Path) -> History:
    """p-1 loses its seal at hour 50 and again at 100; p-2 its shaft at hour 60; p-3 never fails."""
    times = START + HOUR * np.arange(HOURS, dtype=np.int64)
    with HistoryWriter(tmp_path / "history", {"pump": ("a",)}) as writer:
        for name in ("p-1", "p-2", "p-3"):
            writer.add(Asset(name, "pump", {}), times, np.zeros((HOURS, 1), np.float32))
        failures = (("p-1", 50, "seal"), ("p-1", 100, "seal"), ("p-2", 60, "shaft"))
        writer.add_events([(name, START + hour * HOUR, "failure", code) for name, hour, code in failures])
    return History.open(tmp_path / "history")


def answers(path: Path, cases: dict[tuple[str, str], list[tuple[int, int]]], shown: int = RAISED) -> Path:
    """A stream's answers: `cases` of (asset, output) as (hour raised, hour cleared); `shown` where one is raised."""
    table: dict[str, list[np.ndarray]] = {}
    for name in ("p-1", "p-2", "p-3"):
        rows = {
            "asset_id": np.full(HOURS, name),
            "time": (START + HOUR * np.arange(HOURS)).astype("M8[us]"),
            "status": np.full(HOURS, "OK"),
        }
        for output in ("failure:seal", "failure:shaft", "rul"):
            states = np.zeros(HOURS, np.uint8)
            for begin, end in cases.get((name, output), ()):
                states[begin:end], states[begin], states[end : end + 1] = ACTIVE, shown, CLEARED
            rows[f"alarm:{output}"] = states
        for column, cells in rows.items():
            table.setdefault(column, []).append(cells)
    write_table(path, {column: np.concatenate(cells) for column, cells in table.items()})
    return path


def found(path: Path, history: History, split: ClassSplit | None = None) -> dict[str, object]:
    splits = (split or ClassSplit("pump", "time", 0, START),)
    return streamed_warnings(path, history, FleetSpec("f", (SPEC,)), splits)


@pytest.mark.parametrize("shown", [RAISED, ACTIVE])  # a revised row shows a raised alarm as active
def test_warnings_in_time_late_and_false(history: History, tmp_path: Path, shown: int) -> None:
    cases = {
        ("p-1", "failure:seal"): [(35, 52), (97, 101)],  # 15 h ahead; 3 h ahead is too late to help, yet not false
        ("p-1", "rul"): [(44, 46)],  # of the same failure, later: the first warning counts
        ("p-1", "failure:shaft"): [(40, 45)],  # another part failed: false
        ("p-2", "failure:shaft"): [(20, 25), (31, 33), (50, 55)],  # 40 h ahead is false; the earliest good one is 29 h
        ("p-3", "failure:seal"): [(0, 3)],  # open when the stream began: false
    }
    assert found(answers(tmp_path / "a.parquet", cases, shown), history) == {
        "failures": 3,
        "failures_warned": 2,
        "lead_time_median_hours": (15 + 29) / 2,
        "alarms": 8,
        "false_alarms_per_asset_week": 3 / 3,
        "asset_weeks": 3.0,
    }


def test_silence_warns_of_nothing_and_costs_nothing(history: History, tmp_path: Path) -> None:
    result = found(answers(tmp_path / "a.parquet", {}), history)
    assert (result["failures"], result["failures_warned"], result["lead_time_median_hours"]) == (3, 0, None)
    assert result["false_alarms_per_asset_week"] == 0.0


def test_only_held_out_assets_count_where_whole_assets_are_held_out(history: History, tmp_path: Path) -> None:
    cases = {("p-1", "failure:seal"): [(35, 52)], ("p-3", "failure:seal"): [(5, 6)]}
    split = ClassSplit("pump", "asset", test_assets=("p-2", "p-3"))
    result = found(answers(tmp_path / "a.parquet", cases), history, split)
    assert (result["failures"], result["failures_warned"], result["alarms"]) == (1, 0, 1)
    assert result["asset_weeks"] == 2.0
