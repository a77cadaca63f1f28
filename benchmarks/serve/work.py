"""The work that every server here does: 16 values of a machine come in, the answer of one forest goes out.

The forest is XGBoost's own, 100 trees of depth 6. The scorer walks it from a pack whose only features are the 16 last
values; its peers hand the same 16 values to the Booster, so the answers are the same numbers. The scorer keeps windows,
duplicates, health and alarms besides; the peers keep nothing. `windowed` is the scorer's usual day: 3 windows of 7
statistics over the same sensors, 352 features.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xgboost
from numpy.typing import NDArray
from wheeltapper.features import KERNELS
from wheeltapper.pack import AssetContent, ClassContent, HeadContent, Output, PackContent, Why, write_pack
from wheeltapper.spec import ClassSpec, Sensor, Target, features_of
from wheeltapper_proto import scoring_pb2 as pb
from wheeltapper_trainer.boosting import trees_of

SENSORS = tuple(f"s{i:02d}" for i in range(16))
SECOND_US = 1_000_000
FIRST_US = 1_700_000_000 * SECOND_US
_WINDOWS = (10, 60, 360)
_STATISTICS = ("mean", "std", "min", "max", "range", "slope")  # and last, which always is


@dataclass(frozen=True, slots=True)
class Work:
    """A pack of one class of 1-second readings and `assets` assets, and the same forest as XGBoost keeps it."""

    pack: Path
    model: Path
    features: int


def prepare(folder: Path, name: str, windowed: bool, trees: int = 100, depth: int = 6) -> Work:
    """Train on noise, deterministically, and write both forms."""
    spec = ClassSpec(
        "pump",
        tuple(Sensor(sensor) for sensor in SENSORS),
        SECOND_US,
        _WINDOWS if windowed else (),
        _STATISTICS if windowed else (),
        lateness=8,
        skew_us=SECOND_US,
        targets=(Target("failure", "failure", "*", horizon_us=3600 * SECOND_US),),
    )
    width = len(features_of(spec))
    rng = np.random.default_rng(7)
    rows = rng.normal(size=(4000, width)).astype(np.float32)
    label = (rows[:, :16].sum(axis=1) + rng.normal(size=4000) > 0).astype(np.float32)
    parameters = {"objective": "binary:logistic", "base_score": 0.5, "max_depth": depth, "nthread": 1, "seed": 7}
    booster = xgboost.train(parameters, xgboost.DMatrix(rows, label), trees)
    model = folder / f"{name}.ubj"
    booster.save_model(model)
    one = ClassContent(spec, (Output("failure", "failure", 0, 1, threshold=0.99, hold=3),), (0,))
    heads = (HeadContent(0, 0, 2, trees_of(booster, width)),)
    known = (AssetContent("pump-0", 0, (0,), (Why.DID_NOT_BEAT_CLASS,), ()),)
    pack = folder / f"{name}.pack"
    pack.write_bytes(write_pack(PackContent("bench", 7, KERNELS, (one,), heads, known)))
    return Work(pack, model, width)


def values(rows: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(rows, len(SENSORS))).astype(np.float32)


def opening(gateway: str, assets: int) -> pb.Open:
    names = [f"{gateway}-{i}" for i in range(assets)]
    return pb.Open(gateway=gateway, epoch=1, asset_class="pump", sensors=SENSORS, asset_ids=names)


def block(sequence: int, rows: NDArray[np.float32], second: int) -> pb.ReadingBlock:
    """One reading of each of the first len(rows) handles, from a gateway that has heard all before it, and says so."""
    return pb.ReadingBlock(
        sequence=sequence,
        handles=range(len(rows)),
        times=[FIRST_US + second * SECOND_US] * len(rows),
        values=rows.ravel().tolist(),
        settled_sequence=max(0, sequence - 1),
    )
