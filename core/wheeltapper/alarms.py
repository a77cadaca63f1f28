"""When a score becomes an alarm: one state machine per asset and output, the same where thresholds are chosen and live.

A row is over the threshold at score >= threshold (failure, anomaly) or score <= threshold (rul). `hold` rows over it in
a row raise a case, which stays open until a score falls back behind `off`. A missing score (NaN) moves nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wheeltapper.kernel import inline_kernel, kernel

NONE, PENDING, RAISED, ACTIVE, CLEARED = range(5)  # the numbers of AlarmState on the wire


def off_level(threshold: float, hysteresis: float, below: bool) -> np.float32:
    """Where an open alarm ends: under hysteresis × threshold, or over threshold ÷ hysteresis where low scores alarm."""
    return np.float32(threshold / hysteresis if below else threshold * hysteresis)


@inline_kernel
def alarm_step(
    state: int, run: int, value: float, threshold: float, off: float, hold: int, below: bool
) -> tuple[int, int]:
    """(state, rows over the threshold in a row) after one more row, of the state and run before it.

    RAISED and CLEARED name the row where it happened, so the row after them is ACTIVE or NONE even if it has no score.
    A threshold of NaN never raises.
    """
    raised = state in (2, 3)  # RAISED, ACTIVE
    if value != value:  # NaN  # noqa: PLR0124
        if raised:
            return 3, run
        return (0 if state == 4 else state), run
    if raised:
        ended = value > off if below else value < off
        return (4, 0) if ended else (3, 0)
    over = value <= threshold if below else value >= threshold
    if not over:
        return 0, 0
    run += 1
    return (2, 0) if run >= hold else (1, run)


@kernel
def alarm_states(
    scores: npt.NDArray[np.float32],
    begin: npt.NDArray[np.int64],
    threshold: float,
    off: float,
    hold: int,
    below: bool,
    states: npt.NDArray[np.uint8],
) -> int:
    """Play one output's scores f32[n] through the machine, writing its state of every row into `states` u8[n].

    Asset a owns the rows begin[a]:begin[a+1], ascending in time, and starts with no alarm. Returns the cases raised.
    """
    cases = 0
    for asset in range(len(begin) - 1):
        state, run = 0, 0
        for row in range(begin[asset], begin[asset + 1]):
            state, run = alarm_step(state, run, scores[row], threshold, off, hold, below)
            states[row] = state
            if state == 2:  # RAISED
                cases += 1
    return cases
