"""Every key of a fleet.toml with every wrong type and with wrong values, and the checks between keys."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from wheeltapper.config import load_fleet, parse_fleet
from wheeltapper.config_text import fleet_text
from wheeltapper.errors import ConfigError, NotFound
from wheeltapper.spec import (
    STATISTICS,
    AlarmSpec,
    ClassSpec,
    Costs,
    EventFeature,
    FleetSpec,
    Gate,
    ModelSpec,
    RegimeSpec,
    Sensor,
    SplitSpec,
    Target,
    digest,
    to_json,
)

FULL = """\
[fleet]
name = "plant"
seed = 11
[split]
by = "time"
test_share = 0.2
test_from = 2024-05-01T12:00:00.000250Z
folds = 5
[[gates]]
output = "rul"
metric = "rmse"
at_most = 20
at_least = 0.5
[classes.pump]
cadence = "10min"
windows = ["1h", 36, "3d"]
statistics = ["slope", "mean", "shift"]
start = "5d"
lateness = "30min"
skew = "2min"
statics = ["age"]
[[classes.pump.sensors]]
name = "vibration"
unit = "mm/s"
minimum = 0
maximum = 50.5
feature = true
[[classes.pump.sensors]]
name = "temperature"
[[classes.pump.sensors]]
name = "load"
feature = false
[[classes.pump.events]]
kind = "error"
code = "e1"
windows = ["12h", "1d"]
since = false
[classes.pump.regimes]
sensors = ["load"]
count = 3
[classes.pump.targets.rul]
cap = "14d"
lead = "1d"
[[classes.pump.targets.failure]]
code = "bearing"
horizon = "2d"
lead = "12h"
[classes.pump.targets.failure.costs]
missed_failure = 5000
false_alarm = 40.5
replacement = 800
[classes.pump.targets.anomaly]
sensors = ["temperature"]
others = true
shift = "1h"
lead = "0s"
[classes.pump.model]
rounds = 10
asset_rounds = 5
max_depth = 3
eta = 0.1
min_child_weight = 1
subsample = 1
colsample_bytree = 1
reg_lambda = 0
gamma = 0
max_bin = 64
device = "cuda"
asset_alone = true
[classes.pump.alarm]
budget_per_asset_week = 1
hold = 2
hysteresis = 0.9
lead = "4h"
inspections_per_week = 3
[classes.pump.alarm.costs]
missed_failure = 900
false_alarm = 30
replacement = 0
"""
READINGS = (
    FULL.replace('"10min"', '"reading"')
    .replace('["1h", 36, "3d"]', "[6, 36]")
    .replace('"30min"', "3")
    .replace('"5d"', "720")
    .replace('shift = "1h"', "shift = 6")
    .replace('"14d"', "125")
    .replace('"2d"', "30")
)

EXPECTED = FleetSpec(
    name="plant",
    seed=11,
    split=SplitSpec("time", 0.2, 1_714_564_800_000_250, 5),
    gates=(Gate("rul", "rmse", 20.0, 0.5),),
    classes=(
        ClassSpec(
            name="pump",
            sensors=(Sensor("vibration", "mm/s", 0.0, 50.5), Sensor("temperature"), Sensor("load", feature=False)),
            cadence_us=600_000_000,
            windows=(6, 36, 432),
            statistics=("mean", "slope", "shift"),
            lateness=3,
            skew_us=120_000_000,
            statics=("age",),
            events=(EventFeature("error", "e1", (43_200_000_000, 86_400_000_000), since=False),),
            regime=RegimeSpec(("load",), 3),
            targets=(
                Target("rul", "rul", cap=336.0, lead_us=86_400_000_000),
                Target(
                    "failure",
                    "failure:bearing",
                    "bearing",
                    horizon_us=172_800_000_000,
                    lead_us=43_200_000_000,
                    costs=Costs(5_000.0, 40.5, 800.0),
                ),
                Target("anomaly", "anomaly", sensors=("temperature",), lead_us=0, shift=6),
            ),
            model=ModelSpec(10, 5, 3, 0.1, 1.0, 1.0, 1.0, 0.0, 0.0, 64, "cuda", True),
            alarm=AlarmSpec(1.0, 2, 0.9, 14_400_000_000, Costs(900.0, 30.0), 3),
            start=720,
        ),
    ),
)

LITERALS = {
    "truth": "true",
    "whole": "7",
    "number": "1.5",
    "text": '"some text"',
    "array": "[[1]]",
    "table": "{ a = 1 }",
    "date": "2024-05-01",
    "moment": "2024-05-01T00:00:00Z",
}
TOO_LONG = '"' + "x" * 300 + '"'
BAD_NAMES = ('""', '"a b"', '"-a"', '"a:b"', '"å"', '"*a"', TOO_LONG)
BAD_NUMBERS = ("nan", "inf", "-inf", "1e400")
BAD_SHARES = (*BAD_NUMBERS, "0", "-0.1", "1.01")
BAD_DURATIONS = ('""', '"6"', '"h"', '"-6h"', '"6 h"', '"6H"', '"1.5h"', '"30min1h"', '"1h1h"', '"99999999d"', '"٣h"')
BAD_COSTS = (*BAD_NUMBERS, "-1", "1e13")
TWO_WHOLE = ("0", "-1", "1")

# (section, key): the kinds of literal it takes, then values of a fitting kind that it must not take.
WRONG: dict[tuple[str, str], tuple[tuple[str, ...], tuple[str, ...]]] = {
    ("fleet", "name"): (("text",), BAD_NAMES),
    ("fleet", "seed"): (("whole",), ("-1", "2147483648")),
    ("split", "by"): (("text",), ('"space"', '"Time"')),
    ("split", "test_share"): (("whole", "number"), (*BAD_SHARES, "0.95")),
    ("split", "test_from"): (("moment",), ("2024-05-01T00:00:00", "1970-01-01T00:00:00Z", '"2024-05-01T00:00:00Z"')),
    ("split", "folds"): (("whole",), ("1", "21", "-3")),
    ("gates", "output"): (("text",), ('"ruul"', '"fan/rul"', '""')),
    ("gates", "metric"): (("text",), ('"accuracy"', '"brier"')),
    ("gates", "at_most"): (("whole", "number"), BAD_NUMBERS),
    ("gates", "at_least"): (("whole", "number"), (*BAD_NUMBERS, "21")),
    ("classes.pump", "cadence"): (("text",), (*BAD_DURATIONS, '"readings"', '"0s"')),
    ("classes.pump", "windows"): (
        ("array",),
        ("[]", "[6, 6]", "[36, 6]", '["6h", 6]', '["15min"]', '["0s"]', "[0]", "[1]", "[100001]", "[6.5]", "[true]"),
    ),
    ("classes.pump", "statistics"): (("array",), ("[]", '["median"]', '["max", "max"]', '["Mean"]', '["last"]', "[1]")),
    ("classes.pump", "start"): (("whole", "text"), ("0", "-1", "1000001", '"15min"', '"a while"')),
    ("classes.pump", "lateness"): (("whole", "text"), ("-1", "10001", '"15min"', '"a while"')),
    ("classes.pump", "skew"): (("text",), BAD_DURATIONS),
    ("classes.pump", "statics"): (("array",), ('["age", "age"]', '["a b"]', "[1]", '["vibration"]')),
    ("classes.pump.sensors", "name"): (("text",), (*BAD_NAMES, '"temperature"')),
    ("classes.pump.sensors", "unit"): (("text",), ('"\\n"', '"' + "m" * 33 + '"')),
    ("classes.pump.sensors", "minimum"): (("whole", "number"), (*BAD_NUMBERS, "50.5", "51", "-4e38")),
    ("classes.pump.sensors", "maximum"): (("whole", "number"), (*BAD_NUMBERS, "0", "-1", "4e38")),
    ("classes.pump.sensors", "feature"): (("truth",), ()),
    ("classes.pump.events", "kind"): (("text",), ('"warning"', '""')),
    ("classes.pump.events", "code"): (("text",), BAD_NAMES),
    ("classes.pump.events", "windows"): (
        ("array",),
        ("[]", '["1d", "12h"]', '["1d", "24h"]', '["0s"]', "[6]", '["soon"]'),
    ),
    ("classes.pump.events", "since"): (("truth",), ()),
    ("classes.pump.regimes", "sensors"): (
        ("array",),
        ("[]", '["lod"]', '["load", "load"]', "[1]", '["vibration", "temperature"]'),
    ),
    ("classes.pump.regimes", "count"): (("whole",), ("1", "65", "0")),
    ("classes.pump.targets.rul", "cap"): (("text",), (*BAD_DURATIONS, '"0s"')),
    ("classes.pump.targets.rul", "lead"): (("text",), BAD_DURATIONS),
    ("classes.pump.targets.failure", "code"): (("text",), BAD_NAMES),
    ("classes.pump.targets.failure", "horizon"): (("text",), (*BAD_DURATIONS, '"0s"', '"9min"')),
    ("classes.pump.targets.failure", "lead"): (("text",), (*BAD_DURATIONS, '"2d"', '"3d"')),
    ("classes.pump.targets.failure.costs", "missed_failure"): (("whole", "number"), (*BAD_COSTS, "0", "800", "799.5")),
    ("classes.pump.targets.failure.costs", "false_alarm"): (("whole", "number"), (*BAD_COSTS, "0")),
    ("classes.pump.targets.failure.costs", "replacement"): (("whole", "number"), (*BAD_COSTS, "5000", "5001")),
    ("classes.pump.targets.anomaly", "lead"): (("text",), BAD_DURATIONS),
    ("classes.pump.targets.anomaly", "others"): (("truth",), ()),
    ("classes.pump.targets.anomaly", "shift"): (("whole", "text"), ("0", "-1", "7", '"15min"', '"2h"')),
    ("classes.pump.targets.anomaly", "sensors"): (
        ("array",),
        ("[]", '["temprature"]', '["load"]', '["vibration", "vibration"]', "[1]"),
    ),
    ("classes.pump.model", "rounds"): (("whole",), ("0", "10001")),
    ("classes.pump.model", "asset_rounds"): (("whole",), ("-1", "1001")),
    ("classes.pump.model", "max_depth"): (("whole",), ("0", "13")),
    ("classes.pump.model", "eta"): (("whole", "number"), BAD_SHARES),
    ("classes.pump.model", "min_child_weight"): (("whole", "number"), (*BAD_NUMBERS, "-1")),
    ("classes.pump.model", "subsample"): (("whole", "number"), BAD_SHARES),
    ("classes.pump.model", "colsample_bytree"): (("whole", "number"), BAD_SHARES),
    ("classes.pump.model", "reg_lambda"): (("whole", "number"), (*BAD_NUMBERS, "-0.1")),
    ("classes.pump.model", "gamma"): (("whole", "number"), (*BAD_NUMBERS, "-0.1")),
    ("classes.pump.model", "max_bin"): (("whole",), ("1", "4097")),
    ("classes.pump.model", "device"): (("text",), ('"gpu"', '"CPU"')),
    ("classes.pump.model", "asset_alone"): (("truth",), ()),
    ("classes.pump.alarm", "budget_per_asset_week"): (("whole", "number"), (*BAD_NUMBERS, "0", "-1", "1001")),
    ("classes.pump.alarm", "hold"): (("whole",), ("0", "1001")),
    ("classes.pump.alarm", "hysteresis"): (("whole", "number"), BAD_SHARES),
    ("classes.pump.alarm", "lead"): (("text",), BAD_DURATIONS),
    ("classes.pump.alarm", "inspections_per_week"): (("whole",), ("0", "-1", "1000001")),
    ("classes.pump.alarm.costs", "missed_failure"): (("whole", "number"), (*BAD_COSTS, "0")),
    ("classes.pump.alarm.costs", "false_alarm"): (("whole", "number"), (*BAD_COSTS, "0")),
    ("classes.pump.alarm.costs", "replacement"): (("whole", "number"), (*BAD_COSTS, "900")),
}  # fmt: skip
CASES = [
    (section, key, literal)
    for (section, key), (kinds, values) in WRONG.items()
    for literal in (*(text for kind, text in LITERALS.items() if kind not in kinds), *values)
]
REQUIRED = [
    ("fleet", "name"), ("gates", "output"), ("gates", "metric"), ("classes.pump", "cadence"),
    ("classes.pump", "windows"), ("classes.pump", "start"),
    ("classes.pump", "statistics"), ("classes.pump.sensors", "name"), ("classes.pump.events", "kind"),
    ("classes.pump.regimes", "sensors"), ("classes.pump.regimes", "count"), ("classes.pump.targets.rul", "cap"),
    ("classes.pump.targets.failure", "horizon"),
    ("classes.pump.targets.failure.costs", "missed_failure"), ("classes.pump.targets.failure.costs", "false_alarm"),
    ("classes.pump.alarm.costs", "missed_failure"), ("classes.pump.alarm.costs", "false_alarm"),
]  # fmt: skip


def keys_of(text: str) -> list[tuple[str, str]]:
    """(section, key) of every line of a TOML text."""
    found, section = [], ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        else:
            found.append((section, line.split(" = ")[0]))
    return found


def with_line(section: str, key: str, line: str) -> str:
    """FULL with the first line of `key` in `section` put as `line`."""
    lines = FULL.splitlines()
    at = next(i for i, text in enumerate(lines) if text.startswith("[") and text.strip("[]") == section)
    at = next(i for i in range(at, len(lines)) if lines[i].split(" = ")[0] == key)
    return "\n".join([*lines[:at], line, *lines[at + 1 :]])


def findings(text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        parse_fleet(text)
    lines = str(raised.value).splitlines()
    for line in lines:
        assert line.startswith("fleet.toml: ")
        assert all(word in line for word in (": found ", "; allowed: ", "; mend: ")), line
    return lines


def names_key(line: str, section: str, key: str) -> bool:
    """Whether a finding names the key, its table's position aside."""
    named = line.removeprefix("fleet.toml: ").split(": found ")[0]
    parts = [part.split("[")[0] for part in named.split(".")]
    return parts == [*section.split("."), key]


