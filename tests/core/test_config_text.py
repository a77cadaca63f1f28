"""Fleets drawn by Hypothesis go to text and back; durations too."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wheeltapper.config import METRICS, fleet_toml, parse_fleet
from wheeltapper.config_class import EVENT_KINDS
from wheeltapper.durations import DURATION_US_MAX, UNITS_US, format_duration, parse_duration
from wheeltapper.errors import ConfigError
from wheeltapper.spec import (
    MICROSECONDS_PER_HOUR,
    STATISTICS,
    TARGET_KINDS,
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
    class_from_json,
    to_json,
    without_alarms,
)


@given(st.integers(0, DURATION_US_MAX))
def test_durations_read_back(microseconds: int) -> None:
    assert parse_duration(format_duration(microseconds)) == microseconds


def test_durations_add_up() -> None:
    assert parse_duration("1d2h3min4s5ms6us") == 93_784_005_006
    assert parse_duration("7d") == 7 * UNITS_US["d"]


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,8}", fullmatch=True)
FLOAT32 = st.floats(-1e30, 1e30, allow_nan=False).map(float)
SHARES = st.floats(1e-6, 0.9)


@st.composite
def sensors(draw: st.DrawFn) -> tuple[Sensor, ...]:
    found = []
    for position, name in enumerate(draw(st.lists(NAMES, min_size=2, max_size=5, unique=True))):
        low, high = sorted(draw(st.lists(FLOAT32, min_size=2, max_size=2, unique=True)))
        low = draw(st.sampled_from([low, float("-inf")]))
        high = draw(st.sampled_from([high, float("inf")]))
        unit = draw(st.text(max_size=6).filter(str.isprintable))
        found.append(Sensor(name, unit, low, high, position < 2 or draw(st.booleans())))
    return tuple(found)


@st.composite
def asset_classes(draw: st.DrawFn, name: str) -> ClassSpec:
    own = draw(sensors())
    able = [s.name for s in own if s.feature]
    cadence_us = draw(st.sampled_from([0, 1, 250_000, 1_000_000, 600_000_000, 3_600_000_000, 5_400_000_000]))
    codes = draw(st.lists(st.one_of(st.just("*"), NAMES), min_size=1, max_size=3, unique=True))
    horizon = draw(st.integers(max(cadence_us, 1), 10**12)) if cadence_us else draw(st.integers(1, 10_000))
    costs = st.none() | st.builds(Costs, st.floats(101, 1e12), st.floats(0.01, 1e12), st.floats(0, 100))
    leads = st.none() | st.integers(0, max(0, horizon - 1) if cadence_us else 10**12)
    cap = draw(st.integers(1, 10**12)) / MICROSECONDS_PER_HOUR if cadence_us else draw(st.floats(1.0, 1e6))
    watched = tuple(draw(st.lists(st.sampled_from(able), min_size=1, unique=True)))
    windows = draw(st.lists(st.integers(2, 9_999), min_size=1, max_size=4, unique=True))
    chosen = draw(st.sets(st.sampled_from(STATISTICS), min_size=1))
    shift = draw(st.sampled_from([None, *windows])) if "shift" in chosen else None
    groups = {
        "rul": [Target("rul", "rul", cap=cap, lead_us=draw(leads), costs=draw(costs))],
        "failure": [
            Target("failure", "failure" if code == "*" else f"failure:{code}", code,
                   horizon_us=horizon if cadence_us else 0, horizon_readings=0 if cadence_us else horizon,
                   lead_us=draw(leads), costs=draw(costs))
            for code in codes
        ],
        "anomaly": [
            Target("anomaly", "anomaly", sensors=watched, lead_us=draw(leads), shift=shift,
                   others=None if shift is None else draw(st.sampled_from([None, False])))
        ],
    }  # fmt: skip
    kinds = draw(st.lists(st.sampled_from(TARGET_KINDS), min_size=1, unique=True))
    counted = draw(st.lists(st.tuples(st.sampled_from(EVENT_KINDS), st.sampled_from(codes)), max_size=3, unique=True))
    spans = st.lists(st.integers(1, 10**13), min_size=1, max_size=3, unique=True).map(lambda v: tuple(sorted(v)))
    regime = RegimeSpec(tuple(s.name for s in own[1:3]), draw(st.integers(2, 64)))
    return ClassSpec(
        name=name,
        sensors=own,
        cadence_us=cadence_us,
        windows=tuple(sorted(windows)),
        statistics=tuple(s for s in STATISTICS if s in chosen),
        lateness=draw(st.integers(0, 10_000)),
        skew_us=draw(st.integers(0, 10**12)),
        targets=tuple(target for kind in kinds for target in groups[kind]),
        statics=tuple(draw(st.lists(NAMES.filter(lambda n: n not in [s.name for s in own]), max_size=2, unique=True))),
        events=tuple(EventFeature(kind, code, draw(spans), draw(st.booleans())) for kind, code in counted),
        regime=draw(st.sampled_from([None, regime])),
        model=ModelSpec(eta=draw(SHARES), gamma=draw(st.floats(0, 1e6)), rounds=draw(st.integers(1, 10_000))),
        alarm=AlarmSpec(
            draw(SHARES),
            draw(st.integers(1, 1_000)),
            draw(SHARES),
            draw(st.integers(0, 10**12)),
            draw(costs),
            draw(st.none() | st.integers(1, 1_000)),
        ),
        start=draw(st.integers(1, 9_999)) if "shift" in chosen else None,
    )


@st.composite
def fleets(draw: st.DrawFn) -> FleetSpec:
    classes = tuple(draw(asset_classes(name)) for name in draw(st.lists(NAMES, min_size=1, max_size=2, unique=True)))
    split = SplitSpec(
        "time", draw(SHARES), draw(st.sampled_from([0, 1, 1_700_000_000_000_001])), draw(st.integers(2, 20))
    )
    target = classes[0].targets[0]
    output = draw(st.sampled_from([target.name, f"{classes[0].name}/{target.name}"]))
    gate = Gate(output, draw(st.sampled_from(METRICS[target.kind])), at_least=draw(FLOAT32))
    same_kind = all(t.kind == target.kind for c in classes for t in c.targets if t.name == target.name)
    return FleetSpec(draw(NAMES), classes, draw(st.integers(0, 2**31 - 1)), split, (gate,) if same_kind else ())


@given(fleets())
@settings(max_examples=60, deadline=None)
def test_a_fleet_written_as_toml_reads_back_equal(spec: FleetSpec) -> None:
    assert parse_fleet(fleet_toml(spec)) == spec


@given(fleets())
@settings(max_examples=30, deadline=None)
def test_a_class_survives_json_and_alarms_stand_apart(spec: FleetSpec) -> None:
    for one in spec.classes:
        assert class_from_json(json.loads(json.dumps(to_json(one)))) == one
        plain = to_json(without_alarms(one))
        assert set(plain["alarm"]) == {
            "budget_per_asset_week",
            "hold",
            "hysteresis",
            "lead_us",
        }  # as in the first packs
        assert all("lead_us" not in target and "costs" not in target for target in plain["targets"])


@pytest.mark.parametrize("spec", [
    FleetSpec("no classes", ()),
    FleetSpec("plant", (ClassSpec("pump", (Sensor("a"), Sensor("b")), 7, (6,), ("slope", "mean"), 0, 0,
                                  (Target("anomaly", "anomaly", sensors=("a",)),)),)),
])  # fmt: skip
def test_a_fleet_that_toml_cannot_express_is_refused(spec: FleetSpec) -> None:
    with pytest.raises(ConfigError):
        fleet_toml(spec)
