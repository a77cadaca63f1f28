"""`[classes.NAME]` of a `fleet.toml` → `ClassSpec`: sensors, windows, events, regimes, targets, model, alarm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from wheeltapper.durations import format_duration
from wheeltapper.spec import (
    ANY_CODE,
    MICROSECONDS_PER_HOUR,
    STATISTICS,
    TARGET_KINDS,
    AlarmSpec,
    ClassSpec,
    Costs,
    EventFeature,
    ModelSpec,
    RegimeSpec,
    Sensor,
    Target,
    features_of,
)
from wheeltapper.toml_table import Table, describe, duration_of, nearest

SENSORS_MAX = 512
WINDOWS_MAX = 16
WINDOW_SLOTS_MAX = 100_000
RING_VALUES_MAX = 4_000_000  # sensors × (longest window + lateness): 16 MB of memory for one asset
LATENESS_SLOTS_MAX = 10_000
START_SLOTS_MAX = 1_000_000
STATICS_MAX = 64
EVENTS_MAX = 63  # one bit each in an int64
EVENT_WINDOWS_MAX = 8
EVENT_KINDS = ("failure", "maintenance", "error")
REGIME_SENSORS_MAX = 8
REGIMES_MAX = 64
TARGETS_MAX = 64
FEATURES_MAX = 16_000  # a pack's nodes number a feature and its missing-goes-left twin in 16 bits
READINGS_MAX = 100_000
CAP_READINGS_MAX = 1e9
FLOAT32_MAX = 3.4028234663852886e38
COST_MAX = 1e12
INSPECTIONS_MAX = 1_000_000
LATENESS_SLOTS = 3
SKEW_US = 300_000_000  # 5 minutes

_KEYS = (
    "cadence", "sensors", "windows", "statistics", "lateness", "skew", "statics", "events", "regimes", "targets",
    "model", "alarm", "start",
)  # fmt: skip


def class_spec(section: Table, name: str) -> ClassSpec:
    """The class called `name` below the table `classes`; what is wrong goes to the table's findings."""
    table = section.table(name, _KEYS)
    found_before = len(table.findings.lines)
    cadence_us = _cadence(table)
    sensors = _sensors(table)
    windows = _windows(table, cadence_us)
    spec = ClassSpec(
        name=name,
        sensors=sensors,
        cadence_us=max(cadence_us, 0),
        windows=windows,
        statistics=_statistics(table),
        lateness=_slots(
            table, "lateness", table.data.get("lateness", LATENESS_SLOTS), cadence_us, 0, LATENESS_SLOTS_MAX
        ),
        skew_us=table.duration("skew", SKEW_US),
        targets=_targets(table, cadence_us, sensors, windows),
        statics=_statics(table, sensors),
        events=_events(table),
        regime=_regime(table, sensors),
        model=_model(table),
        alarm=_alarm(table),
        start=_slots(table, "start", table.data["start"], cadence_us, 1, START_SLOTS_MAX) if "start" in table else None,
    )
    if len(table.findings.lines) == found_before:
        _check_start(table, spec)
        _check_size(table, spec)
    return spec


def _cadence(table: Table) -> int:
    """Microseconds of the grid, 0 for one slot per reading, -1 where it cannot be known."""
    if table.data.get("cadence") == "reading":
        return 0
    allowed = 'a duration such as "10min", or "reading" for one slot per reading'
    if "cadence" not in table:
        table.note("cadence", allowed, 'add cadence = "10min"', "nothing")
        return -1
    mend = 'write cadence = "10min"'
    return duration_of(table.data["cadence"], 1, -1, lambda _: table.note("cadence", allowed, mend))


def _sensors(table: Table) -> tuple[Sensor, ...]:
    sensors: list[Sensor] = []
    for position, entry in enumerate(table.array("sensors", required=True, high=SENSORS_MAX)):
        at = f"sensors[{position}]"
        data = {"name": entry} if isinstance(entry, str) else entry
        one = Table(table.findings, table.dotted(at), data, ("name", "unit", "minimum", "maximum", "feature"))
        if not isinstance(data, dict):
            continue
        name = one.name("name", required=True)
        low = one.number("minimum", float("-inf"), -FLOAT32_MAX, FLOAT32_MAX)
        high = one.number("maximum", float("inf"), -FLOAT32_MAX, FLOAT32_MAX)
        if low >= high:
            one.note("minimum", f"less than maximum, which is {high:g}", "exchange the two")
        if name and name in [s.name for s in sensors]:
            one.note("name", "each sensor once", "remove or rename the second")
        sensors.append(Sensor(name, one.text("unit", length_max=32), low, high, one.flag("feature", True)))
    if sensors and not any(s.feature for s in sensors):
        table.note("sensors", "at least one sensor that gives features", "remove feature = false from one")
    return tuple(sensors)