def test_a_full_file_is_read_field_by_field() -> None:
    assert parse_fleet(FULL) == EXPECTED


def test_readings_take_the_place_of_durations() -> None:
    spec = parse_fleet(READINGS).classes[0]
    assert (spec.cadence_us, spec.windows, spec.lateness) == (0, (6, 36), 3)
    assert spec.targets[0].cap == 125.0
    assert (spec.targets[1].horizon_readings, spec.targets[1].horizon_us) == (30, 0)


def test_what_is_left_out_has_the_usual_value() -> None:
    spec = parse_fleet(
        '[fleet]\nname = "a"\n[classes.b]\ncadence = "1s"\nsensors = ["x", "y"]\n'
        'windows = [60]\nstatistics = ["mean"]\n'
        "[classes.b.targets.anomaly]\n[[classes.b.targets.failure]]\nhorizon = '1h'\n"
    )
    one = spec.classes[0]
    assert (spec.seed, spec.split, spec.gates) == (7, SplitSpec(), ())
    assert (one.lateness, one.skew_us, one.model, one.alarm) == (3, 300_000_000, ModelSpec(), AlarmSpec())
    assert [t.name for t in one.targets] == ["anomaly", "failure"]
    assert one.targets[0].sensors == ("x", "y")


def test_an_own_forest_is_asked_for_only_beside_own_trees() -> None:
    (line,) = findings(with_line("classes.pump.model", "asset_rounds", "asset_rounds = 0"))
    assert names_key(line, "classes.pump.model", "asset_alone")
    off = parse_fleet(with_line("classes.pump.model", "asset_alone", "asset_alone = false"))
    left_out = parse_fleet(with_line("classes.pump.model", "asset_alone", ""))
    assert off == left_out
    assert digest(off) == digest(left_out) != digest(parse_fleet(FULL))
    assert "asset_alone" not in to_json(off)["classes"][0]["model"]
    assert fleet_text(parse_fleet(FULL)).count("asset_alone = true") == 1
    assert "asset_alone" not in fleet_text(off)


