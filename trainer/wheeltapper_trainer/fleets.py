"""The fleet descriptions that stand beside simulated and imported histories: a start that trains, not a tuned end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wheeltapper.spec import (
    ANY_CODE,
    MICROSECONDS_PER_HOUR,
    AlarmSpec,
    ClassSpec,
    EventFeature,
    FleetSpec,
    ModelSpec,
    RegimeSpec,
    Sensor,
    SplitSpec,
    Target,
)

from wheeltapper_trainer.machines import MACHINES, Machine

HOUR = MICROSECONDS_PER_HOUR
DAY = 24 * HOUR
MINUTE = HOUR // 60
SECOND = MINUTE // 60

CMAPSS_SETTINGS = tuple(f"setting_{i}" for i in range(1, 4))
CMAPSS_SENSORS = tuple(f"sensor_{i}" for i in range(1, 22))
INSTALLED = "installed"  # the maintenance event at the first reading of an asset that is recorded from new
AZURE_SENSORS = ("volt", "rotate", "pressure", "vibration")
SKAB_SENSORS = {
    "Accelerometer1RMS": "accelerometer_1_rms",
    "Accelerometer2RMS": "accelerometer_2_rms",
    "Current": "current",
    "Pressure": "pressure",
    "Temperature": "temperature",
    "Thermocouple": "thermocouple",
    "Voltage": "voltage",
    "Volume Flow RateRMS": "volume_flow_rate_rms",
}
NAB_SENSORS = ("value", "hour_sin", "hour_cos", "weekend")
SMD_SENSORS = tuple(f"metric_{i:02d}" for i in range(1, 39))
SKAB_BEGIN_US = 1_583_748_000_000_000  # where the import lets every experiment begin: 2020-03-09 10:00 UTC
SKAB_TRAIN_US = 400 * SECOND
SMD_TEST_FROM_US = 1_577_836_800_000_000  # where the import lets every test half begin: 2020-01-01 UTC


def spec_for(kind: str, name: str = "") -> FleetSpec:
    """The fleet of `simulated`, `cmapss`, `cmapss-regimes`, `azure-pdm`, `azure-pdm-daily`, `skab`, `nab` or `smd`."""
    return _FLEETS[kind](name or kind)


def _simulated(name: str) -> FleetSpec:
    return FleetSpec(name, tuple(_simulated_class(machine) for machine in MACHINES), split=SplitSpec(test_share=0.25))


def _simulated_class(machine: Machine) -> ClassSpec:
    fatal = [c.code for c in machine.components if c.fatal]
    errors = tuple(EventFeature("error", c.error, (3 * DAY,), since=False) for c in machine.components)
    services = tuple(EventFeature("maintenance", c.code) for c in machine.components)
    return ClassSpec(
        name=machine.name,
        sensors=machine.sensors,
        cadence_us=HOUR,
        windows=(6, 24, 72),
        statistics=("mean", "std", "max", "slope"),
        lateness=6,
        skew_us=5 * MINUTE,
        targets=(
            Target("rul", "rul", cap=240.0),
            *(Target("failure", f"failure:{code}", code, horizon_us=48 * HOUR) for code in fatal),
            Target("anomaly", "anomaly", sensors=("vibration", "bearing_temperature")),
        ),
        statics=("age_years", "rating_kw"),
        events=errors + services,
        regime=RegimeSpec(("load", "speed"), 4),
        model=ModelSpec(rounds=150, asset_rounds=20, max_depth=4, eta=0.08),
        alarm=AlarmSpec(budget_per_asset_week=0.5, hold=2, hysteresis=0.8, lead_us=4 * HOUR),
    )


def _cmapss(name: str) -> FleetSpec:
    """One operating condition: settings say nothing. The cap of 125 cycles is the field's custom."""
    sensors = tuple(Sensor(s, feature=False) for s in CMAPSS_SETTINGS) + tuple(Sensor(s) for s in CMAPSS_SENSORS)
    return FleetSpec(name, (_turbofan(sensors, None),), split=SplitSpec(by="asset", test_share=0.25))


def _cmapss_regimes(name: str) -> FleetSpec:
    """Six operating conditions (FD002, FD004): every sensor is normalised within its own."""
    sensors = tuple(Sensor(s) for s in CMAPSS_SETTINGS + CMAPSS_SENSORS)
    return FleetSpec(
        name, (_turbofan(sensors, RegimeSpec(CMAPSS_SETTINGS, 6)),), split=SplitSpec(by="asset", test_share=0.25)
    )


def _turbofan(sensors: tuple[Sensor, ...], regime: RegimeSpec | None) -> ClassSpec:
    return ClassSpec(
        name="turbofan",
        sensors=sensors,
        cadence_us=0,
        # The longest is a whole life: what this engine was like when new. Many conditions need longer looks.
        windows=(15, 30, 60, 400) if regime is None else (30, 60, 100, 400),
        statistics=("slope", "ewma"),
        lateness=3,
        skew_us=5 * MINUTE,
        targets=(Target("rul", "rul", cap=125.0),),
        events=(EventFeature("maintenance", INSTALLED),),
        regime=regime,
        model=ModelSpec(
            rounds=800,
            asset_rounds=0,
            max_depth=5,
            eta=0.03,
            min_child_weight=10.0,
            subsample=0.5,
            colsample_bytree=0.3,
        ),
    )


def _azure(name: str) -> FleetSpec:
    return _azure_fleet(name, HOUR, (6, 24, 48), 48 * HOUR)


def _azure_daily(name: str) -> FleetSpec:
    """A week ahead: the logs say almost everything exactly a day before, which is plumbing, not skill."""
    return _azure_fleet(name, DAY, (2, 7), 7 * DAY)