def _slots(table: Table, key: str, value: Any, cadence_us: int, low: int, high: int) -> int:
    """A length in slots: a whole number of them, or on a time grid a duration that is a multiple of the cadence."""
    allowed = f"a whole number of {'slots' if cadence_us else 'readings'} from {low} to {high}"
    if cadence_us > 0:
        allowed += ", or a duration that is a multiple of the cadence"
    slots = -1
    if isinstance(value, int) and not isinstance(value, bool):
        slots = value
    elif isinstance(value, str) and cadence_us:
        length_us = duration_of(value, 0, -1, lambda _: None)
        if cadence_us < 0 <= length_us:
            return low  # the cadence has its own finding
        slots = length_us // cadence_us if length_us >= 0 and length_us % cadence_us == 0 else -1
    if low <= slots <= high:
        return slots
    table.note(key, allowed, "write such a number or duration", describe(value))
    return low


def _windows(table: Table, cadence_us: int) -> tuple[int, ...]:
    windows: list[int] = []
    for position, value in enumerate(table.array("windows", required=True, high=WINDOWS_MAX)):
        at = f"windows[{position}]"
        found_before = len(table.findings.lines)
        window = _slots(table, at, value, cadence_us, 2, WINDOW_SLOTS_MAX)
        if len(table.findings.lines) > found_before or cadence_us < 0:
            continue
        if windows and window <= windows[-1]:
            table.note(at, "windows in ascending order, each once", "sort them, shortest first", describe(value))
            continue
        windows.append(window)
    return tuple(windows)


def _statistics(table: Table) -> tuple[str, ...]:
    chosen: set[str] = set()
    for position, value in enumerate(table.array("statistics", required=True, high=len(STATISTICS))):
        at = f"statistics[{position}]"
        if not isinstance(value, str) or value not in STATISTICS:
            allowed = f"one of {', '.join(STATISTICS)} (last is always there)"
            table.note(at, allowed, nearest(value, list(STATISTICS), "remove it"), describe(value))
        elif value in chosen:
            table.note(at, "each statistic once", "remove the second", describe(value))
        else:
            chosen.add(value)
    return tuple(s for s in STATISTICS if s in chosen)


def _statics(table: Table, sensors: tuple[Sensor, ...]) -> tuple[str, ...]:
    statics = table.names("statics", high=STATICS_MAX)
    for name in sorted(set(statics) & {s.name for s in sensors}):
        table.note("statics", "names that no sensor has", "rename the attribute or the sensor", repr(name))
    return statics


def _events(table: Table) -> tuple[EventFeature, ...]:
    events: list[EventFeature] = []
    for one in table.tables("events", ("kind", "code", "windows", "since"), high=EVENTS_MAX):
        kind = one.choice("kind", EVENT_KINDS, required=True)
        code = one.name("code", ANY_CODE, also=ANY_CODE)
        if any((e.kind, e.code) == (kind, code) for e in events):
            one.note("kind", "each kind and code once", "put the windows together in one entry", f"{kind}:{code} again")
        windows: list[int] = []
        for position, value in enumerate(one.array("windows", high=EVENT_WINDOWS_MAX)):
            at = f"windows[{position}]"
            window_us = duration_of(value, 1, -1, _note(one, at, 'a duration such as "24h"', value))
            if window_us < 0:
                continue
            if windows and window_us <= windows[-1]:
                one.note(at, "windows in ascending order, each once", "sort them, shortest first", describe(value))
                continue
            windows.append(window_us)
        since = one.flag("since", True)
        if not since and not one.data.get("windows"):
            one.note("since", "true, or false with windows", "add windows, or remove the entry")
        events.append(EventFeature(kind, code, tuple(windows), since))
    return tuple(events)


def _note(table: Table, key: str, allowed: str, value: Any) -> Callable[[str], None]:
    return lambda _: table.note(key, allowed, "write such a duration", describe(value))


def _regime(table: Table, sensors: tuple[Sensor, ...]) -> RegimeSpec | None:
    if "regimes" not in table:
        return None
    one = table.table("regimes", ("sensors", "count"))
    chosen = one.names("sensors", required=True, high=REGIME_SENSORS_MAX)
    _check_known(one, chosen, [s.name for s in sensors])
    if sensors and chosen and not {s.name for s in sensors if s.feature} - set(chosen):
        one.note("sensors", "fewer sensors than give features", "leave at least one to be normalised")
    return RegimeSpec(chosen, one.whole("count", 2, 2, REGIMES_MAX, required=True))


