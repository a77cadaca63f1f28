"""Offline scoring answers as a stream does that is sent row by row; a compared file is held to every bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packs import random_trees
from presses import MINUTE_US, ONE_OUTPUT, PRESS, content
from wheeltapper.errors import NotFound, UsageError
from wheeltapper.live import Answers, LiveFleet
from wheeltapper.pack import ClassContent, HeadContent, Output, Pack, write_pack
from wheeltapper.shapley import contributions
from wheeltapper.spec import features_of
from wheeltapper.windows import RowStatus
from wheeltapper_command.progress import Progress
from wheeltapper_command.reasons import reasons_text
from wheeltapper_trainer.history import History, read_table, write_table
from wheeltapper_trainer.history_writer import HistoryWriter
from wheeltapper_trainer.offline import Order, score_history
from wheeltapper_trainer.records import Asset
from wheeltapper_trainer.streamed import compare
from wheeltapper_trainer.train_verbs import time_us

START = 1_700_000_000_000_000 // MINUTE_US * MINUTE_US
SENSORS = ("oil", "heat", "force")  # not in the class's order
NOW = START + 10**15
HAMMER = dataclasses.replace(ONE_OUTPUT, name="hammer", statics=(), events=(), windows=(3,))


@pytest.fixture(scope="module")
def pack() -> Pack:
    """Presses with two outputs and events, and hammers with one output and other features."""
    presses, rng = content(5), np.random.default_rng(6)
    width = len(features_of(HAMMER))
    head = HeadContent(1, 0, 2, random_trees(rng, width, 6))
    output = Output("failure", "failure", 0, 1, threshold=0.5)
    hammers = ClassContent(HAMMER, (output,), (len(presses.heads),))
    both = dataclasses.replace(presses, classes=(*presses.classes, hammers), heads=(*presses.heads, head))
    return Pack.from_bytes(write_pack(both))


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Readings with gaps, missing values, repetitions and two in one minute; events between and upon them."""
    folder = tmp_path_factory.mktemp("presses") / "history"
    rng = np.random.default_rng(3)
    with HistoryWriter(folder, {"press": SENSORS, "hammer": SENSORS}) as writer:
        for name, kind in (("a-1", "press"), ("a-2", "press"), ("a-9", "press"), ("b-1", "hammer")):
            step = rng.choice([0, MINUTE_US // 3, MINUTE_US, MINUTE_US, MINUTE_US, 9 * MINUTE_US], 300)
            times = START + np.cumsum(step).astype(np.int64)
            values = rng.normal(50, 30, (300, 3)).astype(np.float32)
            values[rng.random((300, 3)) < 0.1] = np.nan
            writer.add(Asset(name, kind, {"age": 4.0 if name == "a-9" else float("nan")}), times, values)
            moments = [
                *times[[20, 21, 150, 299]].tolist(),
                *(times[[40, 41, 42]] + 5).tolist(),
                int(times[-1]) + MINUTE_US,
            ]
            writer.add_events([(name, moment, "error", f"e{i % 3}") for i, moment in enumerate(moments)])
    return folder


def streamed(pack: Pack, history: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """The final answers of one fleet of windows to all readings in order of time, each a block of its own."""
    opened, fleet = History.open(history), LiveFleet(pack, 4)
    steps: list[tuple[int, int, str, Any]] = []
    seats: dict[str, tuple[str, int]] = {}
    for asset in opened.assets():
        spec = fleet.spec(asset.asset_class)
        statics = np.array([[asset.attributes[s] for s in spec.statics]], np.float32)
        [row] = fleet.open_assets(asset.asset_class, [asset.asset_id], statics)
        seats[asset.asset_id] = (asset.asset_class, int(row))
        [readings] = opened.read([asset.asset_id], [sensor.name for sensor in spec.sensors])
        for i, time in enumerate(readings.times.tolist()):
            steps.append((time, 1, asset.asset_id, readings.values[i : i + 1]))
        events = opened.events([asset.asset_id])
        for time, code in zip(events.times.tolist(), events.codes.tolist(), strict=True):
            steps.append((time, 0, asset.asset_id, f"error:{code}"))
    found: dict[tuple[str, int], dict[str, Any]] = {}

    def note(asset_id: str, answers: Answers | None, revision: bool) -> None:
        for i, time in enumerate([] if answers is None else answers.times.tolist()):
            assert answers is not None
            assert answers.features is not None
            before, status = found.get((asset_id, time)), RowStatus(answers.status[i]).name
            if before is None or revision or (before["status"] not in ("OK", "DUPLICATE") and status == "OK"):
                row: dict[str, Any] = {"status": status, "level": answers.levels[i, 0], "health": answers.health[i]}
                for o, name in enumerate(fleet.outputs(seats[asset_id][0])):
                    row |= {f"score:{name}": answers.values[i, o], f"alarm:{name}": answers.alarms[i, o]}
                for f, name in enumerate(fleet.features(seats[asset_id][0])):
                    row[f"feature:{name}"] = answers.features[i, f]
                found[asset_id, time] = row

    for time, is_reading, asset_id, what in sorted(steps, key=lambda step: step[:2]):
        name, row = seats[asset_id]
        rows, times = np.array([row]), np.array([time])
        if is_reading:
            answers = fleet.score(name, rows, times, what, NOW, want_features=True)
            note(asset_id, answers.revisions, True)
            note(asset_id, answers, False)
        elif (code := fleet.event_code(name, what)) >= 0:
            note(asset_id, fleet.take_events(name, rows, times, np.array([code]), NOW, True).revisions, True)
    return found


def test_offline_is_what_a_stream_is_answered_in_the_end(pack: Pack, history: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.parquet"
    result = score_history(Order(str(history), out, want_features=True, cpus=2), pack, 4, Progress(quiet=True))
    table, expected = read_table(out), streamed(pack, history)
    keys = list(zip(table["asset_id"].tolist(), table["time"].astype("M8[us]").astype(np.int64).tolist(), strict=True))
    assert keys == sorted(expected)
    assert result["readings_answered"] == len(keys) < result["readings_read"] == 1200
    assert result["statuses"]["SUPERSEDED"] > 10
    assert set(table["release"].tolist()) == {4}
    assert table["revisions"].dtype == np.uint32
    for name in ("status", "level", "health", *(n for n in table if n.startswith(("score:", "alarm:", "feature:")))):
        for i, key in enumerate(keys):
            found = table[name][i]
            blank: Any = 0 if name.startswith("alarm:") else np.float32("nan")  # another class's column
            wanted = expected[key].get(name, blank)
            assert found == wanted or np.isnan([found, wanted]).all(), (key, name)
    assert {"score:anomaly", "feature:age", "feature:mean(force, 3min)", "feature:mean(force, 4min)"} <= table.keys()
    assert np.isfinite(table["score:failure"]).mean() > 0.5
    assert (table["alarm:failure"] > 0).any()


def test_only_readings_from_a_time_on_are_written_and_windows_are_full(
    pack: Pack, history: Path, tmp_path: Path
) -> None:
    whole, part = tmp_path / "whole.parquet", tmp_path / "part.parquet"
    begin = START + 200 * MINUTE_US
    for path, from_us in ((whole, None), (part, begin)):
        score_history(Order(str(history), path, from_us), pack, 1, Progress(quiet=True))
    one, other = read_table(whole), read_table(part)
    later = one["time"].astype(np.int64) >= begin
    assert 0 < later.sum() < len(later)
    for name, column in one.items():
        np.testing.assert_array_equal(other[name], column[later])
    assert not any(name.startswith("feature:") for name in other)


def test_reasons_of_every_reading_are_those_of_its_features(pack: Pack, history: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.parquet"
    order = Order(str(history), out, want_features=True, reasons=2, reasons_always=True)
    score_history(order, pack, 4, Progress(quiet=True))
    table = read_table(out)
    known = pack.class_named("press")
    names = [feature.name for feature in features_of(known.spec)]
    mine = table["asset_id"] == "a-9"  # its class answers
    rows = np.stack([table[f"feature:{name}"][mine] for name in names], axis=1)
    worth, _ = contributions(pack.forest, np.full(len(rows), known.heads[0], np.int32), rows)
    scored = ~np.isnan(table["score:failure"][mine])
    for found, own in zip(table["reasons:failure"][mine][scored], worth[scored], strict=True):
        most = [f for f in np.argsort(-np.abs(own), kind="stable")[:2] if own[f]]
        assert found == reasons_text((names[f], own[f]) for f in most)
    assert scored.sum() > 100
    hammers = table["asset_id"] == "b-1"
    assert not table["reasons:anomaly"][hammers].astype(bool).any()
    assert table["reasons:failure"][hammers].astype(bool).any()
    assert all(text.startswith("last(") for text in table["reasons:anomaly"][mine] if text)


def test_reasons_of_alarms_stand_where_they_were_raised(pack: Pack, history: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.parquet"
    score_history(Order(str(history), out, reasons=3), pack, 4, Progress(quiet=True))
    table = read_table(out)
    assert not any(name.startswith("feature:") for name in table)
    told = 0
    for output in ("failure", "anomaly"):
        explained = table[f"reasons:{output}"] != ""
        alarm = table[f"alarm:{output}"]
        assert explained[alarm == 2].all()
        assert np.isin(alarm[explained], (2, 3)).all()  # a revision shows a raised alarm as active
        told += int(explained.sum())
    assert 0 < told < len(table["time"]) / 2


def test_a_class_the_pack_does_not_know_is_refused(pack: Pack, tmp_path: Path) -> None:
    with HistoryWriter(tmp_path / "history", {"lathe": ("force",)}) as writer:
        writer.add(Asset("x", "lathe", {}), np.array([START]), np.ones((1, 1), np.float32))
    with pytest.raises(NotFound, match=r"asset 'x' is of class 'lathe'; the pack has \['press', 'hammer'\]"):
        score_history(Order(str(tmp_path / "history"), tmp_path / "a.parquet"), pack, 1, Progress(quiet=True))
    assert not (tmp_path / "a.parquet").exists()


def test_compare_sees_one_bit_one_row_and_one_column(tmp_path: Path) -> None:
    rows = {
        "asset_id": np.array(["a", "a", "b"]),
        "time": np.array([1, 2, 1], "M8[us]"),
        "status": np.array(["OK", "OK", "FUTURE"]),
        "release": np.array([1, 1, 1], np.uint64),
        "level": np.array([3, 3, 0], np.uint8),
        "score:rul": np.array([1.5, 2.5, np.nan], np.float32),
        "feature:last(x)": np.array([0.0, -1.0, np.nan], np.float32),
    }
    one, other = tmp_path / "one.parquet", tmp_path / "other.parquet"
    write_table(one, {**rows, "revisions": np.array([0, 1, 0], np.uint32)})

    def against(**changes: Any) -> dict[str, Any]:
        write_table(other, {name: column for name, column in {**rows, **changes}.items() if column is not None})
        return compare(one, other)

    assert against() == {"stream_equals_offline": True, "rows_compared": 3, "columns_compared": 7, "differences": 0}
    bits = rows["score:rul"].copy()
    bits.view(np.uint32)[1] ^= 1
    for changes in (
        {"score:rul": bits},
        {"feature:last(x)": np.array([-0.0, -1.0, np.nan], np.float32)},
        {"feature:last(x)": np.array([0.0, np.nan, np.nan], np.float32)},
        {"status": np.array(["OK", "DUPLICATE", "FUTURE"])},
        {"time": np.array([1, 3, 1], "M8[us]")},
        {"level": np.array([3, 2, 0], np.uint8)},
        {"score:rul": None},
        {"score:anomaly": rows["score:rul"]},
    ):
        found = against(**changes)
        assert (found["stream_equals_offline"], found["differences"]) == (False, 1), changes
    short = {name: column[:2] for name, column in rows.items()}
    assert not against(**short)["stream_equals_offline"]


def test_times_are_read_as_people_and_machines_write_them() -> None:
    assert time_us("1970-01-02") == time_us("1970-01-02T01:00:00+01:00") == time_us("86400000000") == 86_400_000_000
    with pytest.raises(UsageError, match="found 'soon'"):
        time_us("soon")


def test_the_fixture_meets_what_it_must(history: Path) -> None:
    times = next(iter(History.open(history).read(["a-1"], ["oil"]))).times
    assert (np.diff(times) == 0).any()
    assert (np.diff(times // MINUTE_US) == 0).sum() > (np.diff(times) == 0).sum()
    assert PRESS.cadence_us == HAMMER.cadence_us == MINUTE_US
