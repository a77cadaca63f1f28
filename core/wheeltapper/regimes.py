"""Operating regimes: which one a reading belongs to, and the scale of every sensor in it.

Learnt in training, stored in the pack, executed inside the window kernel: a sensor is judged against what is usual
under the same load.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wheeltapper.spec import ClassSpec

REGIMES_MAX = 254  # a slot remembers its regime in one byte; 255 marks an empty slot


@dataclass(frozen=True, slots=True)
class Regimes:
    """R regimes over m regime sensors, for a class of C sensors.

    centroids: float64 [R, m] in standardised units.   scale: float64 [m, 2], mean and 1/std of each regime sensor.
    mean, inverse_std: float32 [R + 1, C]; the last row serves readings whose regime sensors are missing.
    """

    centroids: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float32]
    inverse_std: npt.NDArray[np.float32]


def no_regimes(spec: ClassSpec) -> Regimes:
    """Sensors as they are: no regime, mean 0, scale 1."""
    sensors = len(spec.sensors)
    return Regimes(
        centroids=np.zeros((0, 0), np.float64),
        scale=np.zeros((0, 2), np.float64),
        mean=np.zeros((1, sensors), np.float32),
        inverse_std=np.ones((1, sensors), np.float32),
    )