def _check_known(table: Table, chosen: tuple[str, ...], known: list[str]) -> None:
    for name in chosen:
        if known and name not in known:
            table.note(
                "sensors", f"sensors of this class: {', '.join(known)}", nearest(name, known, "remove it"), repr(name)
            )


def _targets(
    table: Table, cadence_us: int, sensors: tuple[Sensor, ...], windows: tuple[int, ...]
) -> tuple[Target, ...]:
    """In the order of the file; the failure targets stand together."""
    section = table.table("targets", TARGET_KINDS)
    targets: list[Target] = []
    for kind in section.data:
        if kind == "rul":
            targets.append(_rul(section.table(kind, ("cap", "lead", "costs")), cadence_us))
        elif kind == "failure":
            targets.extend(_failures(section, cadence_us))
        elif kind == "anomaly":
            one = section.table(kind, ("sensors", "others", "shift", "lead", "costs"))
            targets.append(_anomaly(one, cadence_us, sensors, windows))
    if not targets:
        mend = f"add [{table.path}.targets.anomaly], rul, or [[{table.path}.targets.failure]]"
        table.note("targets", f"at least one of {', '.join(TARGET_KINDS)}", mend, "none")
    return tuple(targets)


def _rul(table: Table, cadence_us: int) -> Target:
    """The cap is a number of readings where the cadence is "reading", otherwise a duration (kept in hours)."""
    if cadence_us < 0 and "cap" in table:  # the cadence has its own finding
        cap = 1.0
    elif cadence_us == 0:
        cap = table.number("cap", 1.0, 1.0, CAP_READINGS_MAX, required=True)
    else:
        cap = table.duration("cap", 1, 1, required=True) / MICROSECONDS_PER_HOUR
    return Target("rul", "rul", cap=cap, lead_us=_lead(table), costs=_costs(table))


def _failures(section: Table, cadence_us: int) -> list[Target]:
    targets: list[Target] = []
    if section.data["failure"] == []:
        section.note("failure", f"1 to {TARGETS_MAX} tables", "remove it, or add a table with its horizon")
    for one in section.tables("failure", ("code", "horizon", "lead", "costs"), high=TARGETS_MAX):
        code = one.name("code", ANY_CODE, also=ANY_CODE)
        name = "failure" if code == ANY_CODE else f"failure:{code}"
        if name in [t.name for t in targets]:
            one.note("code", "each code once", "remove the second", f"{code!r} again")
        horizon_us = readings = 0
        if cadence_us == 0:
            readings = one.whole("horizon", 1, 1, READINGS_MAX, required=True)
        elif cadence_us > 0 or "horizon" not in one:
            horizon_us = one.duration("horizon", 1, max(cadence_us, 1), required=True)
        lead_us = _lead(one)
        if lead_us and 0 < horizon_us <= lead_us:
            allowed = f"a duration below the horizon, which is {format_duration(horizon_us)}"
            one.note("lead", allowed, "shorten the lead, or lengthen the horizon: earlier than it nothing is learnt")
        targets.append(Target("failure", name, code, horizon_us, readings, lead_us=lead_us, costs=_costs(one)))
    return targets


def _anomaly(table: Table, cadence_us: int, sensors: tuple[Sensor, ...], windows: tuple[int, ...]) -> Target:
    """Sensors to hold against the others, against their own start, or both; all that give features if none is named."""
    able = [s.name for s in sensors if s.feature]
    chosen = table.names("sensors", high=SENSORS_MAX) if "sensors" in table else tuple(able)
    _check_known(table, chosen, able)
    if "sensors" in table and table.data["sensors"] == []:
        table.note("sensors", "at least one sensor", "name one, or remove the key to watch them all")
    others = table.flag("others", True)
    shift = _slots(table, "shift", table.data["shift"], cadence_us, 1, WINDOW_SLOTS_MAX) if "shift" in table else None
    if shift is not None and windows and cadence_us >= 0 and shift not in windows:
        table.note("shift", "one of the windows of its class", "add it to windows, or name one of them")
    if not others and shift is None:
        table.note("others", 'true, or false with a shift such as "1h"', "hold the sensors against something", "false")
    if others and sensors and len(able) < 2:
        mend = "add a sensor, or calendar columns such as hour_sin and hour_cos"
        table.note(
            "sensors", "a class with at least 2 sensors that give features", mend, f"{len(able)} to predict from"
        )
    held = None if others else False
    lead_us, costs = _lead(table), _costs(table)
    return Target("anomaly", "anomaly", sensors=chosen, lead_us=lead_us, costs=costs, shift=shift, others=held)


