"""Histories at rest: what is written reads back, foreign files are taken, wrong ones are refused with a word why."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wheeltapper.errors import NotFound, Refused
from wheeltapper_trainer.history import (
    History,
    TableWriter,
    UnreadableFileError,
    read_csv,
    read_table,
    write_table,
)
from wheeltapper_trainer.history_writer import HistoryWriter
from wheeltapper_trainer.records import Asset, AssetReadings, Events, HistoryError, content_digest

HOUR = 3_600_000_000


def readings(rows: int, sensors: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    times = np.cumsum(random.integers(0, HOUR, rows))
    values = random.standard_normal((rows, sensors)).astype(np.float32)
    values[random.random((rows, sensors)) < 0.1] = np.nan
    return times, values


def write(path: Path, sizes: dict[str, int], file_rows: int = 1_000_000) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pumps (sensors a, b) of the given sizes, with one failure each."""
    written = {}
    with HistoryWriter(path, {"pump": ["a", "b"]}, file_rows) as writer:
        for seed, (asset_id, rows) in enumerate(sorted(sizes.items())):
            written[asset_id] = readings(rows, 2, seed)
            writer.add(Asset(asset_id, "pump", {"age": float(seed)}), *written[asset_id])
            writer.add_events([(asset_id, 5, "failure", "seal")])
    return written


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(0, 9_000), min_size=1, max_size=9), file_rows=st.sampled_from([1, 5_000, 1_000_000]))
def test_what_is_written_reads_back_in_any_order(tmp_path_factory: Any, sizes: list[int], file_rows: int) -> None:
    path = tmp_path_factory.mktemp("history") / "own"
    written = write(path, {f"p{i:03d}": rows for i, rows in enumerate(sizes)}, file_rows)
    history = History.open(path)
    asked = sorted(written, reverse=True)
    found = list(history.read(asked, ["b", "a"]))
    assert [r.asset_id for r in found] == asked
    for one in found:
        times, values = written[one.asset_id]
        np.testing.assert_array_equal(one.times, times)
        np.testing.assert_array_equal(one.values, values[:, ::-1])
        assert one.values.dtype == np.float32
    assert {part.asset_id: part.rows for part in history.plan()} == dict(zip(sorted(written), sizes, strict=True))
    stored = [t for times, _ in written.values() for t in times.tolist()]
    if stored:
        assert history.span() == (min(stored), max(stored))


@pytest.mark.parametrize("assets", [6, 24])
def test_a_task_looks_at_its_own_files_alone_however_large_the_fleet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, assets: int
) -> None:
    written = write(tmp_path / "h", {f"p{i:02d}": 4_096 for i in range(assets)}, file_rows=8_192)
    whole = History.open(tmp_path / "h")
    assert len(whole.reading_files()) == assets // 2
    excerpt = pickle.loads(pickle.dumps(whole.excerpt(["p03", "p02"])))  # as it comes to a worker
    digests = {asset_id: whole.digest(asset_id) for asset_id in ("p02", "p03")}
    opened: list[str] = []
    plain = pq.ParquetFile
    monkeypatch.setattr(pq, "ParquetFile", lambda file: opened.append("readings") or plain(file))
    for name in ("scan", "History._table"):
        monkeypatch.setattr(f"wheeltapper_trainer.history.{name}", lambda *_: pytest.fail("a worker scanned"))
    part = History.of(excerpt)
    assert part.asset_ids() == ["p02", "p03"]
    assert {asset_id: part.digest(asset_id) for asset_id in digests} == digests
    for found in part.read(["p02", "p03"], ["a", "b"]):
        np.testing.assert_array_equal(found.values, written[found.asset_id][1])
    assert part.events(["p03"]).codes.tolist() == ["seal"]
    assert part.failed_components("pump") == {"seal"}
    assert len(opened) == 1


