"""`FleetSpec` → the text of a `fleet.toml`, laid out as a person would write it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from wheeltapper.durations import format_duration
from wheeltapper.spec import MICROSECONDS_PER_HOUR, AlarmSpec, ClassSpec, Costs, EventFeature, FleetSpec, Sensor, Target

_LINE_CHARACTERS = 100


def fleet_text(spec: FleetSpec) -> str:
    """TOML text; `wheeltapper.config.fleet_toml` also checks that it reads back to the same fleet."""
    split: dict[str, Any] = {"by": spec.split.by, "test_share": spec.split.test_share, "folds": spec.split.folds}
    if spec.split.test_from_us:
        split["test_from"] = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=spec.split.test_from_us)
    parts = [_section("fleet", {"name": spec.name, "seed": spec.seed}), _section("split", split)]
    for asset_class in spec.classes:
        parts.extend(_class_sections(asset_class))
    for gate in spec.gates:
        keys: dict[str, Any] = {"output": gate.output, "metric": gate.metric}
        parts.append(_section("gates", keys | _bounds(at_most=gate.at_most, at_least=gate.at_least), array=True))
    return "\n".join(parts)


def _class_sections(spec: ClassSpec) -> list[str]:
    at = f"classes.{_key(spec.name)}"
    keys: dict[str, Any] = {"cadence": format_duration(spec.cadence_us) if spec.cadence_us else "reading"}
    keys["sensors"] = [_sensor(sensor) for sensor in spec.sensors]
    keys["windows"] = [format_duration(w * spec.cadence_us) if spec.cadence_us else w for w in spec.windows]
    keys["statistics"] = list(spec.statistics)
    if spec.start is not None:
        keys["start"] = format_duration(spec.start * spec.cadence_us) if spec.cadence_us else spec.start
    keys["lateness"] = spec.lateness
    keys["skew"] = format_duration(spec.skew_us)
    if spec.statics:
        keys["statics"] = list(spec.statics)
    if spec.events:
        keys["events"] = [_event(event) for event in spec.events]
    if spec.regime:
        keys["regimes"] = {"sensors": list(spec.regime.sensors), "count": spec.regime.count}
    model = {name: getattr(spec.model, name) for name in spec.model.__dataclass_fields__}
    model = {name: value for name, value in model.items() if value is not None}
    sections = [_section(at, keys)]
    for target in spec.targets:
        array = target.kind == "failure"
        sections.append(_section(f"{at}.targets.{target.kind}", _target(target, spec.cadence_us), array=array))
    return [*sections, _section(f"{at}.model", model), _section(f"{at}.alarm", _alarm(spec.alarm))]


def _sensor(sensor: Sensor) -> Any:
    if sensor == Sensor(sensor.name):
        return sensor.name
    keys: dict[str, Any] = {"name": sensor.name}
    if sensor.unit:
        keys["unit"] = sensor.unit
    keys |= _bounds(minimum=sensor.minimum, maximum=sensor.maximum)
    if not sensor.feature:
        keys["feature"] = False
    return keys


def _event(event: EventFeature) -> dict[str, Any]:
    windows = {"windows": [format_duration(w) for w in event.windows_us]} if event.windows_us else {}
    return {"kind": event.kind, "code": event.code, **windows, "since": event.since}


def _target(target: Target, cadence_us: int) -> dict[str, Any]:
    keys: dict[str, Any] = {"sensors": list(target.sensors)}
    if target.kind == "rul":
        keys = {"cap": target.cap if cadence_us == 0 else format_duration(round(target.cap * MICROSECONDS_PER_HOUR))}
    elif target.kind == "failure":
        keys = {"code": target.code, "horizon": target.horizon_readings or format_duration(target.horizon_us)}
    if target.others is False:
        keys["others"] = False
    if target.shift is not None:
        keys["shift"] = format_duration(target.shift * cadence_us) if cadence_us else target.shift
    if target.lead_us is not None:
        keys["lead"] = format_duration(target.lead_us)
    return keys | _costs(target.costs)


def _alarm(alarm: AlarmSpec) -> dict[str, Any]:
    keys: dict[str, Any] = {
        "budget_per_asset_week": alarm.budget_per_asset_week,
        "hold": alarm.hold,
        "hysteresis": alarm.hysteresis,
        "lead": format_duration(alarm.lead_us),
    }
    if alarm.inspections_per_week is not None:
        keys["inspections_per_week"] = alarm.inspections_per_week
    return keys | _costs(alarm.costs)


def _costs(costs: Costs | None) -> dict[str, Any]:
    return {} if costs is None else {"costs": {name: getattr(costs, name) for name in costs.__dataclass_fields__}}


def _bounds(**bounds: float) -> dict[str, float]:
    """Those that bound anything."""
    return {name: bound for name, bound in bounds.items() if abs(bound) != float("inf")}


def _section(path: str, keys: Mapping[str, Any], *, array: bool = False) -> str:
    lines = [f"[[{path}]]" if array else f"[{path}]"]
    lines += [f"{name} = {_value(value, room=_LINE_CHARACTERS - len(name))}" for name, value in keys.items()]
    return "\n".join(lines) + "\n"


def _value(value: Any, room: int = _LINE_CHARACTERS) -> str:
    """A TOML value; an array that does not fit `room` characters goes over several lines, tables one a line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name} = {_value(item)}" for name, item in value.items()) + " }"
    if isinstance(value, list):
        entries = [_value(item) for item in value]
        tables = any(isinstance(item, Mapping) for item in value)
        line = f"[{', '.join(entries)}]"
        return line if len(line) <= room and not tables else "[\n" + "".join(_lines(entries)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _lines(entries: list[str]) -> Iterator[str]:
    """The entries of an array in indented lines: a table stands alone, the others fill the line."""
    line = ""
    for entry in entries:
        alone = entry.startswith("{") or line.startswith(" {")
        if line and (alone or len(line) + len(entry) + 6 > _LINE_CHARACTERS):
            yield f"   {line}\n"
            line = ""
        line += f" {entry},"
    yield f"   {line}\n"


def _key(name: str) -> str:
    return json.dumps(name) if "." in name else name
