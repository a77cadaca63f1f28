"""Imports: tiny handmade files of every source, wrong ones refused by file, row and column, and the real sets."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wheeltapper.config import load_fleet
from wheeltapper.errors import NotFound, UsageError
from wheeltapper_command.main import parser
from wheeltapper_command.progress import Progress
from wheeltapper_trainer.fleets import SKAB_BEGIN_US, SKAB_SENSORS, SMD_TEST_FROM_US, spec_for
from wheeltapper_trainer.history import History, read_table
from wheeltapper_trainer.history_verbs import import_
from wheeltapper_trainer.importers import KINDS, import_history
from wheeltapper_trainer.records import HistoryError

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("WHEELTAPPER_DATA", ROOT.parent / "shared" / "data"))
HOUR, MINUTE, SECOND = 3_600_000_000, 60_000_000, 1_000_000


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def values_of(history: History, asset_id: str) -> np.ndarray[Any, Any]:
    asset = next(a for a in history.assets() if a.asset_id == asset_id)
    return next(history.read([asset_id], history.sensors(asset.asset_class))).values


def times_of(history: History, asset_id: str) -> np.ndarray[Any, Any]:
    return next(history.read([asset_id], [])).times


# C-MAPSS ---


def cmapss(folder: Path, subset: str = "FD001") -> Path:
    def rows(lives: list[int]) -> str:
        sensors = " ".join(f"{s}.5" for s in range(24))
        return "".join(f"{unit} {c} {sensors}  \n" for unit, life in enumerate(lives, 1) for c in range(1, life + 1))

    write(folder / f"train_{subset}.txt", rows([5, 3]))
    write(folder / f"test_{subset}.txt", rows([2, 4, 1]))
    write(folder / f"RUL_{subset}.txt", "7\n9\n11\n")
    return folder


@pytest.mark.parametrize("subset", ["FD001", "FD004"])
def test_cmapss(tmp_path: Path, subset: str) -> None:
    written = import_history("cmapss", cmapss(tmp_path / "in", subset), tmp_path / "out", subset)
    assert (written["assets"], written["readings"], written["events"], written["failures"]) == (5, 15, 7, 2)
    history = History.open(tmp_path / "out")
    names = [f"{subset}-test-00{i}" for i in (1, 2, 3)] + [f"{subset}-train-00{i}" for i in (1, 2)]
    assert history.asset_ids() == names
    assert [a.attributes["test"] for a in history.assets()] == [1, 1, 1, 0, 0]
    assert [a.attributes["rul_at_end"] for a in history.assets()][:3] == [7, 9, 11]
    assert np.isnan(history.assets()[3].attributes["rul_at_end"])
    times = times_of(history, f"{subset}-train-001")
    assert np.diff(times).tolist() == [HOUR] * 4
    assert values_of(history, f"{subset}-train-001")[0].tolist() == [s + 0.5 for s in range(24)]
    events = history.events()
    ends = events.kinds == "failure"
    assert events.asset_ids[ends].tolist() == names[3:]
    assert events.codes[ends].tolist() == ["engine"] * 2
    assert events.times[ends][0] == times[-1]
    assert events.asset_ids[~ends].tolist() == names
    assert set(zip(events.kinds[~ends].tolist(), events.codes[~ends].tolist(), strict=True)) == {
        ("maintenance", "installed")
    }
    assert set(events.times[~ends].tolist()) == {int(times[0])}
    fleet = load_fleet(tmp_path / "out" / "fleet.toml")
    assert fleet.split.by == "asset"
    assert (fleet.classes[0].regime is not None) == (subset == "FD004")
    assert "rul_at_end" not in fleet.classes[0].statics


def test_cmapss_refuses_what_it_cannot_be(tmp_path: Path) -> None:
    folder = cmapss(tmp_path / "in")
    with pytest.raises(NotFound, match=r"no subset FD002.*FD001"):
        import_history("cmapss", folder, tmp_path / "out", "FD002")
    write(folder / "RUL_FD001.txt", "7\n")
    with pytest.raises(HistoryError, match=r"RUL_FD001\.txt has 1 rows, test_FD001\.txt has 3 engines"):
        import_history("cmapss", folder, tmp_path / "out")
    lines = (folder / "train_FD001.txt").read_text().splitlines()
    write(folder / "train_FD001.txt", "\n".join([lines[0], *lines[2:]]))
    write(folder / "RUL_FD001.txt", "7\n9\n11\n")
    with pytest.raises(HistoryError, match=r"train_FD001\.txt, row 1: expected engine 1 with cycles 1 to 4"):
        import_history("cmapss", folder, tmp_path / "out")
    write(folder / "train_FD001.txt", lines[0] + "\n" + lines[1].rsplit(" ", 3)[0] + "\n")
    with pytest.raises(HistoryError, match=r"train_FD001\.txt"):
        import_history("cmapss", folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Azure ---


def azure(folder: Path, style: str) -> Path:
    if style == "daily":
        header = "machineID,date,mean_daily_voltage,mean_daily_rotation,mean_daily_pressure,mean_daily_vibration,error1"
        write(
            folder / "PdM_telemetry_daily.csv",
            f"{header}\n2,2015-01-01,1,2,3,4,0\n1,2015-01-02,1,2,3,4,0\n1,2015-01-01,5,6,7,8,0\n",
        )
    else:
        when = ("1/1/2015 {}:00:00 AM" if style == "template" else "2015-01-01 0{}:00:00").format
        rows = "".join(f"{when(h)},{m},{h},2,3,{m}\n" for m in (2, 1) for h in (6, 7, 8))
        write(folder / "PdM_telemetry.csv", f"datetime,machineID,volt,rotate,pressure,vibration\n{rows}")
    write(folder / "PdM_errors.csv", "datetime,machineID,errorID\n2015-01-01 07:00:00,1,error3\n")
    write(
        folder / ("PdM_maint.csv" if style == "template" else "PdM_maintenance.csv"),
        "datetime,machineID,comp\n2014-06-01T06:00:00.0,2,comp2\n",
    )
    write(folder / "PdM_failures.csv", "datetime,machineID,failure\n2015-01-01 08:00:00,1,comp4\n")
    write(folder / "PdM_machines.csv", "machineID,model,age\n1,model3,18\n2,model4,7\n")
    return folder


@pytest.mark.parametrize("style", ["template", "iso", "daily"])
def test_azure(tmp_path: Path, style: str) -> None:
    import_history("azure-pdm", azure(tmp_path / "in", style), tmp_path / "out")
    history = History.open(tmp_path / "out")
    assert {a.asset_id: dict(a.attributes) for a in history.assets()} == {
        "machine-001": {"age": 18, "model": 3},
        "machine-002": {"age": 7, "model": 4},
    }
    events = history.events()
    assert list(zip(events.asset_ids.tolist(), events.kinds.tolist(), events.codes.tolist(), strict=True)) == [
        ("machine-001", "error", "error3"),
        ("machine-001", "failure", "comp4"),
        ("machine-002", "maintenance", "comp2"),
    ]
    first = np.datetime64("2015-01-01T00", "us").astype(np.int64)
    if style == "daily":  # a day's mean is known at the midnight after it
        assert times_of(history, "machine-001").tolist() == [first + 24 * HOUR, first + 48 * HOUR]
        assert values_of(history, "machine-001")[0].tolist() == [5, 6, 7, 8]
    else:
        assert times_of(history, "machine-001").tolist() == [first + h * HOUR for h in (6, 7, 8)]
        assert values_of(history, "machine-002").tolist() == [[h, 2, 3, 2] for h in (6, 7, 8)]
    assert load_fleet(tmp_path / "out" / "fleet.toml") == spec_for(
        "azure-pdm-daily" if style == "daily" else "azure-pdm"
    )


def test_azure_names_what_is_missing(tmp_path: Path) -> None:
    folder = azure(tmp_path / "in", "iso")
    write(folder / "PdM_failures.csv", "datetime,machineID,part\n")
    with pytest.raises(HistoryError, match=r"PdM_failures\.csv has no column 'failure'"):
        import_history("azure-pdm", folder, tmp_path / "out")
    write(folder / "PdM_machines.csv", "machineID,model,age\n1,model3,18\n")
    with pytest.raises(HistoryError, match="machine-002"):
        import_history("azure-pdm", folder, tmp_path / "out")
    (folder / "PdM_telemetry.csv").unlink()
    with pytest.raises(NotFound, match=r"PdM_telemetry\.csv or PdM_telemetry_daily\.csv"):
        import_history("azure-pdm", folder, tmp_path / "out")


# SKAB, NAB, SMD ---


def test_skab_puts_experiments_on_one_clock(tmp_path: Path) -> None:
    header = ";".join(["datetime", *SKAB_SENSORS])
    numbers = ";".join(f"{i}.25" for i in range(8))
    rows = f"2020-03-09 10:14:33;{numbers};0.0;0.0\n2020-03-09 10:14:35;{numbers};1.0;1.0\n"
    write(tmp_path / "in/valve1/0.csv", f"{header};anomaly;changepoint\n{rows}")
    write(tmp_path / "in/anomaly-free/anomaly-free.csv", f"{header}\n2020-02-08 13:30:47;{numbers}\n")
    assert import_history("skab", tmp_path / "in", tmp_path / "out")["labels"]
    history = History.open(tmp_path / "out")
    assert history.asset_ids() == ["anomaly-free", "valve1-0"]
    assert history.sensors("loop") == list(SKAB_SENSORS.values())  # the labels are no sensors
    assert times_of(history, "valve1-0").tolist() == [SKAB_BEGIN_US, SKAB_BEGIN_US + 2 * SECOND]
    assert times_of(history, "anomaly-free").tolist() == [SKAB_BEGIN_US]
    labels = read_table(tmp_path / "out" / "labels.parquet")
    assert labels["asset_id"].tolist() == ["anomaly-free", "valve1-0", "valve1-0"]
    assert labels["anomaly"].tolist() == labels["changepoint"].tolist() == [False, False, True]
    fleet = load_fleet(tmp_path / "out" / "fleet.toml")
    assert fleet.split.test_from_us == SKAB_BEGIN_US + 400 * SECOND
    write(tmp_path / "in/valve1/1.csv", "datetime;Current\n2020-03-09 10:14:33;1\n")
    with pytest.raises(HistoryError, match=r"1\.csv has no column 'Accelerometer1RMS'"):
        import_history("skab", tmp_path / "in", tmp_path / "again")


@pytest.mark.parametrize("as_file", [False, True])
def test_nab_adds_the_calendar(tmp_path: Path, as_file: bool) -> None:
    rows = "2013-12-06 18:00:00,70\n2013-12-06 06:00:00,71\n2013-12-07 12:00:00,72\n"  # Friday, Friday, Saturday
    path = write(tmp_path / "in/pump.csv", f"timestamp,value\n{rows}")
    windows = {"real/pump.csv": [["2013-12-06 00:00:00.000000", "2013-12-06 09:00:00.000000"]], "real/fan.csv": []}
    write(tmp_path / "in/combined_windows.json", json.dumps(windows))
    import_history("nab", path if as_file else path.parent, tmp_path / "out")
    found = values_of(History.open(tmp_path / "out"), "pump")
    np.testing.assert_allclose(found, [[71, 1, 0, 0], [70, -1, 0, 0], [72, 0, -1, 1]], atol=1e-6)
    labels = read_table(tmp_path / "out" / "labels.parquet")
    assert [str(labels[n][0]) for n in ("asset_id", "begin", "end")] == [
        "pump",
        "2013-12-06T00:00:00.000000",
        "2013-12-06T09:00:00.000000",
    ]


def test_smd_begins_every_test_at_the_same_moment(tmp_path: Path) -> None:
    def rows(count: int) -> str:
        return "".join(",".join(f"{i + m / 100}" for m in range(38)) + "\n" for i in range(count))

    for name, count in (("machine-1-6", 5), ("machine-1-7", 3)):
        (tmp_path / "in/train").mkdir(parents=True, exist_ok=True)
        with gzip.open(tmp_path / f"in/train/{name}.txt.gz", "wt") as file:
            file.write(rows(count))
        write(tmp_path / f"in/test/{name}.txt", rows(2))
        write(tmp_path / f"in/test_label/{name}.txt", "0\n1\n")
    import_history("smd", tmp_path / "in", tmp_path / "out")
    history = History.open(tmp_path / "out")
    for name, count in (("machine-1-6", 5), ("machine-1-7", 3)):
        assert times_of(history, name).tolist() == [SMD_TEST_FROM_US + MINUTE * i for i in range(-count, 2)]
    np.testing.assert_allclose(values_of(history, "machine-1-7")[:, 37], [0.37, 1.37, 2.37, 0.37, 1.37], rtol=1e-6)
    assert read_table(tmp_path / "out" / "labels.parquet")["anomaly"].tolist() == [False, True] * 2
    write(tmp_path / "in/test_label/machine-1-6.txt", "0\n")
    with pytest.raises(HistoryError, match=r"machine-1-6\.txt has 1 rows, the test of machine-1-6 2"):
        import_history("smd", tmp_path / "in", tmp_path / "again")
    (tmp_path / "in/test/machine-1-6.txt").unlink()
    with pytest.raises(NotFound, match=r"machine-1-6\.txt"):
        import_history("smd", tmp_path / "in", tmp_path / "again")


# Plain CSV ---


def test_plain_csv_of_two_classes(tmp_path: Path) -> None:
    write(
        tmp_path / "in/readings.csv",
        "time,asset_id,asset_class,heat,flow\n"
        "2024-01-01T00:10:00Z,p1,pump,2,20\n2024-01-01T00:00:00Z,p1,pump,1,\n2024-01-01T00:00:00Z,f1,fan,7,\n",
    )
    write(tmp_path / "in/events.csv", "asset_id,time,kind,code\np1,2024-01-01T00:05:00Z,failure,seal\n")
    written = import_history("csv", tmp_path / "in", tmp_path / "out")
    assert (written["assets"], written["readings"], written["events"]) == (2, 3, 1)
    history = History.open(tmp_path / "out")
    assert (history.sensors("pump"), history.sensors("fan")) == (["heat", "flow"], ["heat"])
    np.testing.assert_array_equal(values_of(history, "p1"), [[1, np.nan], [2, 20]])
    fleet = load_fleet(tmp_path / "out" / "fleet.toml")
    assert [t.name for t in fleet.asset_class("pump").targets] == ["rul", "failure:seal", "anomaly"]
    assert fleet.asset_class("pump").cadence_us == 10 * MINUTE
    assert [spec.name for spec in fleet.classes] == ["pump"]  # of a fan's heat alone nothing can be predicted


def test_plain_csv_of_one_asset_in_many_files(tmp_path: Path) -> None:
    write(tmp_path / "in/a/january.csv", "time,asset_id,x,y\n2024-01-02,p,2,20\n2024-01-04,p,4,40\n")
    write(tmp_path / "in/b/more.csv", "time,asset_id,y,z\n2024-01-03,p,30,300\n2024-01-01,p,10,100\n")
    import_history("csv", tmp_path / "in", tmp_path / "out")
    history, nan = History.open(tmp_path / "out"), np.nan
    assert history.sensors("machine") == ["x", "y", "z"]
    expected = [[nan, 10, 100], [2, 20, nan], [nan, 30, 300], [4, 40, nan]]
    np.testing.assert_array_equal(values_of(history, "p"), expected)


def test_plain_csv_of_one_file_with_attributes(tmp_path: Path) -> None:
    rows = "".join(f"2024-01-01T00:{m:02d}:00,{a},{m},{m}\n" for a in ("a1", "a2") for m in range(3))
    path = write(tmp_path / "in/data.csv", f"time,asset_id,x,y\n{rows}")
    write(tmp_path / "in/assets.csv", "asset_id,asset_class,age\na1,drill,3\na2,drill,\na3,drill,4\n")
    import_history("csv", path, tmp_path / "out")
    history = History.open(tmp_path / "out")
    assert history.asset_ids("drill") == ["a1", "a2", "a3"]
    assert times_of(history, "a3").tolist() == []  # a machine without a reading yet
    assert history.assets()[0].attributes == {"age": 3.0}
    fleet = load_fleet(tmp_path / "out" / "fleet.toml")
    assert fleet.asset_class("drill").statics == ("age",)
    assert fleet.asset_class("drill").cadence_us == MINUTE


READINGS = "time,asset_id,x\n2024-01-01,a,1\n2024-01-02,a,2\n"
EVENTS = "asset_id,time,kind,code\n"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"readings.csv": "time,x\n2024-01-01,1\n"}, r"readings\.csv has no column 'asset_id'.*found \['time', 'x'\]"),
        ({"readings.csv": "time,asset_id\n2024-01-01,a\n"}, r"readings\.csv has no sensors"),
        ({"readings.csv": READINGS + "2024-01-03,a,hot\n"}, r"readings\.csv, column 'x'.*Row #4.*hot"),
        ({"readings.csv": READINGS + "soon,a,1\n"}, r"readings\.csv, column 'time'.*Row #4.*soon"),
        ({"readings.csv": READINGS + "2024-01-03,,1\n"}, r"readings\.csv, row 4: asset_id or time is empty"),
        ({"readings.csv": READINGS + ",a,1\n"}, r"readings\.csv, row 4: asset_id or time is empty"),
        ({"readings.csv": READINGS.replace("x", "oil temp °C")}, "a column 'oil temp °C'"),
        ({"readings.csv": READINGS, "events.csv": EVENTS + "b,2024-01-01,error,e\n"}, r"events\.csv, row 2: asset 'b'"),
        ({"readings.csv": READINGS, "events.csv": EVENTS + "a,2024-01-01,oops,e\n"}, r"events\.csv, row 2: kind must"),
        ({"readings.csv": READINGS, "events.csv": "asset_id,time,kind\n"}, r"events\.csv has no column 'code'"),
        ({"readings.csv": READINGS, "assets.csv": "asset_id\na\na\n"}, r"assets\.csv, row 3: asset 'a' a second time"),
        ({"readings.csv": READINGS}, "nothing can be predicted"),
    ],
)  # fmt: skip
def test_plain_csv_errors_name_file_row_and_column(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        write(tmp_path / "in" / name, text)
    with pytest.raises(HistoryError, match=message):
        import_history("csv", tmp_path / "in", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


# The verb, the examples, the real files ---


def test_the_verb_says_what_it_wrote(tmp_path: Path) -> None:
    write(tmp_path / "in/readings.csv", READINGS.replace("x", "x,y").replace(",1", ",1,1").replace(",2\n", ",2,2\n"))
    options = parser([import_]).parse_args(["import", "csv", str(tmp_path / "in"), str(tmp_path / "out")])
    outcome = options.verb.run(options, Progress(quiet=True))
    assert outcome.result == {
        "history": str(tmp_path / "out"), "kind": "csv", "assets": 1, "readings": 2, "events": 0, "failures": 0,
        "first": "2024-01-01T00:00:00Z", "last": "2024-01-02T00:00:00Z", "labels": False,
    }  # fmt: skip
    assert "1 assets, 2 readings, 0 events" in outcome.text
    assert "2024-01-01T00:00:00Z to 2024-01-02T00:00:00Z" in outcome.text
    with pytest.raises(UsageError, match="--subset"):
        import_history("csv", tmp_path / "in", tmp_path / "o", "FD001")
    with pytest.raises(NotFound, match="no file or folder"):
        import_history("csv", tmp_path / "nowhere", tmp_path / "o")
    assert all(kind in import_.example for kind in KINDS)


@pytest.mark.parametrize("kind", ["cmapss", "cmapss-regimes", "azure-pdm", "azure-pdm-daily", "skab", "nab", "smd"])
def test_the_examples_are_the_fleets_that_the_imports_write(kind: str) -> None:
    path = ROOT / "examples" / kind / "fleet.toml"
    if not path.is_file():
        pytest.skip(f"no example {path.relative_to(ROOT)} in this checkout")
    assert load_fleet(path) == spec_for(kind)


REAL = [
    ("cmapss", "cmapss", "FD001", 200, 20_631 + 13_096, 100),
    ("cmapss", "cmapss", "FD002", 519, 53_759 + 33_991, 260),
    ("azure-pdm", "azure_pdm/hourly_20machines_90days", "", 20, 43_200, 42),
    ("azure-pdm", "azure_pdm/fleet_100machines", "", 100, 36_600, 761),
    ("skab", "skab", "", 17, None, 0),
    ("nab", "nab", "", 1, 22_695, 0),
    ("smd", "smd", "", 4, None, 0),
]


@pytest.mark.parametrize(
    ("kind", "folder", "subset", "assets", "rows", "failures"), REAL, ids=[f"{r[0]}-{r[2]}" for r in REAL]
)
def test_real_files(
    tmp_path: Path, kind: str, folder: str, subset: str, assets: int, rows: int | None, failures: int
) -> None:
    if not (DATA / folder).is_dir():
        pytest.skip(f"real data absent: {DATA / folder} (WHEELTAPPER_DATA)")
    written = import_history(kind, DATA / folder, tmp_path / "out", subset)
    assert (written["assets"], written["failures"]) == (assets, failures)
    assert rows in (None, written["readings"])
    history = History.open(tmp_path / "out")
    fleet = load_fleet(tmp_path / "out" / "fleet.toml")
    (spec,) = fleet.classes
    assert [s.name for s in spec.sensors] == history.sensors(spec.name)
    codes = {(str(k), str(c)) for k, c in zip(history.events().kinds, history.events().codes, strict=True)}
    assert {(e.kind, e.code) for e in spec.events if e.code != "*"} <= codes
    values = np.concatenate([r.values for r in history.read(history.asset_ids(), history.sensors(spec.name))])
    assert len(values) == written["readings"]
    assert np.isfinite(values).all()
