"""A small fleet whose physics a test knows: pumps whose vibration follows wear, load and a level of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from wheeltapper.spec import AlarmSpec, ClassSpec, FleetSpec, ModelSpec, Sensor, SplitSpec, Target
from wheeltapper_trainer.history_writer import HistoryWriter
from wheeltapper_trainer.records import Asset

HOUR = 3_600_000_000
START = 1_700_000_000_000_000 // HOUR * HOUR
DAYS = 90
BUDGET = 3.0  # these pumps fail every second week, and three outputs share it
SENSORS = ("load", "vibration", "temperature")


def pump_spec(**changes) -> ClassSpec:
    settings = {
        "name": "pump",
        "sensors": tuple(Sensor(name) for name in SENSORS),
        "cadence_us": HOUR,
        "windows": (6, 24),
        "statistics": ("mean", "slope"),
        "lateness": 2,
        "skew_us": HOUR,
        "targets": (
            Target("rul", "rul", "bearing", cap=120.0),
            Target("failure", "failure:bearing", "bearing", horizon_us=48 * HOUR),
            Target("anomaly", "anomaly", sensors=("vibration", "temperature")),
        ),
        "model": ModelSpec(rounds=40, asset_rounds=10, max_depth=3, eta=0.2),
        "alarm": AlarmSpec(budget_per_asset_week=BUDGET, hold=2, lead_us=4 * HOUR),
    }
    return ClassSpec(**{**settings, **changes})


def fleet(**changes) -> FleetSpec:
    return FleetSpec("pumps", (pump_spec(**changes),), split=SplitSpec(test_share=0.25))


def write_history(path: Path, assets: int = 8, seed: int = 3, future=None, file_rows: int = 1_000_000) -> Path:
    """`future`: (from row, change of values) applied to every asset's later rows, for tests of leaks."""
    with HistoryWriter(path, {"pump": SENSORS}, file_rows) as writer:
        for number in sorted(range(assets), key=str):  # ids must ascend
            random = np.random.default_rng([seed, number])
            rows = DAYS * 24
            times = START + HOUR * np.arange(rows, dtype=np.int64)
            life = int(random.integers(240, 340)) if number % 4 else 10 * rows  # every fourth pump never fails
            wear = (np.arange(rows) + 37 * number) % life / life
            load = 0.5 + 0.3 * np.sin(np.arange(rows) / 24 * 2 * np.pi) + random.normal(0, 0.05, rows)
            vibration = 1 + 0.2 * number + load + 4 * wear**4 + random.normal(0, 0.1, rows)
            temperature = 40 + 10 * load + random.normal(0, 0.3, rows)
            values = np.column_stack([load, vibration, temperature]).astype(np.float32)
            if future is not None:
                values[future[0] :] += future[1]
            writer.add(Asset(f"pump-{number}", "pump", {}), times, values)
            failed = np.flatnonzero(np.diff(wear) < 0)
            writer.add_events([(f"pump-{number}", int(times[row]), "failure", "bearing") for row in failed])
    return path
