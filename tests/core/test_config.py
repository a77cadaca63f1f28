"""A fleet.toml is read field by field; the checks between its keys; files that are none."""

from __future__ import annotations

from pathlib import Path

import pytest
from plants import EXPECTED, FULL, READINGS, findings, names_key, with_line
from wheeltapper.config import load_fleet, parse_fleet
from wheeltapper.config_text import fleet_text
from wheeltapper.errors import ConfigError, NotFound
from wheeltapper.spec import STATISTICS, AlarmSpec, ModelSpec, SplitSpec, digest, to_json


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
