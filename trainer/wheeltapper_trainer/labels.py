"""What was going to happen: the truth of each reading for each target, NaN where nobody can know.

A life ends by a failure of its component, or by a maintenance event with the component's code (a planned or premature
replacement, which is no failure). A reading whose horizon crosses the end of a life that did not fail, or the end of
the data, is censored: unknown, never negative. A failure at the very time of a reading belongs to the past, because the
reading's event features may already count it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from wheeltapper.spec import ANY_CODE, MICROSECONDS_PER_HOUR, ClassSpec, Target

from wheeltapper_trainer.records import Events

Column = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Clock:
    """Where rows and events stand in the unit of horizons: µs on a time grid, readings where a slot is a reading."""

    times: npt.NDArray[np.int64]
    by_readings: bool

    def rows(self) -> npt.NDArray[np.float64]:
        return np.arange(len(self.times), dtype=np.float64) if self.by_readings else self.times.astype(np.float64)

    def next_of(self, events: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """float64[n]: how far ahead of each row the next of `events` (ascending µs) lies, inf where none follows."""
        following = np.searchsorted(events, self.times, side="right")
        at = np.append(events, 0)[following]
        place = np.searchsorted(self.times, at, side="right") - 1 if self.by_readings else at
        return np.where(following < len(events), place - self.rows(), np.inf)


def horizon_of(spec: ClassSpec, target: Target) -> float:
    """How far ahead a target looks, in µs (time grid) or readings; 0 for an anomaly in a class without failures.

    rul looks as far as its cap. An anomaly without its own horizon takes the longest failure horizon of its class.
    """
    by_readings = spec.cadence_us == 0
    own = float(target.horizon_readings if by_readings else target.horizon_us)
    if target.kind == "rul":
        return target.cap if by_readings else target.cap * MICROSECONDS_PER_HOUR
    if target.kind == "anomaly" and not own:
        return max((horizon_of(spec, t) for t in spec.targets if t.kind == "failure"), default=0.0)
    return own


def label_unit(spec: ClassSpec) -> float:
    """How many of the horizon's units make one unit of a rul label: µs per hour, or 1 where both are readings."""
    return 1.0 if spec.cadence_us == 0 else float(MICROSECONDS_PER_HOUR)


def target_codes(target: Target, failure_codes: Collection[str]) -> frozenset[str]:
    """The components whose failure ends a target's life; `failure_codes` are all that ever failed in the class."""
    return frozenset(failure_codes) if target.code == ANY_CODE else frozenset((target.code,))


def failure_times(events: Events, codes: Collection[str]) -> npt.NDArray[np.int64]:
    """int64[k] ascending: when one of `codes` failed, of one asset's events."""
    return _times(events, "failure", codes)


def label_column(
    spec: ClassSpec,
    target: Target,
    times: npt.NDArray[np.int64],
    events: Events,
    failure_codes: Collection[str],
    life_at_end: float = float("nan"),
) -> Column:
    """float32[n]: the truth of one target at each row of one asset, NaN where it is unknown.

    rul: hours (time grid) or readings until the failure, at most the cap. failure and anomaly: 1 where a failure
    follows within the horizon, else 0. `times` int64[n] ascending µs; `life_at_end` is the life left after the last row
    where a test set discloses it (in the unit of rul).
    """
    if not len(times):
        return np.empty(0, np.float32)
    clock = _Clock(times, spec.cadence_us == 0)
    unit = label_unit(spec)
    codes = target_codes(target, failure_codes)
    rows = clock.rows()
    to_end = rows[-1] - rows
    to_failure = clock.next_of(_times(events, "failure", codes))
    to_replacement = clock.next_of(_times(events, "maintenance", codes))
    if not np.isnan(life_at_end):
        to_failure = np.minimum(to_failure, to_end + life_at_end * unit)
        to_end = np.full_like(to_end, np.inf)
    fails_first = to_failure <= to_replacement
    observed = np.minimum(to_end, to_replacement)
    horizon = horizon_of(spec, target)
    if target.kind == "rul":
        cap = horizon if horizon else np.inf
        life = np.where(fails_first & (to_failure <= cap), to_failure, np.where(observed >= cap, cap, np.nan))
        life = np.where(fails_first & np.isfinite(to_failure) & (to_failure > cap), cap, life)
        return (life / unit).astype(np.float32)
    fails = fails_first & (to_failure <= horizon)
    return np.where(fails, 1.0, np.where(observed >= horizon, 0.0, np.nan)).astype(np.float32)


def _times(events: Events, kind: str, codes: Collection[str]) -> npt.NDArray[np.int64]:
    wanted = (events.kinds == kind) & np.isin(events.codes, sorted(codes))
    return np.sort(events.times[wanted])
