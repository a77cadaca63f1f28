"""What the kernels need of a class's outputs, taken from its pack."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wheeltapper.alarms import off_level
from wheeltapper.pack import Pack, PackClass
from wheeltapper.scoring import Heads
from wheeltapper.spec import TARGET_KINDS, features_of


def heads_of(pack: Pack, known: PackClass) -> Heads:
    """The heads of a class as views of its pack, with thresholds and the features that anomaly slots predict."""
    spec, outputs = known.spec, known.outputs
    features = features_of(spec)
    place = {(feature.statistic, feature.window, feature.source): feature.index for feature in features}
    actual = np.zeros(known.slots, np.int64)
    for output, target in zip(outputs, spec.targets, strict=True):
        if target.kind == "anomaly":
            actual[output.begin : output.end] = [place[watched] for watched in target.watched()]
    thresholds = [np.nan if o.threshold is None else o.threshold for o in outputs]
    offs = [off_level(t, o.hysteresis, o.kind == "rul") for t, o in zip(thresholds, outputs, strict=True)]
    return Heads(
        kind=np.array([TARGET_KINDS.index(o.kind) for o in outputs], np.uint8),
        slots=np.array([[o.begin, o.end] for o in outputs], np.int64).reshape(-1, 2),
        cap=np.array([o.cap for o in outputs], np.float64),
        threshold=np.array(thresholds, np.float32),
        off=np.array(offs, np.float32),
        hold=np.array([o.hold for o in outputs], np.int64),
        actual=actual,
        moves=_moving(known),
        level=pack.head_level,
        scale=pack.head_scale,
        knots_of=pack.head_knots,
        knots=pack.knots,
        forest=pack.forest,
    )


def _moving(known: PackClass) -> npt.NDArray[np.bool_]:
    """Sensors that in training practically never stood still over the longest window: for them stillness is a fault."""
    spec = known.spec
    sensors = [s.name for s in spec.sensors if s.feature]
    longest = spec.windows[-1] if spec.windows else 0
    moves = np.zeros(len(sensors), np.bool_)
    for feature in features_of(spec):
        if feature.window == longest and feature.statistic in ("range", "std"):
            # The second of 17 quantiles: 94 % of the training windows moved more than this.
            moves[sensors.index(feature.source)] = known.sketch[feature.index, 1] > 0
    return moves
