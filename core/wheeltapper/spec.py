"""What a fleet is: classes, sensors, windows, targets. Plain frozen data, the same in training, pack and scorer.

`fleet.toml` is read and validated by `wheeltapper.config`; this module only holds the result, numbers its features
and gives it a canonical JSON form and a digest.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

MICROSECONDS_PER_HOUR = 3_600_000_000

# In the order in which the kernel writes them for each window. `last` stands before all windows.
STATISTICS = ("mean", "std", "min", "max", "range", "slope", "ewma", "delta", "missing", "shift")
TARGET_KINDS = ("rul", "failure", "anomaly")
LEVELS = ("none", "fleet", "class", "asset")  # position = number on the wire and in the pack
ANY_CODE = "*"
# Left out where None, see `to_json`.
_LATER = frozenset({"costs", "lead_us", "inspections_per_week", "start", "shift", "others", "asset_alone"})


@dataclass(frozen=True, slots=True)
class Sensor:
    """One column of a reading. A value outside [minimum, maximum] or not finite counts as missing."""

    name: str
    unit: str = ""
    minimum: float = float("-inf")
    maximum: float = float("inf")
    feature: bool = True  # False: kept for regimes only, gives no features


@dataclass(frozen=True, slots=True)
class EventFeature:
    """Counts of (kind, code) in each of `windows_us`, and hours since the last one if `since`."""

    kind: str
    code: str = ANY_CODE
    windows_us: tuple[int, ...] = ()
    since: bool = True


@dataclass(frozen=True, slots=True)
class RegimeSpec:
    """Operating regimes: k-means over `sensors`, then mean and std of every other sensor per regime."""

    sensors: tuple[str, ...]
    count: int


@dataclass(frozen=True, slots=True)
class Costs:
    """What alarms and failures cost, in any one currency. `replacement`: of what was warned of in time and planned."""

    missed_failure: float
    false_alarm: float
    replacement: float = 0.0


@dataclass(frozen=True, slots=True)
class Target:
    """One prediction per reading.

    rul: life left in hours (grid cadence) or readings (reading cadence), at most `cap`.
    failure: probability that `code` fails within `horizon_us` (or `horizon_readings` where cadence is "reading").
    anomaly: standardised residuals of `sensors`, against what the other sensors predict (unless `others` is False)
    and, over a window of `shift` slots, against the asset's own start; needs no failures.
    """

    kind: str
    name: str  # the output's name: "rul", "failure", "failure:bearing", "anomaly"
    code: str = ANY_CODE
    horizon_us: int = 0
    horizon_readings: int = 0
    cap: float = 0.0
    sensors: tuple[str, ...] = ()
    lead_us: int | None = None  # None: the lead of its class's alarms
    costs: Costs | None = None  # None: the costs of its class's alarms
    shift: int | None = None  # slots; a window of the class, None: no sensor is held against its own start
    others: bool | None = None  # False: no sensor is held against the others

    def watched(self) -> tuple[tuple[str, int, str], ...]:
        """(statistic, window, sensor) of the features that an anomaly's slots predict, in their order."""
        ways = [("last", 0)] if self.others is not False else []
        ways += [("shift", self.shift)] if self.shift is not None else []
        return tuple((statistic, window, sensor) for statistic, window in ways for sensor in self.sensors)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """XGBoost's own names and meanings; `asset_rounds` trees are added by an asset's head on top of its class.

    asset_alone: True, and a forest of the asset's own, without its class, is tried beside that; None: it is not.
    """

    rounds: int = 200
    asset_rounds: int = 40
    max_depth: int = 5
    eta: float = 0.05
    min_child_weight: float = 5.0
    subsample: float = 0.8
    colsample_bytree: float = 0.5
    reg_lambda: float = 1.0
    gamma: float = 0.0
    max_bin: int = 256
    device: str = "cpu"
    asset_alone: bool | None = None