def test_the_table_of_wrong_values_covers_every_key() -> None:
    assert set(keys_of(FULL)) == set(WRONG)
    written = [key for section, key in WRONG if section == "classes.pump.model"]
    assert written == [f.name for f in fields(ModelSpec)]
    tables = {"sensors", "events", "regimes", "targets", "model", "alarm"}
    line = findings(with_line("classes.pump", "skew", "skwe = 1"))[0]
    known = set(line.split("one of ")[1].split(";")[0].split(", "))
    assert known == {key for section, key in WRONG if section == "classes.pump"} | tables


@pytest.mark.parametrize(("section", "key", "literal"), CASES)
def test_a_wrong_value_is_named(section: str, key: str, literal: str) -> None:
    lines = findings(with_line(section, key, f"{key} = {literal}"))
    partners = {"at_least": "at_most", "maximum": "minimum", "windows": "since", "output": "metric"}
    partner = (partners | {"missed_failure": "replacement"}).get(key, key)
    assert any(names_key(line, section, k) for line in lines for k in (key, partner)), lines


@pytest.mark.parametrize(("section", "key"), list(WRONG))
def test_an_unknown_key_is_refused_with_the_near_one(section: str, key: str) -> None:
    line = next(line for line in findings(with_line(section, key, f"{key}s = 1")) if "an unknown key" in line)
    assert names_key(line, section, f"{key}s")
    assert f"did you mean '{key}'?" in line


