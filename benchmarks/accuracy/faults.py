"""Faults put into healthy readings, so that a setting can be judged where nobody has labels.

A fault begins somewhere and lasts for a while; it moves some of the sensors, each up or down, by a few of its own
healthy deviations: at once, growing as wear grows, or as noise on top of what was there.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float32]

_SIZES = (1.0, 8.0)  # healthy deviations, drawn evenly in their logarithm: from hardly to plainly visible
_SHORTEST = 20  # readings
_LONGEST_SHARE = 0.25  # of the readings that may be faulty
_FAULTY_SHARE = 0.3
_TRIES_MAX = 1_000


def with_faults(values: Values, first: int, random: np.random.Generator) -> tuple[Values, npt.NDArray[np.bool_]]:
    """(values with faults from row `first` on, anomaly bool[n]): about a third of those rows, in faults apart from each
    other. values float32[n, sensors], healthy throughout; a sensor's deviation is that of the rows before `first`."""
    out, anomaly = values.copy(), np.zeros(len(values), np.bool_)
    spread = values[:first].std(axis=0, dtype=np.float64)
    rows = len(values) - first
    for _ in range(_TRIES_MAX):
        if anomaly.sum() >= _FAULTY_SHARE * rows:
            break
        length = int(_even_in_logarithm(random, _SHORTEST, max(_SHORTEST, _LONGEST_SHARE * rows)))
        begin = first + int(random.integers(0, max(1, rows - length)))
        fault = slice(begin, begin + length)
        if anomaly[max(first, begin - length) : begin + 2 * length].any():  # a fault may not answer for another
            continue
        anomaly[fault] = True
        out[fault] += (_moved(length, values.shape[1], random) * spread).astype(np.float32)
    return out, anomaly


def _moved(length: int, sensors: int, random: np.random.Generator) -> npt.NDArray[np.float64]:
    """float64[length, sensors]: how far a fault moves each sensor, in deviations."""
    touched = random.random(sensors) < random.uniform(0.1, 1.0)
    touched[random.integers(sensors)] = True
    size = _even_in_logarithm(random, *_SIZES) * random.uniform(0.5, 1.0, sensors) * random.choice([-1.0, 1.0], sensors)
    age = np.linspace(0.0, 1.0, length)[:, None]
    shape = (np.ones_like(age), age, age**3, random.standard_normal((length, sensors)))[random.integers(4)]
    return np.asarray(shape * size * touched)


def _even_in_logarithm(random: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(random.uniform(np.log(low), np.log(high))))