def test_an_excerpt_knows_what_failed_elsewhere_in_its_class(tmp_path: Path) -> None:
    times, values = readings(10, 1)
    with HistoryWriter(tmp_path / "h", {"pump": ["a"], "fan": ["c"]}) as writer:
        for name in ("p1", "p2", "pump-with-a-long-name"):
            writer.add(Asset(name, "pump", {}), times, values)
        writer.add(Asset("f1", "fan", {}), times, values)
        writer.add_events([("p1", 9, "failure", "seal"), ("p1", 3, "error", "e"), ("f1", 4, "failure", "hub")])
    whole = History.open(tmp_path / "h")
    excerpt = whole.excerpt(["p2", "pump-with-a-long-name"])
    assert excerpt.failed == {"seal"}
    assert len(excerpt.events) == 0
    assert whole.excerpt(["p1"]).events.times.tolist() == [3, 9]


def test_files_that_cannot_be_read_cost_their_assets_only_where_asked(tmp_path: Path) -> None:
    write(tmp_path / "h", {f"p{i}": 4_096 for i in range(6)}, file_rows=8_192)
    truncated = tmp_path / "h" / "readings" / "pump-00001.parquet"
    truncated.write_bytes(truncated.read_bytes()[:-9])
    with pytest.raises(UnreadableFileError, match=r"pump-00001\.parquet cannot be read as Parquet"):
        History.open(tmp_path / "h").plan()
    history = History.open(tmp_path / "h", skip_unreadable=True)
    assert [part.asset_id for part in history.plan() if part.rows] == ["p0", "p1", "p4", "p5"]
    assert history.lost().keys() == {"p2", "p3"}
    assert "pump-00001.parquet cannot be read" in history.lost()["p2"]
    assert history.span()[0] >= 0


def test_small_assets_share_row_groups_and_large_ones_are_cut(tmp_path: Path) -> None:
    written = write(tmp_path / "h", {"p0": 100, "p1": 100, "p2": 150_000, "p3": 10})
    parts = {part.asset_id: part for part in History.open(tmp_path / "h").plan()}
    assert parts["p0"].groups[0][0] == parts["p1"].groups[0][0]
    assert len(parts["p2"].groups) >= 3
    found = next(History.open(tmp_path / "h").read(["p2"], ["a", "b"]))
    np.testing.assert_array_equal(found.values, written["p2"][1])


def test_classes_events_and_attributes(tmp_path: Path) -> None:
    times, values = readings(10, 1)
    with HistoryWriter(tmp_path / "h", {"pump": ["a"], "fan": ["c"]}) as writer:
        writer.add(Asset("p1", "pump", {"age": 3.0}), times, values)
        writer.add(Asset("f1", "fan", {"blades": 5.0}), times, values)
        writer.add_events([("p1", 9, "error", "e"), ("f1", 4, "failure", "hub"), ("p1", 2, "error", "e")])
    history = History.open(tmp_path / "h")
    assert (history.classes(), history.sensors("fan"), history.sensors("pump")) == (["fan", "pump"], ["c"], ["a"])
    assert (history.asset_ids(), history.asset_ids("pump")) == (["f1", "p1"], ["p1"])
    fan, pump = history.assets()
    assert fan.attributes["blades"] == 5.0
    assert np.isnan(fan.attributes["age"])
    assert pump.attributes["age"] == 3.0
    events = history.events()
    assert events.asset_ids.tolist() == ["f1", "p1", "p1"]
    assert events.of_asset("p1").times.tolist() == [2, 9]
    assert events.of_asset("p").times.tolist() == []
    assert history.events(["f1"]).codes.tolist() == ["hub"]
    assert events.times_of("error").tolist() == [2, 9]
    assert events.times_of("failure", "seal").tolist() == []
    assert sorted(path.name for path in (tmp_path / "h" / "readings").iterdir()) == [
        "fan-00000.parquet",
        "pump-00000.parquet",
    ]


