"""What a run will take, before it takes it: core seconds and a worker's memory, from the plan and measured rates.

The rates are of one 2.5 GHz Xeon core (docs/scale.md says how they were measured); a run's own log and report say what
it was in truth. A forecast is good to a factor of two, which is what choosing a machine needs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from wheeltapper.spec import ClassSpec, features_of

from wheeltapper_trainer.job import TrainJob, slots_of
from wheeltapper_trainer.plan import Group

READ_S = 0.25e-6  # per reading and sensor, of one pass
FEATURE_S = 0.06e-6  # per reading and feature, of one pass
FIT_S = 22e-9  # per row, feature and tree of depth 6; a shallower one costs its share
SCORE_S = 0.1e-6  # per reading and tree, by XGBoost in a batch
HEAD_S = 4e-3  # per head, however small
PASSES_READ, PASSES_FEATURES = 3, 2  # digest, sample, assets; of which the last two make features
WORKER_BYTES = 350 * 2**20  # a worker that has imported XGBoost, Numba and Arrow
TASK_START_S = 0.01  # per task: Ray, its files opened (1 to 2 ms), and for own heads its class heads (2 ms each)


@dataclass(frozen=True, slots=True)
class Forecast:
    """core_seconds by phase; wall_seconds on `cores`; worker_bytes, the most one worker holds at a time."""

    core_seconds: dict[str, float]
    wall_seconds: float
    worker_bytes: int
    cores: int


def forecast(job: TrainJob, groups: Sequence[Group], cores: int) -> Forecast:
    """The cost of training everything; what is found finished in a resumed run costs nothing."""
    read = features = classes = assets = 0.0
    largest = 0
    slowest_class = 0.0
    for spec in job.spec.classes:
        own = [group for group in groups if group.asset_class == spec.name]
        rows, count = sum(group.rows for group in own), sum(len(group.asset_ids) for group in own)
        width, slots = len(features_of(spec)), len(slots_of(spec))
        read += READ_S * PASSES_READ * rows * len(spec.sensors)
        features += FEATURE_S * PASSES_FEATURES * rows * width
        head = _fit_seconds(spec, min(rows, max(job.class_rows, 16 * count)), spec.model.rounds)
        classes += slots * head
        slowest_class = max(slowest_class, head)
        if job.split(spec.name).by == "time":
            trees = spec.model.asset_rounds + (spec.model.rounds if spec.model.asset_alone else 0)
            assets += count * slots * HEAD_S + slots * _fit_seconds(spec, rows, trees)
        assets += SCORE_S * rows * slots * spec.model.rounds
        most = max((math.ceil(group.rows / len(group.asset_ids)) for group in own), default=0)
        sampled = min(rows, max(job.class_rows, 16 * count)) * width * 4
        # One asset's values and features at a time, with XGBoost's bins beside them; or one class's samples, twice.
        largest = max(largest, 3 * most * width * 4, 2 * sampled)
    spent = {"read": read, "features": features, "class heads": classes, "asset heads": assets}
    spread = (read + features + assets + TASK_START_S * PASSES_READ * len(groups)) / cores
    return Forecast(
        {phase: round(seconds, 1) for phase, seconds in spent.items()},
        round(spread + max(slowest_class, classes / cores), 1),
        WORKER_BYTES + largest,
        cores,
    )


def _fit_seconds(spec: ClassSpec, rows: int, trees: int) -> float:
    return FIT_S * rows * len(features_of(spec)) * trees * spec.model.max_depth / 6