@pytest.mark.parametrize(("section", "key"), REQUIRED)
def test_a_missing_key_is_named(section: str, key: str) -> None:
    assert any(
        names_key(line, section, key) and "found nothing" in line for line in findings(with_line(section, key, ""))
    )


def test_what_is_not_required_may_be_left_out() -> None:
    for section, key in sorted(set(WRONG) - set(REQUIRED) - {("classes.pump.events", "windows")}):
        parse_fleet(with_line(section, key, ""))
    assert "since" in findings(with_line("classes.pump.events", "windows", ""))[0]


def test_every_slip_is_told_at_once() -> None:
    text = FULL
    for right, wrong in (('"plant"', "5"), ("seed = 11", "sed = 11"), ('"10min"', '"soon"'), ("eta = 0.1", "eta = 9"),
                         ('["load"]', '["lod"]'), ("hold = 2", "hold = 0"), ('"rmse"', '"rsme"')):  # fmt: skip
        text = text.replace(right, wrong, 1)
    told = "\n".join(findings(text))
    for key in (
        "fleet.name",
        "fleet.sed",
        "pump.cadence",
        "model.eta",
        "regimes.sensors",
        "alarm.hold",
        "gates[0].metric",
    ):
        assert key in told
    assert "did you mean 'load'" in told
    assert "did you mean 'rmse'" in told
    assert len(findings(text)) == 7


