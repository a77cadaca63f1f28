"""The slow, obvious truth about windows and features, in plain NumPy and Python. Kernels answer to it.

Nothing here is shared with the product: a window is a list of readings, a statistic is its textbook formula.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from wheeltapper.regimes import Regimes
from wheeltapper.spec import ClassSpec

HOUR_US = 3_600_000_000


def clean(spec: ClassSpec, row: np.ndarray) -> np.ndarray:
    out = row.astype(np.float32).copy()
    for c, sensor in enumerate(spec.sensors):
        if not math.isfinite(out[c]) or out[c] < np.float32(sensor.minimum) or out[c] > np.float32(sensor.maximum):
            out[c] = np.nan
    return out


def scale(spec: ClassSpec, regimes: Regimes, row: np.ndarray) -> np.ndarray:
    """A cleaned reading in the units of its regime."""
    if len(regimes.centroids) == 0:
        return row
    names = [s.name for s in spec.sensors]
    x = np.array([row[names.index(s)] for s in spec.regime.sensors], np.float64)
    x = (x - regimes.scale[:, 0]) * regimes.scale[:, 1]
    distances = ((x - regimes.centroids) ** 2).sum(axis=1)
    nearest = len(regimes.centroids) if np.isnan(x).any() else int(np.argmin(distances))
    return (row - regimes.mean[nearest]) * regimes.inverse_std[nearest]


def window_of(spec: ClassSpec, readings: dict[int, np.ndarray], time: int, window: int) -> list[tuple[int, np.ndarray]]:
    """(position, values) of the slots of a window that ends with the reading of `time`; position 0 is the newest."""
    past = {t: v for t, v in readings.items() if t <= time}
    if spec.cadence_us == 0:
        newest_first = sorted(past, reverse=True)[:window]
        return [(-i, past[t]) for i, t in enumerate(newest_first)]
    end = time // spec.cadence_us
    holders: dict[int, int] = {}
    for t in past:
        slot = t // spec.cadence_us
        holders[slot] = max(holders.get(slot, t), t)
    return [(slot - end, past[t]) for slot, t in holders.items() if end - window < slot <= end]


def statistic(name: str, positions: np.ndarray, values: np.ndarray, window: int) -> float:
    """Textbook statistic of the present values of one sensor."""
    n = len(values)
    if name == "missing":
        return 1 - n / window
    if n == 0:
        return math.nan
    if name == "mean":
        return float(np.mean(values))
    if name == "std":
        return float(np.std(values))
    if name == "min":
        return float(np.min(values))
    if name == "max":
        return float(np.max(values))
    if name == "range":
        return float(np.max(values) - np.min(values))
    if name == "slope":
        return float(np.polyfit(positions, values, 1)[0]) if n > 1 else math.nan
    if name == "ewma":
        weights = (1 - 2 / (window + 1)) ** -positions.astype(float)
        return float((weights * values).sum() / weights.sum())
    if name == "delta":
        return float(values[np.argmax(positions)] - values[np.argmin(positions)])
    raise ValueError(name)


def start(spec: ClassSpec, regimes: Regimes, readings: dict[int, np.ndarray]) -> list[float]:
    """When an asset's start was over, then the mean of each sensor in it, then one over its standard deviation."""
    times = sorted(readings)
    if spec.cadence_us == 0:
        inside = times[: spec.start]
        over = inside[-1] + 1
    else:
        over = (times[0] // spec.cadence_us + spec.start) * spec.cadence_us
        holders = {t // spec.cadence_us: t for t in times if t < over}  # of two in one slot the later
        inside = sorted(holders.values())
    rows = np.array([scale(spec, regimes, clean(spec, readings[t])) for t in inside], np.float64)
    means, inverse = [], []
    for c, sensor in enumerate(spec.sensors):
        there = rows[~np.isnan(rows[:, c]), c]
        if sensor.feature:
            known = 2 * len(there) >= spec.start
            means.append(float(np.mean(there)) if known else math.nan)
            inverse.append(1 / float(np.std(there)) if known else math.nan)
    return [over, *means, *inverse]


def features(
    spec: ClassSpec,
    regimes: Regimes,
    statics: Sequence[float],
    readings: dict[int, np.ndarray],
    events: Sequence[tuple[int, int]],
    time: int,
    own_start: Sequence[float] = (),
) -> list[float]:
    """The feature row of the reading at `time`, given the whole set of readings {time: raw values}, events
    (time, position in spec.events), and what `start` says of the asset, nothing where that is unknown."""
    scaled = {t: scale(spec, regimes, clean(spec, row)) for t, row in readings.items()}
    used = [c for c, s in enumerate(spec.sensors) if s.feature]
    row = [float(scaled[time][c]) for c in used]
    for window in spec.windows:
        slots = window_of(spec, scaled, time, window)
        for name in spec.statistics:
            for u, c in enumerate(used):
                there = [(p, v[c]) for p, v in slots if not np.isnan(v[c])]
                positions = np.array([p for p, _ in there], int)
                values = np.array([v for _, v in there], np.float64)
                if name == "shift":
                    known = len(own_start) > 0 and len(values) > 0 and time >= own_start[0]
                    shift = known and (np.mean(values) - own_start[1 + u]) * own_start[1 + len(used) + u]
                    row.append(float(shift) if known else math.nan)
                    continue
                row.append(statistic(name, positions, values, window))
    for e, event in enumerate(spec.events):
        times = sorted({t for t, code in events if code == e and t <= time})
        for width in event.windows_us:
            row.append(float(sum(time - width < t for t in times)))
        if event.since:
            row.append((time - times[-1]) / HOUR_US if times else math.nan)
    return row + [float(x) for x in statics]