def _lead(table: Table) -> int | None:
    """A target's own lead, None where it takes its class's."""
    return table.duration("lead", 0) if "lead" in table else None


def _costs(table: Table) -> Costs | None:
    """What a missed failure, a false alarm and a planned replacement cost; None where the table is absent."""
    if "costs" not in table:
        return None
    one = table.table("costs", [f.name for f in fields(Costs)])
    missed = one.number("missed_failure", 1.0, 0.0, COST_MAX, above_low=True, required=True)
    false = one.number("false_alarm", 1.0, 0.0, COST_MAX, above_low=True, required=True)
    replacement = one.number("replacement", 0.0, 0.0, COST_MAX)
    if replacement >= missed:
        allowed = f"less than missed_failure, which is {missed:g}"
        one.note("replacement", allowed, "correct one of them: otherwise no warning is ever worth it")
    return Costs(missed, false, replacement)


def _model(table: Table) -> ModelSpec:
    one = table.table("model", [f.name for f in fields(ModelSpec)])
    usual = ModelSpec()
    alone = one.flag("asset_alone", False)
    asset_rounds = one.whole("asset_rounds", usual.asset_rounds, 0, 1_000)
    if alone and not asset_rounds:
        one.note(
            "asset_alone", "false where asset_rounds is 0", "let assets have heads of their own: asset_rounds = 40"
        )
    return ModelSpec(
        rounds=one.whole("rounds", usual.rounds, 1, 10_000),
        asset_rounds=asset_rounds,
        max_depth=one.whole("max_depth", usual.max_depth, 1, 12),
        eta=one.number("eta", usual.eta, 0.0, 1.0, above_low=True),
        min_child_weight=one.number("min_child_weight", usual.min_child_weight, 0.0, 1e6),
        subsample=one.number("subsample", usual.subsample, 0.0, 1.0, above_low=True),
        colsample_bytree=one.number("colsample_bytree", usual.colsample_bytree, 0.0, 1.0, above_low=True),
        reg_lambda=one.number("reg_lambda", usual.reg_lambda, 0.0, 1e6),
        gamma=one.number("gamma", usual.gamma, 0.0, 1e6),
        max_bin=one.whole("max_bin", usual.max_bin, 2, 4_096),
        device=one.choice("device", ("cpu", "cuda"), usual.device),
        asset_alone=alone or None,
    )


def _alarm(table: Table) -> AlarmSpec:
    one = table.table("alarm", [f.name.removesuffix("_us") for f in fields(AlarmSpec)])
    usual = AlarmSpec()
    return AlarmSpec(
        budget_per_asset_week=one.number(
            "budget_per_asset_week", usual.budget_per_asset_week, 0.0, 1_000.0, above_low=True
        ),
        hold=one.whole("hold", usual.hold, 1, 1_000),
        hysteresis=one.number("hysteresis", usual.hysteresis, 0.0, 1.0, above_low=True),
        lead_us=one.duration("lead", usual.lead_us),
        costs=_costs(one),
        inspections_per_week=one.whole("inspections_per_week", 1, 1, INSPECTIONS_MAX)
        if "inspections_per_week" in one
        else None,
    )


def _check_start(table: Table, spec: ClassSpec) -> None:
    """A start and the statistic that uses it come together."""
    asked = "shift" in spec.statistics
    if asked and "start" not in table:
        mend = 'add start = "7d": the slots that tell what is usual for each asset'
        table.note("start", "a length where statistics has shift", mend, "nothing")
    for name, needs in (("start", "start" in table), ("targets.anomaly.shift", any(t.shift for t in spec.targets))):
        if needs and spec.statistics and not asked:
            table.note("statistics", f"shift among them where there is {name}", 'add "shift" to statistics')


def _check_size(table: Table, spec: ClassSpec) -> None:
    """Limits on what only the whole class shows."""
    features = len(features_of(spec))
    if features > FEATURES_MAX:
        mend = "name fewer sensors, windows or statistics"
        table.note("statistics", f"at most {FEATURES_MAX:,} features in all", mend, f"{features:,} features")
    values = len(spec.sensors) * (spec.windows[-1] + spec.lateness)
    if values > RING_VALUES_MAX:
        allowed = f"at most {RING_VALUES_MAX:,} values (sensors × slots of the longest window and lateness)"
        table.note("windows", allowed, "shorten the longest window or coarsen the cadence", f"{values:,} values")
