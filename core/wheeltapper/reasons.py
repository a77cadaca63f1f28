"""Why a machine was flagged: the features that made an output what it is, the weightiest first.

An output of kind `rul` or `failure` is explained by the Shapley values of its margin (`wheeltapper.shapley`): in hours
or readings of life, or in log-odds. An `anomaly` is explained by its sensors: each has the share of the score that its
squared residual has of all, so the shares of a row add up to its score, and the feature named is last(sensor).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from wheeltapper.forest import margin, spread
from wheeltapper.kernel import heapless_kernel
from wheeltapper.outputs import anomaly_residual
from wheeltapper.scoring import ANOMALY, Heads
from wheeltapper.shapley import Rule, Walk, contribute, rule_for, walk_for

_NEAR = 0  # the trees have just been scored; through bool(…), which compiles no variant of its own as False would
TOP_MAX = 64  # reasons of one output of one row; nobody reads more


class Reasons(NamedTuple):
    """m reasons, in the order of rows, outputs, then weight; a feature that contributes nothing is not named.

    contribution: above 0 where the feature raised the output's margin (or the anomaly), below where it lowered it.
    """

    row: npt.NDArray[np.int64]  # [m] position in the answers
    output: npt.NDArray[np.uint8]  # [m]
    feature: npt.NDArray[np.int32]  # [m]
    contribution: npt.NDArray[np.float32]  # [m]


class ReasonWork(NamedTuple):
    """What a class's explanations need beside its heads; made once for a pack, used by one call at a time."""

    rule: Rule
    walk: Walk
    wide: npt.NDArray[np.float32]  # [2 F + 1]
    worth: npt.NDArray[np.float64]  # [F]


def work_for(heads: Heads, features: int) -> ReasonWork:
    """Working memory for heads over so many features."""
    wide, worth = np.empty(2 * features + 1, np.float32), np.empty(features, np.float64)
    return ReasonWork(rule_for(heads.forest), walk_for(heads.forest), wide, worth)


def explain(
    heads: Heads,
    work: ReasonWork,
    answering: npt.NDArray[np.int32],
    features: npt.NDArray[np.float32],
    wanted: npt.NDArray[np.bool_],
    top: int,
) -> Reasons:
    """At most `top` reasons for each wanted output of each row.

    answering int32 [n, s]: the head of each slot, −1 none; features float32 [n, F] as of that row; wanted bool [n, O],
    only where there is a score. Raises ValueError where `top` is not 1 to TOP_MAX.
    """
    if not 1 <= top <= TOP_MAX:
        raise ValueError(f"expected 1 to {TOP_MAX} reasons, found {top}")
    at = np.ascontiguousarray(np.argwhere(wanted))  # whichever layout it came in: kernels compile once
    room = len(at) * min(top, features.shape[1])
    out = Reasons(np.empty(room, np.int64), np.empty(room, np.uint8), np.empty(room, np.int32), np.empty(room, "f4"))
    count = _explain(heads, work, answering, features, at, top, out) if room else 0
    return Reasons._make(column[:count] for column in out)


@heapless_kernel
def _explain(
    heads: Heads,
    work: ReasonWork,
    answering: npt.NDArray[np.int32],
    features: npt.NDArray[np.float32],
    at: npt.NDArray[np.int64],
    top: int,
    out: Reasons,
) -> int:
    """Fill `out` for each (row, output) of `at`, int64 [p, 2], that a head answers; returns how many reasons."""
    count, spread_row = 0, -1
    for p in range(at.shape[0]):
        row, output = at[p, 0], at[p, 1]
        if row != spread_row:
            spread(features[row], work.wide)
            spread_row = row
        if heads.kind[output] == ANOMALY:
            _residual_shares(heads, answering[row], features[row], output, work)
        else:
            head = answering[row, heads.slots[output, 0]]
            if head < 0:
                continue
            contribute(heads.forest, head, work.wide, work.rule, work.walk, work.worth)
        for _ in range(min(top, work.worth.size)):
            feature = _weightiest(work.worth)
            if feature < 0:
                break
            out.row[count] = row
            out.output[count] = output
            out.feature[count] = feature
            out.contribution[count] = work.worth[feature]
            work.worth[feature] = 0.0
            count += 1
    return count


@heapless_kernel
def _residual_shares(
    heads: Heads, answering: npt.NDArray[np.int32], features: npt.NDArray[np.float32], output: int, work: ReasonWork
) -> None:
    """Write each sensor's share of an anomaly's score into `work.worth`, at the feature last(sensor)."""
    work.worth[:] = 0.0
    squares, finite = 0.0, 0
    for slot in range(heads.slots[output, 0], heads.slots[output, 1]):
        head = answering[slot]
        if head < 0:
            continue
        actual = heads.actual[slot]
        predicted = np.float64(margin(heads.forest, head, work.wide, bool(_NEAR)))
        scale, shift = heads.scale[head, 0], heads.scale[head, 1]
        residual = np.float64(anomaly_residual(np.float64(features[actual]), predicted, scale, shift))
        if np.isfinite(residual):
            work.worth[actual] = residual * residual
            squares += residual * residual
            finite += 1
    score = np.sqrt(squares / finite) if finite else 0.0
    for slot in range(heads.slots[output, 0], heads.slots[output, 1]):
        if squares > 0.0:
            work.worth[heads.actual[slot]] *= score / squares


@heapless_kernel
def _weightiest(worth: npt.NDArray[np.float64]) -> int:
    """The feature of the largest contribution, whatever its sign; the first of equal ones, −1 where all are zero."""
    found, most = -1, 0.0
    for feature in range(worth.size):
        if abs(worth[feature]) > most:
            found, most = feature, abs(worth[feature])
    return found
