"""One job for everyone: the fleet, its history, and the fit of one machine's model."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from wheeltapper.config import fleet_toml
from wheeltapper.features import feature_rows
from wheeltapper.regimes import no_regimes
from wheeltapper.spec import AlarmSpec, ClassSpec, FleetSpec, ModelSpec, Sensor, SplitSpec, Target, features_of
from wheeltapper_trainer.history import History
from wheeltapper_trainer.history_writer import HistoryWriter
from wheeltapper_trainer.records import Asset

HOUR = 3_600_000_000
START = 1_700_000_000_000_000 // HOUR * HOUR
SENSORS = ("load", "vibration", "temperature", "pressure", "flow", "current")
_LABEL_AHEAD = 24  # the model predicts the mean vibration of the next day


@dataclass(frozen=True, slots=True)
class Size:
    """How much work: machines, readings of each, trees of each machine's model."""

    assets: int
    rows: int
    trees: int


def spec_of(size: Size) -> FleetSpec:
    pump = ClassSpec(
        name="pump",
        sensors=tuple(Sensor(name) for name in SENSORS),
        cadence_us=HOUR,
        windows=(12, 48),
        statistics=("mean", "std", "max", "slope"),
        lateness=2,
        skew_us=HOUR,
        targets=(Target("rul", "rul", cap=120.0), Target("anomaly", "anomaly", sensors=("vibration", "temperature"))),
        model=ModelSpec(rounds=size.trees, asset_rounds=size.trees, max_depth=6),
        alarm=AlarmSpec(budget_per_asset_week=1.0, hold=2, lead_us=4 * HOUR),
    )
    return FleetSpec("pumps", (pump,), split=SplitSpec(test_share=0.2))


def write_fleet(folder: Path, size: Size) -> None:
    """The history and its fleet.toml; and for the peers each machine in a file of its own, which they read faster."""
    (folder / "own").mkdir(parents=True)
    with HistoryWriter(folder / "history", {"pump": SENSORS}) as writer:
        for number in range(size.assets):
            random = np.random.default_rng([11, number])
            times = START + HOUR * np.arange(size.rows, dtype=np.int64)
            life = int(random.integers(size.rows // 8, size.rows // 5))
            wear = (np.arange(size.rows) + 37 * number) % life / life
            load = 0.5 + 0.3 * np.sin(np.arange(size.rows) * 2 * np.pi / 24) + random.normal(0, 0.05, size.rows)
            columns = [load, 1 + 0.02 * number + load + 4 * wear**4, 40 + 10 * load, load**2, 3 * load, 5 + load]
            values = np.column_stack(columns) + random.normal(0, 0.2, (size.rows, len(SENSORS)))
            asset_id = f"pump-{number:05}"
            writer.add(Asset(asset_id, "pump", {}), times, values.astype(np.float32))
            failed = np.flatnonzero(np.diff(wear) < 0)
            writer.add_events([(asset_id, int(times[row]), "failure", "bearing") for row in failed])
            np.savez(folder / "own" / f"{asset_id}.npz", times=times, values=values.astype(np.float32))
    (folder / "fleet.toml").write_text(fleet_toml(spec_of(size)))


def fit_one(
    spec: ClassSpec, times: npt.NDArray[np.int64], values: npt.NDArray[np.float32], threads: int | None
) -> tuple[str, float]:
    """Features, then one model; returns (sha256 of its trees, CPU seconds inside `xgboost.train`)."""
    import xgboost

    nothing = np.empty(0, np.int64)
    features, _ = feature_rows(
        spec, no_regimes(spec), np.zeros(0, np.float32), times, np.ascontiguousarray(values), nothing, nothing
    )
    vibration = values[:, SENSORS.index("vibration")].astype(np.float64)
    reach = np.cumsum(np.concatenate([[0.0], vibration]))
    label = ((reach[_LABEL_AHEAD:] - reach[:-_LABEL_AHEAD]) / _LABEL_AHEAD)[1:].astype(np.float32)
    chosen = {} if threads is None else {"nthread": threads}
    matrix = xgboost.QuantileDMatrix(features[: len(label)], label=label, max_bin=spec.model.max_bin, **chosen)
    settings: dict[str, Any] = {"tree_method": "hist", "max_depth": spec.model.max_depth, "eta": 0.1, **chosen}
    begin = time.process_time()
    booster = xgboost.train(settings, matrix, spec.model.rounds)
    spent = time.process_time() - begin
    trees = "".join(booster.get_dump(with_stats=False))
    return hashlib.sha256(trees.encode()).hexdigest(), spent


def fit_own(folder: str, asset_id: str, size: Size, threads: int | None) -> tuple[str, float]:
    """`fit_one` for a peer: the machine's own file."""
    with np.load(Path(folder, "own", f"{asset_id}.npz")) as file:
        return fit_one(spec_of(size).classes[0], file["times"], file["values"], threads)


def fit_chunk(history: str, asset_ids: tuple[str, ...], size: Size) -> list[tuple[str, float]]:
    """`fit_one` for a chunk of machines, read from the history."""
    spec = spec_of(size).classes[0]
    found = History.open(history).read(asset_ids, SENSORS)
    return [fit_one(spec, asset.times, asset.values, 1) for asset in found]


def feature_count(size: Size) -> int:
    return len(features_of(spec_of(size).classes[0]))