@dataclass(frozen=True, slots=True)
class AlarmSpec:
    """When a score is worth a person's walk: at most `budget_per_asset_week`, held for `hold` readings in a row."""

    budget_per_asset_week: float = 0.5
    hold: int = 1
    hysteresis: float = 0.8  # an alarm ends below hysteresis × threshold (rul: above threshold ÷ hysteresis)
    lead_us: int = 0  # a warning shorter than this before the failure came too late to count
    costs: Costs | None = None  # thresholds then cost least on validation; None: they keep within the budget
    inspections_per_week: int | None = None  # how many assets are looked at each week; None: one in ten


@dataclass(frozen=True, slots=True)
class ClassSpec:
    """All assets with the same sensors and the same model family."""

    name: str
    sensors: tuple[Sensor, ...]
    cadence_us: int  # 0: one slot per reading
    windows: tuple[int, ...]  # slots, ascending
    statistics: tuple[str, ...]  # subset of STATISTICS, in that order
    lateness: int  # slots behind the newest in which a late reading is still placed
    skew_us: int  # how far ahead of the clock an event time may be
    targets: tuple[Target, ...]
    statics: tuple[str, ...] = ()  # numeric attributes of an asset
    events: tuple[EventFeature, ...] = ()
    regime: RegimeSpec | None = None
    model: ModelSpec = ModelSpec()
    alarm: AlarmSpec = AlarmSpec()
    start: int | None = None  # slots that tell what is usual for each asset, for "shift"; None: there is none

    @property
    def start_width(self) -> int:
        """How many numbers hold an asset's start: when it was over, then the mean and 1/std of each sensor."""
        return 0 if self.start is None else 1 + 2 * sum(sensor.feature for sensor in self.sensors)


@dataclass(frozen=True, slots=True)
class SplitSpec:
    """Train before, test after. `test_from_us` wins over `test_share` (of the history's span) where it is given.

    by = "time": one cut for all assets, with an embargo of one window plus one horizon before it.
    by = "asset": whole assets are held out (run-to-failure sets, where an asset lives once).
    """

    by: str = "time"
    test_share: float = 0.25
    test_from_us: int = 0
    folds: int = 4


@dataclass(frozen=True, slots=True)
class Gate:
    """A release may reach production only where `metric` of `output` is at most / at least a bound."""

    output: str
    metric: str
    at_most: float = float("inf")
    at_least: float = float("-inf")


@dataclass(frozen=True, slots=True)
class FleetSpec:
    name: str
    classes: tuple[ClassSpec, ...]
    seed: int = 7
    split: SplitSpec = SplitSpec()
    gates: tuple[Gate, ...] = ()

    def asset_class(self, name: str) -> ClassSpec:
        """The class called `name`; KeyError with the known names where there is none."""
        for spec in self.classes:
            if spec.name == name:
                return spec
        raise KeyError(f"asset class {name!r} is not one of {[c.name for c in self.classes]}")


@dataclass(frozen=True, slots=True)
class Feature:
    """What column `index` of a feature row means, for reports and reasons."""

    index: int
    name: str  # "slope(vibration, 24h)", "count(error:e1, 24h)", "age"
    source: str  # the sensor, "kind:code" of an event, or the static attribute
    statistic: str
    window: int = 0  # slots; 0 where there is none


def lead_of(spec: ClassSpec, target: Target) -> int:
    """How long before its failure an alarm must come to count, in µs."""
    return spec.alarm.lead_us if target.lead_us is None else target.lead_us


def costs_of(spec: ClassSpec, target: Target) -> Costs | None:
    """What the alarms and failures of a target cost, None where nobody has said."""
    return target.costs or spec.alarm.costs


def without_alarms(spec: ClassSpec) -> ClassSpec:
    """The class with every setting of its alarms as usual: what is left decides what is learnt."""
    targets = tuple(dataclasses.replace(target, lead_us=None, costs=None) for target in spec.targets)
    return dataclasses.replace(spec, targets=targets, alarm=AlarmSpec())