LOAD = '[[classes.pump.sensors]]\nname = "load"'
NO_FEATURES = FULL.replace("= true", "= false").replace('name = "temperature"', 'name = "temperature"\nfeature = false')
WIDE = FULL.replace('["1h"', '[2, 3, 4, "1h"').replace('["slope", "mean", "shift"]', str(list(STATISTICS)))


def sensors_and_load(count: int) -> str:
    return "".join(f'[[classes.pump.sensors]]\nname = "s{i}"\n' for i in range(count)) + LOAD


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "fleet.name"),
        ("fleet = 3", "found 3 (a whole number); allowed: a table"),
        (FULL + "[extra]\n", "extra: found an unknown key"),
        (FULL.split("[classes.pump]", maxsplit=1)[0], "classes: found 0 classes"),
        (FULL.replace("classes.pump", 'classes."a pump"'), "a name of letters"),
        (FULL.replace("[classes.pump.targets.rul]", "[classes.pump.targets.rull]"), "did you mean 'rul'?"),
        (FULL.replace('by = "time"', 'by = "asset"'), "split.test_from"),
        (FULL.replace("at_most = 20\nat_least = 0.5\n", ""), "no bound"),
        (FULL + '[[classes.pump.targets.failure]]\ncode = "bearing"\nhorizon = "1h"\n', "targets.failure[1].code"),
        (FULL + '[[classes.pump.events]]\nkind = "error"\ncode = "e1"\n', "events[1].kind"),
        (FULL.replace('name = "temperature"', 'name = "temperature"\nfeature = false'), "at least 2 sensors"),
        (NO_FEATURES, "gives features"),
        (FULL.replace('"3d"', "100_000").replace(LOAD, sensors_and_load(60)), "4,000,000 values"),
        (FULL.replace(', "shift"]', "]"), "shift among them"),
        (FULL.replace("others = true\nshift = \"1h\"", "others = false"), "hold the sensors against something"),
        (WIDE.replace(LOAD, sensors_and_load(400)), "at most 16,000 features"),
        (FULL.replace(LOAD, sensors_and_load(510)), "1 to 512 entries"),
    ],
)  # fmt: skip
def test_checks_between_keys(text: str, word: str) -> None:
    assert word in "\n".join(findings(text)), findings(text)


def test_a_missing_cadence_makes_no_other_findings() -> None:
    assert len(findings(with_line("classes.pump", "cadence", ""))) == 1
    assert len(findings("\n".join(line for line in READINGS.splitlines() if not line.startswith("cadence")))) == 1


@pytest.mark.parametrize("text", ["[", "a = ", "a = 1\na = 2", "a" * 100, "a = " + "9" * 5000, "a = " + "[" * 5000])
def test_what_is_not_toml_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"fleet.toml: found "):
        parse_fleet(text)


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"nowhere\.toml"):
        load_fleet(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match="expected a TOML file"):
        load_fleet(tmp_path)
    file = tmp_path / "fleet.toml"
    file.write_bytes(b'a = "\xff"')
    with pytest.raises(ConfigError, match="UTF-8"):
        load_fleet(file)
    file.write_bytes(b"#" * (5 << 20))
    with pytest.raises(ConfigError, match="bytes"):
        load_fleet(file)
    file.write_text(FULL)
    assert load_fleet(file) == EXPECTED
    file.write_text(FULL.replace("seed", "sed"))
    with pytest.raises(ConfigError, match=str(file)):
        load_fleet(str(file))
