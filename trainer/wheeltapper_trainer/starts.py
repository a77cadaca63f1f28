"""What was usual for each asset when it was new to us: the mean and spread of its sensors over its first slots.

A start is a pure function of the readings in it. It is frozen: learnt once those slots are over, and kept with the
asset in the pack; an asset that the pack does not know has none, and its shifts are missing until it is trained.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from wheeltapper.features import feature_rows
from wheeltapper.regimes import Regimes
from wheeltapper.spec import ClassSpec
from wheeltapper.windows import RowStatus

from wheeltapper_trainer.job import ClassSplit

_NO_EVENTS = np.zeros(0, np.int64)
_STILL = 1e-6  # of the mean: a spread below it is rounding, and no measure of anything


def start_of(
    spec: ClassSpec,
    regimes: Regimes,
    split: ClassSplit,
    times: npt.NDArray[np.int64],
    values: npt.NDArray[np.float32],
) -> npt.NDArray[np.float64]:
    """float64[spec.start_width]: when the start was over (µs), then the mean and 1/std of each sensor in it.

    times int64[n] ascending µs, values float32[n, sensors], of one asset's whole history. All are NaN where the start
    is not over before the test part begins; a sensor's are where it was missing in more than half of the start.
    Sensors are in the units of their regimes. Sums are exact, so the order of readings changes no bit.
    """
    out = np.full(spec.start_width, np.nan)
    if spec.start is None or not len(times):
        return out
    if spec.cadence_us:
        over = (int(times[0]) // spec.cadence_us + spec.start) * spec.cadence_us
        count = int(np.searchsorted(times, over))
        if times[-1] < over:
            return out
    else:
        count = min(spec.start, len(times))
        over = int(times[count - 1]) + 1
        if count < spec.start:
            return out
    if split.by == "time" and over > split.test_from_us:
        return out
    out[0] = over
    sensors = sum(sensor.feature for sensor in spec.sensors)
    statics = np.full(len(spec.statics), np.nan, np.float32)
    first = np.ascontiguousarray(values[:count])
    features, status = feature_rows(spec, regimes, statics, times[:count], first, _NO_EVENTS, _NO_EVENTS)
    for sensor, column in enumerate(features[status == RowStatus.OK, :sensors].T.astype(np.float64)):
        there = column[~np.isnan(column)].tolist()  # a feature row begins with the last value of each sensor
        if 2 * len(there) < spec.start:
            continue
        mean = math.fsum(there) / len(there)
        spread = math.sqrt(math.fsum((x - mean) ** 2 for x in there) / len(there))
        out[1 + sensor] = mean
        out[1 + sensors + sensor] = 1.0 / spread if spread > _STILL * max(1.0, abs(mean)) else 1.0
    return out