def features_of(spec: ClassSpec) -> tuple[Feature, ...]:
    """The feature row of a class, in the order in which the kernel writes it.

    last of every sensor; then per window, per statistic, every sensor; then per event feature its counts per window
    and the hours since; then the static attributes.
    """
    found: list[Feature] = []

    def add(name: str, source: str, statistic: str, window: int = 0) -> None:
        found.append(Feature(len(found), name, source, statistic, window))

    sensors = [s.name for s in spec.sensors if s.feature]
    for sensor in sensors:
        add(f"last({sensor})", sensor, "last")
    for window in spec.windows:
        for statistic in spec.statistics:
            for sensor in sensors:
                add(f"{statistic}({sensor}, {window_label(spec, window)})", sensor, statistic, window)
    for event in spec.events:
        source = f"{event.kind}:{event.code}"
        for window_us in event.windows_us:
            add(f"count({source}, {duration_label(window_us)})", source, "count")
        if event.since:
            add(f"hours since({source})", source, "since")
    for attribute in spec.statics:
        add(attribute, attribute, "static")
    return tuple(found)


def window_label(spec: ClassSpec, window: int) -> str:
    """A window as a person would say it: "24h" on a time grid, "30 readings" otherwise."""
    return duration_label(window * spec.cadence_us) if spec.cadence_us else f"{window} readings"


def duration_label(microseconds: int) -> str:
    hour = MICROSECONDS_PER_HOUR
    for unit, size in (("d", 24 * hour), ("h", hour), ("min", hour // 60), ("s", 1_000_000), ("ms", 1_000)):
        if microseconds >= size and microseconds % size == 0:
            return f"{microseconds // size}{unit}"
    return f"{microseconds}us"


def to_json(spec: FleetSpec | ClassSpec) -> dict[str, Any]:
    """A JSON object that `fleet_from_json` / `class_from_json` read back to an equal spec (±inf as null).

    Settings that came after the first packs stand in it only where they are set, so that a fleet that does not use them
    keeps its digest, and its packs stay readable by the version before.
    """
    document: dict[str, Any] = _plain(spec)
    return document


def digest(spec: FleetSpec | ClassSpec) -> str:
    """Hex sha256 of the canonical JSON: equal specs, equal digests, on every machine."""
    return hashlib.sha256(json.dumps(to_json(spec), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def class_from_json(document: dict[str, Any]) -> ClassSpec:
    """The inverse of `to_json` for a class."""
    data = dict(document)
    data["sensors"] = tuple(
        Sensor(
            s["name"],
            s["unit"],
            float("-inf") if s["minimum"] is None else s["minimum"],
            float("inf") if s["maximum"] is None else s["maximum"],
            s["feature"],
        )
        for s in document["sensors"]
    )
    data["events"] = tuple(EventFeature(**{**e, "windows_us": tuple(e["windows_us"])}) for e in document["events"])
    data["targets"] = tuple(
        Target(**{**t, "sensors": tuple(t["sensors"]), "costs": _costs(t)}) for t in document["targets"]
    )
    regime = document["regime"]
    data["regime"] = None if regime is None else RegimeSpec(tuple(regime["sensors"]), regime["count"])
    data["model"] = ModelSpec(**document["model"])
    data["alarm"] = AlarmSpec(**{**document["alarm"], "costs": _costs(document["alarm"])})
    for key in ("windows", "statistics", "statics"):
        data[key] = tuple(document[key])
    return ClassSpec(**data)


def _costs(document: dict[str, Any]) -> Costs | None:
    found = document.get("costs")
    return None if found is None else Costs(**found)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        named = ((name, getattr(value, name)) for name in value.__dataclass_fields__)
        return {name: _plain(item) for name, item in named if item is not None or name not in _LATER}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return None
    return value
