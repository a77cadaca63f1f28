"""Alarms against what happened: one output's scores played through the live alarm machine, its cases held to failures.

A failure counts where it falls into an asset's rows or within a horizon after them. It is warned of by a case raised at
most 1.5 horizons before it and at least the output's lead before it; the earliest such case is its lead.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from wheeltapper.alarms import RAISED, alarm_states, off_level
from wheeltapper.spec import ANY_CODE, ClassSpec, Costs, Target, lead_of

from wheeltapper_trainer.labels import horizon_of
from wheeltapper_trainer.scores import ClassScores, part_of

WEEK_US = 7 * 86_400_000_000
MONTH_US = 2_629_746_000_000  # a twelfth of a Gregorian year

Times = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Warnings:
    """What the alarms of one output did in one part: cases, failures and the first alarm in time before each.

    case_times int64[k], case_assets int64[k], false_cases bool[k]: not followed by a failure within 1.5 horizons;
    failure_times int64[f], failure_assets int64[f], lead_us int64[f]: -1 where it was not warned of in time;
    observed_us int64[A]: from each asset's first row to its last.
    """

    case_times: Times
    case_assets: Times
    false_cases: npt.NDArray[np.bool_]
    failure_assets: Times
    failure_times: Times
    lead_us: Times
    observed_us: Times

    def by_asset(self) -> npt.NDArray[np.int64]:
        """int64[A, 4] per asset: failures, those warned of, cases, those that were false."""
        columns = (
            self.failure_assets,
            self.failure_assets[self.lead_us >= 0],
            self.case_assets,
            self.case_assets[self.false_cases],
        )
        return np.column_stack([np.bincount(which, minlength=len(self.observed_us)) for which in columns])


@dataclass(frozen=True)
class Playable:
    """One output's rows of one part, ready to be played at any threshold: what does not depend on it is kept."""

    spec: ClassSpec
    target: Target
    times: Times
    begin: Times
    values: npt.NDArray[np.float32]
    failures: tuple[Times, Times]  # (asset, time), ascending in both

    def warnings(self, threshold: float) -> Warnings:
        """The alarms at `threshold`, NaN never raises one."""
        below, alarm = self.target.kind == "rul", self.spec.alarm
        states = np.empty(len(self.times), np.uint8)
        off = float(off_level(threshold, alarm.hysteresis, below))
        alarm_states(self.values, self.begin, threshold, off, alarm.hold, below, states)
        return self._matching.match(np.flatnonzero(states == RAISED))

    @cached_property
    def _matching(self) -> Matching:
        return Matching(self.spec, self.target, self.times, self.begin, *self.failures)


def playable(spec: ClassSpec, scores: ClassScores, output: int, part: int, column: str = "values") -> Playable:
    """The rows of one part and output of `scores`, by the heads of one level."""
    target = spec.targets[output]
    rows, begin = part_of(scores, output, part)
    owner = np.repeat(np.arange(len(scores.asset_ids)), np.diff(scores.failure_begin))
    wanted = np.ones(len(owner), np.bool_) if target.code == ANY_CODE else scores.failure_codes == target.code
    values = np.ascontiguousarray(getattr(scores, column)[rows, output])
    return Playable(spec, target, scores.times[rows], begin, values, (owner[wanted], scores.failure_times[wanted]))


def warnings_of(
    spec: ClassSpec, scores: ClassScores, output: int, part: int, threshold: float, column: str = "values"
) -> Warnings:
    """Play one part's scores through the alarm machine and hold its cases against what happened."""
    return playable(spec, scores, output, part, column).warnings(threshold)