def test_the_digest_changes_with_the_content_and_only_with_it(tmp_path: Path) -> None:
    write(tmp_path / "one", {"p0": 50, "p1": 9_000})
    write(tmp_path / "two", {"p0": 50, "p1": 9_000, "p2": 70}, file_rows=1)
    one, two = History.open(tmp_path / "one"), History.open(tmp_path / "two")
    assert [one.digest(a) for a in ("p0", "p1")] == [two.digest(a) for a in ("p0", "p1")]
    assert one.digest("p0") != one.digest("p1")

    asset = Asset("p0", "pump", {"age": 1.0})
    own = AssetReadings("p0", *readings(20, 2))
    events = Events.of_rows([("p0", 5, "failure", "seal")])
    base = content_digest(asset, ["a", "b"], own, events)
    assert content_digest(asset, ["b", "a"], replace(own, values=own.values[:, ::-1]), events) == base
    other_nan = own.values.copy()
    other_nan.view(np.uint32)[np.isnan(other_nan)] = 0xFFC00001
    assert content_digest(asset, ["a", "b"], replace(own, values=other_nan), events) == base
    changed = own.values.copy()
    changed[np.isfinite(changed)] = np.nextafter(changed[np.isfinite(changed)], np.float32(np.inf))
    later = own.times.copy()
    later[-1] += 1
    for different in (
        content_digest(asset, ["a", "b"], replace(own, values=changed), events),
        content_digest(asset, ["a", "b"], replace(own, times=later), events),
        content_digest(asset, ["b", "a"], own, events),
        content_digest(asset, ["a", "c"], own, events),
        content_digest(replace(asset, attributes={"age": 2.0}), ["a", "b"], own, events),
        content_digest(asset, ["a", "b"], own, Events.of_rows([("p0", 6, "failure", "seal")])),
        content_digest(asset, ["a", "b"], own, Events.of_rows([("p0", 5, "failure", "bearing")])),
    ):
        assert different != base


def test_a_failed_write_leaves_nothing_and_a_second_never_overwrites(tmp_path: Path) -> None:
    def fail_half_way() -> None:
        with HistoryWriter(tmp_path / "h", {"pump": ["a"]}) as writer:
            writer.add(Asset("p", "pump", {}), *readings(5_000, 1))
            raise RuntimeError("power")

    with pytest.raises(RuntimeError, match="power"):
        fail_half_way()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "h").mkdir()
    write(tmp_path / "h", {"p0": 3})  # an empty folder is fine
    assert [path.name for path in tmp_path.iterdir()] == ["h"]
    with pytest.raises(Refused, match="not empty"):
        HistoryWriter(tmp_path / "h", {"pump": ["a"]})


def test_the_writer_refuses_disorder(tmp_path: Path) -> None:
    times, values = readings(9, 1)
    pump = Asset("p5", "pump", {})
    wrongs = [
        (replace(pump, asset_id="p4"), times, values),
        (pump, times, values),
        (replace(pump, asset_id="p6"), times[::-1], values),
        (replace(pump, asset_id="p6"), times, np.zeros((9, 2), np.float32)),
    ]

    def write_after(wrong: tuple[Asset, np.ndarray, np.ndarray]) -> None:
        with HistoryWriter(tmp_path / "h", {"pump": ["a"]}) as writer:
            writer.add(pump, times, values)
            writer.add(*wrong)

    for wrong in wrongs:
        with pytest.raises(HistoryError):
            write_after(wrong)


# Files of other writers ---


def foreign(path: Path, columns: dict[str, Any], assets: dict[str, Any] | None = None) -> History:
    (path / "readings").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path / "readings" / "all.parquet", row_group_size=3)
    pq.write_table(
        pa.table(assets or {"asset_id": ["p0", "p1"], "asset_class": ["pump", "pump"]}), path / "assets.parquet"
    )
    return History.open(path)


IDS = ["p0"] * 4 + ["p1"] * 2
STAMPS = np.arange(6) * HOUR


