"""A fleet.toml in which every key stands, what it says, and how to ask what is wrong with a text like it."""

from __future__ import annotations

import pytest
from wheeltapper.config import parse_fleet
from wheeltapper.errors import ConfigError
from wheeltapper.spec import (
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