class Matching:
    """The failures of some assets laid out so that cases are matched with them without a loop over assets.

    times int64[n] ascending within each asset, which owns the rows begin[a]:begin[a+1]; failure_assets and
    failure_times int64[k].
    """

    def __init__(
        self, spec: ClassSpec, target: Target, times: Times, begin: Times, failure_assets: Times, failure_times: Times
    ) -> None:
        self._times = times
        self._asset = np.repeat(np.arange(len(begin) - 1), np.diff(begin))
        there = np.diff(begin) > 0
        first, last = (np.zeros(len(there), np.int64) for _ in range(2))
        first[there], last[there] = times[begin[:-1][there]], times[begin[1:][there] - 1]
        horizon = np.array([horizon_us(spec, target, times[a:b]) for a, b in pairwise(begin)], np.int64)
        self._reach = np.rint(1.5 * horizon).astype(np.int64)
        self._first, self._lead_us, self.observed_us = first, lead_of(spec, target), last - first
        # One ascending number says asset and time, so that one search serves all assets.
        self._origin = int(first[there].min()) if there.any() else 0
        latest = int((last + self._reach)[there].max()) if there.any() else 0
        self._span = latest - self._origin + 1
        near = there[failure_assets] & (failure_times >= first[failure_assets])
        near &= failure_times <= (last + self._reach)[failure_assets]
        order = np.lexsort((failure_times[near], failure_assets[near]))
        self._failure_assets = failure_assets[near][order].astype(np.int64)
        self._failure_times = failure_times[near][order]
        self._failure_keys = self._keys(self._failure_assets, self._failure_times)
        owner = self._failure_assets
        self._counted = self._failure_times > first[owner] + self._lead_us
        self._counted &= self._failure_times <= (last + horizon)[owner]

    def match(self, raised: npt.NDArray[np.int64]) -> Warnings:
        """`raised` int64[k]: the rows in which a case was raised, ascending."""
        times, assets = self._times[raised], self._asset[raised]
        keys = self._keys(assets, times)
        following = np.searchsorted(self._failure_keys, keys)  # a case at the failure's own time still belongs to it
        there = following < len(self._failure_keys)
        at = np.where(there, following, 0)
        right = np.zeros(len(raised), np.bool_)
        if len(self._failure_keys):
            ahead = self._failure_times[at] - times
            right = there & (self._failure_assets[at] == assets) & (ahead <= self._reach[assets])
        owner, failed = self._failure_assets[self._counted], self._failure_times[self._counted]
        lead = np.full(len(owner), -1, np.int64)
        if len(raised):
            soonest = np.maximum(failed - self._reach[owner], self._first[owner])
            earliest = np.searchsorted(keys, self._keys(owner, soonest))
            at = np.minimum(earliest, len(keys) - 1)
            ahead = failed - times[at]
            useful = (earliest < len(keys)) & (assets[at] == owner) & (ahead >= self._lead_us)
            lead = np.where(useful, ahead, -1)
        return Warnings(times, assets, ~right, owner, failed, lead, self.observed_us)

    def _keys(self, assets: Times, times: Times) -> Times:
        return assets * self._span + (times - self._origin)


def horizon_us(spec: ClassSpec, target: Target, times: Times) -> int:
    """The span in which a warning counts, in µs; where a slot is a reading, so many usual steps of this asset.

    rul alarms count over the longest failure horizon, or their cap where the class has none.
    """
    span = warned_over(spec, target)
    if spec.cadence_us:
        return round(span)
    return round(span * float(np.median(np.diff(times)))) if len(times) > 1 else 0


def warned_over(spec: ClassSpec, target: Target) -> float:
    """`horizon_us` in the class's own unit: µs on a time grid, readings where a slot is a reading."""
    span = horizon_of(spec, target)
    if target.kind == "rul":
        span = max((horizon_of(spec, other) for other in spec.targets if other.kind == "failure"), default=span)
    return span


def cost_of(costs: Costs, by_asset: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """float64[A]: what each asset's alarms and failures cost, of `Warnings.by_asset` int64[A, 4]."""
    failures, warned, _, false = by_asset.astype(np.float64).T
    spent = costs.missed_failure * (failures - warned) + costs.replacement * warned + costs.false_alarm * false
    return np.asarray(spent)