@pytest.mark.parametrize(
    "times",
    [
        pa.array(STAMPS).cast(pa.timestamp("us", "UTC")),
        pa.array(STAMPS).cast(pa.timestamp("us")),
        pa.array(STAMPS * 1_000 + 1).cast(pa.timestamp("ns", "Europe/Berlin")),
        pa.array(STAMPS // 1_000_000).cast(pa.timestamp("s", "UTC")),
        pa.array(STAMPS // 1_000).cast(pa.timestamp("ms")),
    ],
    ids=["us-utc", "us", "ns-berlin", "s", "ms"],
)
def test_times_of_any_unit_and_zone_are_the_same_moments(tmp_path: Path, times: pa.Array) -> None:
    history = foreign(tmp_path, {"asset_id": IDS, "time": times, "a": [1.0] * 6})
    assert np.concatenate([r.times for r in history.read(["p0", "p1"], ["a"])]).tolist() == STAMPS.tolist()
    assert history.span() == (0, 5 * HOUR)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([1, 2, None, 4, 5, 6], pa.int64()), [1, 2, np.nan, 4, 5, 6]),
        (pa.array([1.5, None, float("nan"), 4, 5, 6], pa.float64()), [1.5, np.nan, np.nan, 4, 5, 6]),
        (pa.array([True, False, None, True, True, True]), [1, 0, np.nan, 1, 1, 1]),
        (pa.array([2**24 + 1, 0, 0, 0, 0, 0], pa.int64()), [2**24, 0, 0, 0, 0, 0]),
    ],
)
def test_every_number_type_becomes_float32_with_null_as_nan(
    tmp_path: Path, column: pa.Array, expected: list[float]
) -> None:
    history = foreign(
        tmp_path, {"asset_id": pa.array(IDS).dictionary_encode(), "time": STAMPS.view("M8[us]"), "a": column}
    )
    found = np.concatenate([r.values[:, 0] for r in history.read(["p0", "p1"], ["a"])])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array(expected, np.float32))


