"""Learning the operating regimes of a class: deterministic k-means over its regime sensors, then a scale per regime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from wheeltapper.regimes import Regimes, no_regimes
from wheeltapper.spec import ClassSpec

from wheeltapper_trainer.history import Excerpt, History
from wheeltapper_trainer.job import TRAIN, TrainJob, load_arrays, save_arrays
from wheeltapper_trainer.split import parts_of

_ASSETS_MAX = 256
_ROWS_MAX = 400_000
_ITERATIONS = 50

Values = npt.NDArray[np.float32]


def learn_regimes(job: TrainJob, asset_class: str, source: Excerpt | None = None) -> Regimes:
    """Learn a class's regimes from training rows of up to 256 assets, store them in the run folder and return them.

    `source`: the assets that `teachers` names; None: they are looked up in the history.
    """
    spec = job.asset_class(asset_class)
    regimes = no_regimes(spec)
    if spec.regime is not None:
        history = History.open(job.history) if source is None else History.of(source)
        regimes = regimes_of(spec, _training_rows(job, spec, history), job.seed)
    save_regimes(job, asset_class, regimes)
    return regimes


def teachers(job: TrainJob, spec: ClassSpec, asset_ids: Sequence[str]) -> list[str]:
    """At most 256 of a class's assets, evenly spread over those that neither validate nor test; none without regimes.

    Of its own answer it names all, so a worker that is given only these chooses the same."""
    split = job.split(spec.name)
    held_out = {*split.test_assets, *split.valid_assets}
    candidates = [asset_id for asset_id in asset_ids if asset_id not in held_out] if spec.regime else []
    return candidates[:: max(1, -(-len(candidates) // _ASSETS_MAX))]


def save_regimes(job: TrainJob, asset_class: str, regimes: Regimes) -> None:
    names = ("centroids", "scale", "mean", "inverse_std")
    save_arrays(job.regimes_path(asset_class), {name: getattr(regimes, name) for name in names})


def load_regimes(job: TrainJob, asset_class: str) -> Regimes:
    """What `learn_regimes` stored."""
    return Regimes(**load_arrays(job.regimes_path(asset_class)))


def regimes_of(spec: ClassSpec, values: Values, seed: int) -> Regimes:
    """The regimes of `values` float32[n, sensors] (NaN missing), at most `spec.regime.count` of them.

    Sums are float64 in row order. A regime sensor itself keeps mean 0 and scale 1, as does a sensor never seen.
    """
    if spec.regime is None:
        return no_regimes(spec)
    names = [sensor.name for sensor in spec.sensors]
    columns = [names.index(name) for name in spec.regime.sensors]
    load = values[:, columns].astype(np.float64)
    complete = np.isfinite(load).all(axis=1)
    if not complete.any():
        return no_regimes(spec)
    mean = load[complete].mean(axis=0)
    std = load[complete].std(axis=0)
    scale = np.column_stack([mean, np.where(std > 0, 1.0 / np.where(std > 0, std, 1.0), 0.0)])
    standard = (load[complete] - scale[:, 0]) * scale[:, 1]
    centroids = _k_means(standard, spec.regime.count, seed)
    member = np.full(len(values), len(centroids))  # the fleet-wide row, for rows without a regime
    member[complete] = _nearest(standard, centroids)
    means = np.zeros((len(centroids) + 1, len(names)), np.float32)
    inverse = np.ones((len(centroids) + 1, len(names)), np.float32)
    for sensor in range(len(names)):
        if sensor in columns:
            continue
        column = values[:, sensor].astype(np.float64)
        for regime in range(len(centroids) + 1):
            rows = column if regime == len(centroids) else column[member == regime]
            rows = rows[np.isfinite(rows)]
            if len(rows):
                spread = rows.std()
                means[regime, sensor] = rows.mean()
                # A sensor that never moves in a regime has no scale there: what remains is rounding, not information.
                inverse[regime, sensor] = 1.0 / spread if spread > 1e-6 * max(1.0, abs(rows.mean())) else 1.0
    return Regimes(centroids, scale, means, inverse)


def _training_rows(job: TrainJob, spec: ClassSpec, history: History) -> Values:
    split = job.split(spec.name)
    chosen = teachers(job, spec, history.asset_ids(spec.name))
    per_asset = _ROWS_MAX // max(1, len(chosen))
    found: list[Values] = []
    for asset in history.read(chosen, [sensor.name for sensor in spec.sensors]):
        parts = parts_of(spec, split, spec.targets[0], asset.asset_id, asset.times)
        rows = asset.values[parts == TRAIN]
        found.append(_clean(spec, rows[:: max(1, -(-len(rows) // max(1, per_asset)))]))
    return np.concatenate(found) if found else np.empty((0, len(spec.sensors)), np.float32)


def _clean(spec: ClassSpec, values: Values) -> Values:
    low = np.array([sensor.minimum for sensor in spec.sensors], np.float32)
    high = np.array([sensor.maximum for sensor in spec.sensors], np.float32)
    return np.where(np.isfinite(values) & (values >= low) & (values <= high), values, np.float32("nan"))


def _k_means(rows: npt.NDArray[np.float64], count: int, seed: int) -> npt.NDArray[np.float64]:
    """Lloyd's algorithm from k-means++ starts (Arthur & Vassilvitskii, 2007); centroids in lexicographic order."""
    random = np.random.default_rng(seed)
    centroids = rows[[int(random.integers(len(rows)))]]
    while len(centroids) < count:
        distance = ((rows[:, None, :] - centroids[None, :, :]) ** 2).sum(axis=2).min(axis=1)
        if distance.sum() <= 0:  # fewer distinct rows than regimes
            break
        reach = np.cumsum(distance)
        chosen = int(np.searchsorted(reach, random.random() * reach[-1], side="right"))
        centroids = np.vstack([centroids, rows[min(chosen, len(rows) - 1)]])
    for _ in range(_ITERATIONS):
        member = _nearest(rows, centroids)
        groups = [rows[member == k] for k in range(len(centroids))]
        moved = np.array([g.mean(axis=0) if len(g) else c for g, c in zip(groups, centroids, strict=True)])
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return np.asarray(centroids[np.lexsort(centroids.T[::-1])])


def _nearest(rows: npt.NDArray[np.float64], centroids: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    return np.asarray(((rows[:, None, :] - centroids[None, :, :]) ** 2).sum(axis=2).argmin(axis=1), np.int64)
