"""Files that others wrote: any kind of time and number is taken, what is wrong is refused with a word why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from wheeltapper.errors import NotFound
from wheeltapper_trainer.history import History, TableWriter, read_csv, read_table, write_table
from wheeltapper_trainer.records import HistoryError

HOUR = 3_600_000_000


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
