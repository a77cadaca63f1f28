"""Every key of a fleet.toml: with every wrong type, with wrong values, misspelt, and left out."""

from __future__ import annotations

from dataclasses import fields

import pytest
from plants import FULL, findings, keys_of, names_key, with_line
from wheeltapper.config import parse_fleet
from wheeltapper.spec import ModelSpec

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
