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
from wheeltapper_trainer.history import Excerpt, History
from wheeltapper_trainer.history_writer import HistoryWriter
from wheeltapper_trainer.records import Asset, Times, Values

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
        model=ModelSpec(rounds=size.trees, asset_rounds=size.trees),  # the product's own parameters otherwise
        alarm=AlarmSpec(budget_per_asset_week=1.0, hold=2, lead_us=4 * HOUR),
    )
    return FleetSpec("pumps", (pump,), split=SplitSpec(test_share=0.2))


def machine(number: int, rows: int) -> tuple[Times, Values, npt.NDArray[np.int64]]:
    """One machine's times, values, and the rows after which it failed."""
    random = np.random.default_rng([11, number])
    times = START + HOUR * np.arange(rows, dtype=np.int64)
    life = int(random.integers(rows // 8, rows // 5))
    wear = (np.arange(rows) + 37 * number) % life / life
    load = 0.5 + 0.3 * np.sin(np.arange(rows) * 2 * np.pi / 24) + random.normal(0, 0.05, rows)
    columns = [load, 1 + 0.02 * (number % 100) + load + 4 * wear**4, 40 + 10 * load, load**2, 3 * load, 5 + load]
    values = np.column_stack(columns) + random.normal(0, 0.2, (rows, len(SENSORS)))
    return times, values.astype(np.float32), np.flatnonzero(np.diff(wear) < 0)


def write_fleet(folder: Path, size: Size, own: bool = True) -> None:
    """The history and its fleet.toml; `own`: a file of its own for each machine, which peers read faster."""
    (folder / "own").mkdir(parents=True)
    with HistoryWriter(folder / "history", {"pump": SENSORS}) as writer:
        for number in range(size.assets):
            times, values, failed = machine(number, size.rows)
            asset_id = f"pump-{number:05}"
            writer.add(Asset(asset_id, "pump", {}), times, values)
            writer.add_events([(asset_id, int(times[row]), "failure", "bearing") for row in failed])
            if own:
                np.savez(folder / "own" / f"{asset_id}.npz", times=times, values=values)
    (folder / "fleet.toml").write_text(fleet_toml(spec_of(size)))


def examples(spec: ClassSpec, times: Times, values: Values) -> tuple[Values, Values]:
    """float32[n, F] features, and float32[n]: the mean vibration of the day after each."""
    nothing = np.empty(0, np.int64)
    statics = np.zeros(0, np.float32)
    features, _ = feature_rows(spec, no_regimes(spec), statics, times, np.ascontiguousarray(values), nothing, nothing)
    vibration = values[:, SENSORS.index("vibration")].astype(np.float64)
    reach = np.cumsum(np.concatenate([[0.0], vibration]))
    label = ((reach[_LABEL_AHEAD:] - reach[:-_LABEL_AHEAD]) / _LABEL_AHEAD)[1:].astype(np.float32)
    return features[: len(label)], label


@dataclass(frozen=True, slots=True)
class Fit:
    """One model: a sha256 of its trees, and the CPU seconds inside XGBoost: binning its rows, and `xgboost.train`.

    Both count as the floor, since `xgboost.train` on a plain DMatrix bins the rows itself, for as long.
    """

    sha: str
    bins: float
    trees: float


def fit_one(spec: ClassSpec, times: Times, values: Values, threads: int | None) -> Fit:
    """Features, then one model. `threads` None: as many as XGBoost likes."""
    from wheeltapper_trainer.boosting import xgboost  # type: ignore[attr-defined]  # for everybody without scikit-learn

    clock = time.process_time if threads is None else time.thread_time
    features, label = examples(spec, times, values)
    chosen = {} if threads is None else {"nthread": threads}
    begin = clock()
    matrix = xgboost.QuantileDMatrix(features, label=label, max_bin=spec.model.max_bin, **chosen)
    binned = clock()
    booster = xgboost.train({**_settings(spec.model), **chosen}, matrix, spec.model.rounds)
    grown = clock()
    return Fit(hashlib.sha256(bytes(booster.save_raw("ubj"))).hexdigest(), binned - begin, grown - binned)


def _settings(model: ModelSpec) -> dict[str, Any]:
    names = ("max_depth", "eta", "min_child_weight", "subsample", "colsample_bytree", "reg_lambda", "gamma", "max_bin")
    return {"tree_method": "hist", "seed": 7, **{name: getattr(model, name) for name in names}}


def fit_own(folder: str, asset_id: str, size: Size, threads: int | None) -> Fit:
    """`fit_one` for a peer: the machine's own file."""
    with np.load(Path(folder, "own", f"{asset_id}.npz")) as file:
        return fit_one(spec_of(size).classes[0], file["times"], file["values"], threads)


def fit_chunk(excerpt: Excerpt, size: Size) -> list[Fit]:
    """`fit_one` for a chunk of machines, read from where the excerpt says their rows lie."""
    spec, history = spec_of(size).classes[0], History.of(excerpt)
    return [fit_one(spec, asset.times, asset.values, 1) for asset in history.read(history.asset_ids(), SENSORS)]


def feature_count(size: Size) -> int:
    return len(features_of(spec_of(size).classes[0]))