def read_all(history: History) -> None:
    assert history.plan()
    list(history.read(history.asset_ids(), ["a"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": None}, "no column 'a'.*found"),
        ({"time": None}, "no column 'time'"),
        ({"asset_id": None}, "no column 'asset_id'"),
        ({"a": ["x"] * 6}, "'a' must be numeric, found string"),
        ({"time": STAMPS}, "'time' must be a timestamp.*int64"),
        ({"asset_id": ["p1"] * 2 + ["p0"] * 4}, "not sorted: asset 'p0' follows 'p1'"),
        ({"asset_id": ["p0", "p1", "p0", "p0", "p1", "p1"]}, "not sorted"),
        ({"time": STAMPS[::-1].view("M8[us]")}, "not sorted: the times of asset 'p0' fall"),
        ({"asset_id": ["p0"] * 3 + [None] * 3}, "without asset_id"),
        ({"asset_id": ["p0"] * 4 + ["p9"] * 2}, "'p9', which assets.parquet does not list"),
    ],
)
def test_a_wrong_file_is_refused_with_a_word_why(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    columns = {"asset_id": IDS, "time": STAMPS.view("M8[us]"), "a": [1.0] * 6} | change
    history = foreign(tmp_path, {name: column for name, column in columns.items() if column is not None})
    with pytest.raises(HistoryError, match=message):
        read_all(history)


def test_an_asset_in_two_files_and_classes_of_different_sensors_are_refused(tmp_path: Path) -> None:
    history = foreign(tmp_path, {"asset_id": IDS, "time": STAMPS.view("M8[us]"), "a": [1.0] * 6})
    pq.write_table(
        pa.table({"asset_id": ["p1"], "time": STAMPS[:1].view("M8[us]"), "a": [1.0]}), tmp_path / "readings/z.parquet"
    )
    with pytest.raises(HistoryError, match=r"z\.parquet holds rows of asset 'p1'.*all\.parquet"):
        read_all(history)
    both = {"asset_id": ["p0", "p1", "p2"], "asset_class": ["pump"] * 3}
    other = foreign(tmp_path / "other", {"asset_id": IDS, "time": STAMPS.view("M8[us]"), "a": [1.0] * 6}, both)
    table = pa.table({"asset_id": ["p2"], "time": STAMPS[:1].view("M8[us]"), "b": [1.0]})
    pq.write_table(table, tmp_path / "other/readings/z.parquet")
    with pytest.raises(HistoryError, match="class 'pump' has sensors"):
        other.sensors("pump")


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no history at"):
        History.open(tmp_path / "nowhere")
    history = foreign(tmp_path, {"asset_id": IDS, "time": STAMPS.view("M8[us]"), "a": [1.0] * 6})
    assert len(history.events()) == 0  # no events.parquet: no events
    write_table(
        tmp_path / "events.parquet",
        {
            "asset_id": np.array(["p7"]),
            "time": STAMPS[:1].view("M8[us]"),
            "kind": np.array(["error"]),
            "code": np.array(["e"]),
        },
    )
    with pytest.raises(HistoryError, match="asset 'p7'"):
        History.open(tmp_path).events()
    raw = (tmp_path / "readings/all.parquet").read_bytes()
    (tmp_path / "readings/all.parquet").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(HistoryError, match=r"all\.parquet cannot be read as Parquet"):
        read_all(History.open(tmp_path))
    (tmp_path / "assets.parquet").unlink()
    with pytest.raises(NotFound, match=r"no assets\.parquet"):
        History.open(tmp_path).assets()
    assets = {"asset_id": ["p0", "p0"], "asset_class": ["pump", "pump"]}
    with pytest.raises(HistoryError, match="'p0' more than once"):
        foreign(tmp_path / "b", {"asset_id": IDS, "time": STAMPS.view("M8[us]"), "a": [1.0] * 6}, assets).assets()


# Tables and CSV ---


def test_tables_are_whole_or_absent(tmp_path: Path) -> None:
    columns = {
        "asset_id": np.array(["ä", "b"]),
        "time": STAMPS[:2].view("M8[us]"),
        "score:rul": np.array([1, np.nan], np.float32),
    }
    with TableWriter(tmp_path / "deep" / "t.parquet") as writer:
        writer.write(columns)
        writer.write(columns)
    found = read_table(tmp_path / "deep" / "t.parquet")
    for name, column in columns.items():
        np.testing.assert_array_equal(found[name], np.concatenate([column, column]))
    assert pq.read_schema(tmp_path / "deep" / "t.parquet").field("time").type == pa.timestamp("us", "UTC")

    def fail_half_way() -> None:
        with TableWriter(tmp_path / "u.parquet") as writer:
            writer.write(columns)
            raise RuntimeError("power")

    with pytest.raises(RuntimeError, match="power"):
        fail_half_way()
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    with pytest.raises(HistoryError, match="no column 'x'"):
        read_table(tmp_path / "deep" / "t.parquet", ["x"])


@pytest.mark.parametrize(
    "written",
    [
        "2015-01-03 07:00:00",
        "2015-01-03T07:00:00.000000",
        "2015-01-03T08:00:00+01:00",
        "2015-01-03T07:00:00Z",
        "1/3/2015 7:00:00 AM",
    ],
)
def test_csv_takes_times_as_people_write_them(tmp_path: Path, written: str) -> None:
    path = tmp_path / "r.csv"
    path.write_text(f"\ufefftime,id,a\n{written},007,\n{written},x,1.5\n")
    found = read_csv(path, ["id"], ["time"])
    assert found["time"].tolist() == [np.datetime64("2015-01-03T07:00", "us").astype(object)] * 2
    assert found["id"].tolist() == ["007", "x"]
    np.testing.assert_array_equal(found["a"], np.array([np.nan, 1.5], np.float32))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time,a\n2015-01-01,1\n2015-01-02,cold\n", r"column 'a'.*Row #3.*cold"),
        ("time,a\n2015-01-01,1\nyesterday,2\n", r"column 'time'.*Row #3.*yesterday"),
        ("when,a\n2015-01-01,1\n", "no column 'time': expected"),
        ("time,a\n2015-01-01,1,2\n", "Expected 2 columns, got 3"),
        ("", "no column 'time'"),
    ],
)
def test_csv_errors_name_column_and_row(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.csv"
    path.write_text(text)
    with pytest.raises(HistoryError, match=message):
        read_csv(path, times=["time"])