def _azure_fleet(name: str, cadence_us: int, windows: tuple[int, ...], horizon_us: int) -> FleetSpec:
    units = ("V", "rpm", "", "")
    components = [f"comp{i}" for i in range(1, 5)]
    errors = tuple(EventFeature("error", f"error{i}", (2 * DAY,)) for i in range(1, 6))
    # Of each component, and of any: these machines are serviced by the calendar, and fail on its days.
    services = tuple(EventFeature("maintenance", code) for code in (*components, ANY_CODE))
    spec = ClassSpec(
        name="machine",
        sensors=tuple(Sensor(s, unit) for s, unit in zip(AZURE_SENSORS, units, strict=True)),
        cadence_us=cadence_us,
        windows=windows,
        statistics=("mean",),
        lateness=3,
        skew_us=5 * MINUTE,
        targets=tuple(Target("failure", f"failure:{code}", code, horizon_us=horizon_us) for code in components),
        statics=("age", "model"),
        events=errors + services,
        model=ModelSpec(rounds=300, asset_rounds=0, max_depth=4, eta=0.05, min_child_weight=10.0, colsample_bytree=0.8),
        alarm=AlarmSpec(budget_per_asset_week=0.5, lead_us=6 * HOUR),
    )
    return FleetSpec(name, (spec,))


def _skab(name: str) -> FleetSpec:
    """The customary split: the first 400 seconds of each experiment train, on the clock they share."""
    sensors = tuple(SKAB_SENSORS.values())
    watched = tuple(s for s in sensors if s not in ("thermocouple", "voltage"))  # the room and the mains
    # What goes wrong here moves all sensors slowly and together: each is held against its experiment's own start.
    # Window, start and folds: `python -m benchmarks.accuracy.settings --dataset skab`.
    spec = _anomaly_class("loop", sensors, watched, SECOND, (10, 30), start=180, shift=10, others=False)
    return FleetSpec(name, (spec,), split=SplitSpec(test_from_us=SKAB_BEGIN_US + SKAB_TRAIN_US))


def _nab(name: str) -> FleetSpec:
    """One sensor has no others, so it is held against its own first week. The import adds the hour and the weekend.

    The customary split: the first 15 % of a series teach.
    """
    spec = _anomaly_class(
        "machine", NAB_SENSORS, ("value",), 5 * MINUTE, (12, 72, 288), start=2016, shift=288, others=False
    )
    return FleetSpec(name, (spec,), split=SplitSpec(test_share=0.85))


def _smd(name: str) -> FleetSpec:
    """The machines stand in for one class, though each is its own kind: each is held against its own first week.

    Watched is what moves on every machine of the training half: a metric that stands still predicts itself.
    """
    moving = (1, 2, 3, 4, 6, 7, 9, 10, 12, 14, 15, 16, 19, 20, 21, 22, 23, 24, 25, 26, 28, 31, 32, 34, 35, 36)
    watched = tuple(f"metric_{i:02d}" for i in moving)
    spec = _anomaly_class("server", SMD_SENSORS, watched, MINUTE, (5, 60), start=10_080, shift=5, others=False)
    return FleetSpec(name, (spec,), split=SplitSpec(test_from_us=SMD_TEST_FROM_US))


def _anomaly_class(
    name: str,
    sensors: Sequence[str],
    watched: tuple[str, ...],
    cadence_us: int,
    windows: tuple[int, ...],
    start: int,
    shift: int,
    others: bool | None = None,
) -> ClassSpec:
    return ClassSpec(
        name=name,
        sensors=tuple(Sensor(sensor) for sensor in sensors),
        cadence_us=cadence_us,
        windows=windows,
        statistics=("mean", "std", "slope", "shift"),
        lateness=3,
        skew_us=5 * MINUTE,
        targets=(Target("anomaly", "anomaly", sensors=watched, shift=shift, others=others),),
        model=ModelSpec(rounds=100, asset_rounds=30, max_depth=4, eta=0.1),
        alarm=AlarmSpec(budget_per_asset_week=1.0, hold=3),
        start=start,
    )


def starter_fleet(name: str, classes: Sequence[ClassSpec]) -> FleetSpec:
    """A fleet for histories of unknown machines, from classes made by `starter_class`."""
    return FleetSpec(name, tuple(classes))


def starter_class(
    name: str, sensors: Sequence[str], cadence_us: int, statics: Sequence[str], events: Sequence[tuple[str, str]]
) -> ClassSpec:
    """Every sensor as it is, windows of 6, 24 and 72 slots, and the targets that the (kind, code) in `events` allow."""
    failures = sorted({code for kind, code in events if kind == "failure"})
    targets = [Target("rul", "rul", cap=240 * cadence_us / HOUR)] if failures else []
    targets += [Target("failure", f"failure:{code}", code, horizon_us=48 * cadence_us) for code in failures]
    if len(sensors) > 1:
        targets.append(Target("anomaly", "anomaly", sensors=tuple(sensors)))
    return ClassSpec(
        name=name,
        sensors=tuple(Sensor(sensor) for sensor in sensors),
        cadence_us=cadence_us,
        windows=(6, 24, 72),
        statistics=("mean", "std", "max", "slope"),
        lateness=3,
        skew_us=5 * MINUTE,
        targets=tuple(targets),
        statics=tuple(statics),
        events=tuple(EventFeature(kind, code, (72 * cadence_us,)) for kind, code in sorted(set(events))),
    )


_FLEETS: dict[str, Callable[[str], FleetSpec]] = {
    "simulated": _simulated,
    "cmapss": _cmapss,
    "cmapss-regimes": _cmapss_regimes,
    "azure-pdm": _azure,
    "azure-pdm-daily": _azure_daily,
    "skab": _skab,
    "nab": _nab,
    "smd": _smd,
}
