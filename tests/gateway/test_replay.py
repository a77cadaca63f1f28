"""A replay answers every reading once, in order of event time, whatever the files, the disorder and the network do."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from wheeltapper_command.errors import CommandError, NotFound, Refused, UsageError
from wheeltapper_command.progress import Progress
from wheeltapper_gateway import Gateway, history, verbs
from wheeltapper_gateway.disorder import Disorder
from wheeltapper_gateway.replay import Plan, open_history, replay
from wheeltapper_gateway.rows import parse_time

T0 = 1_700_000_000_000_000
STEP = 600_000_000
READINGS = 40
ASSETS = ("pump-b", "pump-a", "pump-c")
QUIET = Progress(quiet=True)
SENSORS = ("vibration", "temperature", "unused")


def cell(asset: str, place: int) -> float:
    return ASSETS.index(asset) * 1000.0 + place


def moment(place: int) -> int:
    return T0 + place * STEP


def parquet_history(folder: Path) -> Path:
    """Two files of three assets, columns and clocks of their own kind, as foreign writers leave them."""
    (folder / "readings").mkdir(parents=True)
    for name, assets, unit in (("one", ASSETS[:2], "us"), ("two", ASSETS[2:], "ms")):
        ids = [asset for asset in assets for _ in range(READINGS)]
        cells = [None if i == 3 else cell(asset, i) for asset in assets for i in range(READINGS)]
        times = pa.array([moment(i) for _ in assets for i in range(READINGS)]).cast(pa.timestamp("us", "UTC"))
        columns = {
            "asset_id": pa.array(ids).dictionary_encode(),
            "time": times.cast(pa.timestamp(unit, "UTC")),
            "vibration": pa.array(cells, pa.float64()),
            "temperature": pa.array([1] * len(ids), pa.int32()),
            "unused": pa.array([1.0] * len(ids)),
        }
        pq.write_table(pa.table(columns), folder / "readings" / f"{name}.parquet", row_group_size=7)
    classes = {"asset_id": list(ASSETS), "asset_class": ["pump"] * 3, "age": [1, 2, 3], "maker": ["x", "y", "z"]}
    pq.write_table(pa.table(classes), folder / "assets.parquet")
    events = {
        "asset_id": ["pump-a", "pump-b"],
        "time": pa.array([moment(7), moment(3)]).cast(pa.timestamp("us", "UTC")),
        "kind": ["failure", "maintenance"],
        "code": ["seal", "seal"],
    }
    pq.write_table(pa.table(events), folder / "events.parquet")
    return folder


def csv_history(folder: Path) -> Path:
    (folder / "readings").mkdir(parents=True)
    with (folder / "readings" / "all.csv").open("w", newline="") as text:
        writer = csv.writer(text)
        writer.writerow(["asset_id", "time", *SENSORS])
        for asset in ASSETS:
            for i in range(READINGS):
                writer.writerow([asset, moment(i), "" if i == 3 else cell(asset, i), 1, 1.0])
    (folder / "assets.csv").write_text(
        "asset_id,asset_class,age,maker\n" + "".join(f"{asset},pump,{i},x\n" for i, asset in enumerate(ASSETS, 1))
    )
    (folder / "events.csv").write_text(
        f"asset_id,time,kind,code\npump-a,{moment(7)},failure,seal\npump-b,2023-11-14T22:43:20Z,maintenance,seal\n"
    )
    return folder


@pytest.fixture(params=[parquet_history, csv_history])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    made: Path = request.param(tmp_path / "history")
    return made


def plan_to(scorer: Any, **named: Any) -> Plan:
    return Plan(scorer.address, **{"batch_rows": 16, **named})


def test_every_reading_in_the_order_of_time(folder: Path, scorer: Any) -> None:
    report = replay(open_history(str(folder)), plan_to(scorer), QUIET)
    keys = [(asset, when) for asset, when, _ in scorer.rows]
    assert keys == [(asset, moment(i)) for i in range(READINGS) for asset in sorted(ASSETS)]
    assert report.table["asset_id"] == [asset for asset in sorted(ASSETS) for _ in range(READINGS)]
    assert list(report.table["time"]) == [moment(i) for _ in ASSETS for i in range(READINGS)]
    scores = [None if i == 3 else cell(asset, i) for asset in sorted(ASSETS) for i in range(READINGS)]
    assert [None if math.isnan(value) else value for value in report.table["score:rul"]] == scores
    result = report.as_dict()
    assert (result["readings_sent"], result["readings_answered"]) == (120, 120)
    assert (result["statuses"], result["events_sent"], result["releases"]) == ({"OK": 120}, 2, [7])
    assert result["latency_p99_ms"] >= result["latency_p50_ms"] > 0
    stream = scorer.opens[-1]
    assert list(stream.sensors) == ["vibration", "temperature"]  # what the class does not have is left out
    assert (stream.gateway, stream.asset_class) == ("replay/pump", "pump")


def test_events_come_before_the_readings_that_see_them(folder: Path, scorer: Any) -> None:
    replay(open_history(str(folder)), plan_to(scorer, batch_rows=1), QUIET)
    assert scorer.events == [("pump-b", moment(3), "maintenance:seal"), ("pump-a", moment(7), "failure:seal")]
    order = [
        ("event" if hasattr(block, "codes") else "reading", when) for block in scorer.blocks for when in block.times
    ]
    for when in (moment(3), moment(7)):
        place = order.index(("event", when))
        assert all(time < when for kind, time in order[:place] if kind == "reading")
        assert order.index(("reading", when)) > place


@pytest.mark.parametrize("disorder", [Disorder(3 * STEP, 0, 0.3, 1), Disorder(0, 4, 0.3, 2), Disorder(0, 0, 1.0, 3)])
def test_disorder_changes_no_final_answer(folder: Path, scorer: Any, disorder: Disorder) -> None:
    report = replay(open_history(str(folder)), plan_to(scorer, disorder=disorder), QUIET)
    plain = replay(open_history(str(folder)), plan_to(scorer), QUIET)
    for name in ("asset_id", "time", "score:failure"):
        assert repr(report.table[name]) == repr(plain.table[name])
    result = report.as_dict()
    assert (result["readings_sent"], result["readings_answered"]) == (120, 120)
    assert result["duplicates_sent"] > 10
    assert result["statuses"] == {"OK": 120}
    if disorder.late_us or disorder.late_rows:
        assert [row[1] for row in scorer.rows] != sorted(row[1] for row in scorer.rows)


def test_cuts_and_revisions_end_in_one_final_answer(folder: Path, scorer: Any) -> None:
    scorer.revise, scorer.break_after, scorer.swallow = True, 3, 0
    report = replay(open_history(str(folder)), plan_to(scorer, batch_rows=10), QUIET)
    result = report.as_dict()
    assert result["readings_answered"] == 120
    assert result["revisions"] == sum(report.table["revisions"]) >= 10
    assert result["reconnects"] >= 1
    place = list(report.table["revisions"]).index(1)
    asset, i = report.table["asset_id"][place], (report.table["time"][place] - T0) // STEP
    assert report.table["score:rul"][place] == 10 * cell(asset, i)


def test_from_and_warm_up(folder: Path, scorer: Any) -> None:
    plan = plan_to(scorer, from_us=moment(20), warm_up_us=5 * STEP, batch_rows=7)
    report = replay(open_history(str(folder)), plan, QUIET)
    result = report.as_dict()
    assert (result["readings_sent"], result["readings_answered"], result["warm_up_rows"]) == (60, 60, 15)
    assert min(report.table["time"]) == moment(20)
    assert {(when < moment(20), historical) for _, when, historical in scorer.rows} == {(True, True), (False, False)}
    assert min(when for _, when, _ in scorer.rows) == moment(15)
    assert len(scorer.events) == 2  # a time since the last event reaches back further than any warm-up


def test_speed_paces_by_event_time(tmp_path: Path, scorer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sent, send = [], Gateway.send_columns
    monkeypatch.setattr(Gateway, "send_columns", lambda *words, **more: sent.append(words) or send(*words, **more))
    source = open_history(str(csv_history(tmp_path / "h")))
    span_seconds = (READINGS - 1) * STEP / 1e6
    report = replay(source, plan_to(scorer, speed=span_seconds / 0.6, batch_rows=256), QUIET)
    assert 0.55 < report.stream_seconds < 60
    assert report.as_dict()["readings_answered"] == 120
    assert len(sent) > 1  # due rows go, they do not wait for a full block


def test_a_history_larger_than_memory_is_cut_into_spans(
    tmp_path: Path, scorer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "BUCKET_ROWS", 25)
    monkeypatch.setattr(history, "_SAMPLE_STRIDE", 1)
    source = open_history(str(parquet_history(tmp_path / "h")))
    slices = list(source.slices(T0, {"pump": SENSORS[:1]}))
    assert len(slices) == 5
    assert max(len(rows["pump"]) for rows in slices) <= 27
    report = replay(source, plan_to(scorer), QUIET)
    keys = [(asset, when) for asset, when, _ in scorer.rows]
    assert keys == [(asset, moment(i)) for i in range(READINGS) for asset in sorted(ASSETS)]
    assert report.as_dict()["readings_answered"] == 120


def test_two_classes_two_streams_one_file(tmp_path: Path, scorer: Any) -> None:
    folder = csv_history(tmp_path / "h")
    assets = (folder / "assets.csv").read_text().replace("pump-b,pump", "pump-b,fan")
    (folder / "assets.csv").write_text(assets)
    report = replay(open_history(str(folder)), plan_to(scorer), QUIET)
    assert report.classes == ["fan", "pump"]
    assert report.table["asset_id"] == [asset for asset in sorted(ASSETS) for _ in range(READINGS)]
    assert len({opened.gateway for opened in scorer.opens} - {"probe"}) == 2
    assert report.as_dict()["readings_answered"] == 120


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
def test_the_command_writes_what_it_was_told(tmp_path: Path, scorer: Any, ending: str) -> None:
    folder, out = parquet_history(tmp_path / "h"), tmp_path / f"answers{ending}"
    words = ["--to", scorer.address, "--out", str(out), "--features", "--spool", str(tmp_path / "s")]
    words += ["--reasons", "1", "--shuffle", "2rows", "--duplicate", "0.2", "-o", "json", "--quiet"]
    code = f"import sys; sys.argv = ['wheeltapper', 'replay', {str(folder)!r}, *{words!r}]; {RUN}"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["readings_answered"], result["out"]) == (120, str(out))
    assert (tmp_path / "s.pump").exists()
    rows: Sequence[dict[str, Any]]
    if ending == ".parquet":
        table = pq.read_table(out)
        assert table.schema.field("time").type == pa.timestamp("us", "UTC")
        rows = table.to_pylist()
    elif ending == ".csv":
        rows = list(csv.DictReader(out.open()))
    else:
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 120
    assert list(rows[0]) == [
        "asset_id",
        "time",
        "status",
        "release",
        "level",
        "health",
        "revisions",
        "score:rul",
        "alarm:rul",
        "reasons:rul",
        "score:failure",
        "alarm:failure",
        "reasons:failure",
        "feature:vibration mean",
    ]
    assert (rows[5]["asset_id"], rows[5]["status"], float(rows[5]["feature:vibration mean"])) == (
        "pump-a",
        "OK",
        1005.0,
    )
    assert rows[5]["reasons:failure"] == "vibration mean -1e+03"


def test_a_bare_install_replays_csv_and_says_what_parquet_needs(tmp_path: Path, scorer: Any) -> None:
    bare = "import sys; sys.modules.update(pyarrow=None, numpy=None, numba=None); "
    folder, out = csv_history(tmp_path / "h"), tmp_path / "answers.csv"
    words = ["wheeltapper", "replay", str(folder), "--to", scorer.address, "--quiet", "--out"]
    for name, code in ((out, 0), (tmp_path / "answers.parquet", 2)):
        program = f"{bare}sys.argv = {[*words, str(name)]!r}; {RUN}"
        done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stderr
    assert "wheeltapper-gateway[replay]" in done.stderr
    assert len(list(csv.DictReader(out.open()))) == 120


# The one verb, so that this test needs no other package's.
RUN = (
    "import wheeltapper_command.main as m; from wheeltapper_gateway.verbs import replay; "
    "m.load_verbs = lambda: [replay]; sys.exit(m.main())"
)


def test_what_is_wrong_is_said_before_anything_is_sent(tmp_path: Path, scorer: Any) -> None:
    with pytest.raises(NotFound, match=r"readings/\*\.parquet or \*\.csv"):
        open_history(str(tmp_path))
    folder = csv_history(tmp_path / "h")
    (folder / "assets.csv").write_text("asset_id,asset_class\npump-a,pump\n")
    with pytest.raises(UsageError, match="pump-b"):
        open_history(str(folder))
    (folder / "assets.csv").write_text("asset_id\npump-a\n")
    with pytest.raises(UsageError, match="asset_class"):
        open_history(str(folder))
    parquet = parquet_history(tmp_path / "p")
    pq.write_table(pa.table({"asset_id": ["pump-a"], "when": [1]}), parquet / "readings" / "x.parquet")
    with pytest.raises(UsageError, match="expected a column time, found asset_id, when"):
        open_history(str(parquet))
    scorer.class_sensors = ("pressure",)
    with pytest.raises(Refused, match="pressure"):
        replay(open_history(str(csv_history(tmp_path / "q"))), plan_to(scorer), QUIET)
    with pytest.raises(CommandError, match="no scorer answered"):
        replay(open_history(str(tmp_path / "q")), Plan("127.0.0.1:1", patience_seconds=0.3), QUIET)
    with pytest.raises(UsageError, match="yesterday"):
        parse_time("yesterday")
    assert parse_time("5") == parse_time("1970-01-01T01:00:00.000005+01:00") == 5
    assert verbs.lateness("5rows") == (0.0, 5)
    assert verbs.lateness("2h") == (7200.0, 0)
    with pytest.raises(UsageError, match="--shuffle"):
        verbs.lateness("soon")


def test_a_spool_that_another_replay_left_is_sent_and_its_answers_left_out(tmp_path: Path, scorer: Any) -> None:
    """Interrupted, of other assets: its readings go out first, and only this history's are reported."""
    spool = tmp_path / "s"
    sensors = SENSORS[:2]
    with Gateway("127.0.0.1:1", name="replay/pump", asset_class="pump", sensors=sensors, spool=f"{spool}.pump") as left:
        left.send_many(["old", "pump-a"], [moment(50), moment(1)], [[1.0, 1.0], [cell("pump-a", 1), 1.0]])
        left.close(timeout=0.0)
    source = open_history(str(csv_history(tmp_path / "h")))
    report = replay(source, plan_to(scorer, spool=str(spool), patience_seconds=5), QUIET)
    assert scorer.rows[:2] == [("old", moment(50), False), ("pump-a", moment(1), False)]
    assert report.table["asset_id"] == [asset for asset in sorted(ASSETS) for _ in range(READINGS)]
    result = report.as_dict()
    assert (result["readings_answered"], result["answers_left_out"]) == (120, 1)


def test_reasons_bring_no_columns_of_features(folder: Path, scorer: Any) -> None:
    report = replay(open_history(str(folder)), plan_to(scorer, reasons=2, reasons_always=True), QUIET)
    assert not [name for name in report.table if name.startswith("feature:")]
    assert report.table["reasons:rul"][5] == f"vibration mean {cell('pump-a', 5):+.3g}"
    opened = scorer.opens[-1]
    assert (opened.reasons_top, opened.reasons_always, opened.want_features) == (2, True, False)
