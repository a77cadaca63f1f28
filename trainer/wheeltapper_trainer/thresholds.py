"""From an alarm budget, or from costs, to a threshold: validation scores played through the alarm machine that is live.

By costs: the threshold at which failures missed, false alarms and planned replacements cost least together; of equally
cheap ones the laxest. Where validation saw no failure of an output, costs have nothing to weigh, and its budget stands
in.

By budget: it is a class's whole, and its outputs share it equally, so that all of them together stay within it. Within
its share an output takes the threshold that warns of the most failures. Of equally good ones it takes the laxest that
spends at most half the share: the failures to come may show less than the few that were seen, and budget that buys
nothing more is not spent.

A threshold keeps its budget on the rows that chose it, where few failures and few alarms promise too much. So what is
promised (`Promise`) is counted on assets that did not choose: of five groups of assets, each is played at the threshold
that the other four choose by the same rule.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from wheeltapper.spec import ClassSpec, Target, costs_of

from wheeltapper_trainer.bounds import rate_at_most, share_at_least
from wheeltapper_trainer.cases import MONTH_US, WEEK_US, cost_of, playable
from wheeltapper_trainer.job import VALID, Chunk, TrainJob
from wheeltapper_trainer.scores import ClassScores, each_scores, part_of
from wheeltapper_trainer.tally import Tally

_CANDIDATES = 160
_GROUPS = 5  # of assets, each judged by a threshold that the others chose

Counts = npt.NDArray[np.int64]  # [..., 5]: failures, warned of, cases, false, sum over assets of squared cases
Scores = Callable[[], Iterable[ClassScores]]  # a class's scores, a chunk at a time, as often as it is called


@dataclass(frozen=True, slots=True)
class Promise:
    """What validation lets one hope for, 95 % sure each: alarms per asset-week, and the share of failures warned of in
    time; NaN where there was nothing to count."""

    cases_per_asset_week_high: float = float("nan")
    warned_share_low: float = float("nan")


@dataclass(frozen=True, slots=True)
class Threshold:
    """One output's alarm: raised at `threshold`, NaN where nothing could be scored and it never alarms."""

    asset_class: str
    output: str
    threshold: float  # exactly a float32
    cases_per_asset_week: float  # on validation
    failures: int
    warned: int
    by: str = "budget"  # or "costs"
    cost_per_asset_month: float = float("nan")  # on validation; NaN where there are no costs
    promise: Promise = Promise()


def choose_thresholds(job: TrainJob, chunks: Sequence[Chunk]) -> tuple[Threshold, ...]:
    """One threshold per class and output, in the order of the fleet; no more than one chunk's scores are in memory."""
    return tuple(
        found
        for spec in job.spec.classes
        for found in thresholds_of(
            spec, partial(each_scores, job, spec.name, [c for c in chunks if c.asset_class == spec.name])
        )
    )


def thresholds_of(spec: ClassSpec, scores: Scores) -> list[Threshold]:
    """The thresholds of a class: once through its scores for candidates, and once to play them all."""
    tallies = [Tally() for _ in spec.targets]
    for chunk in scores():
        for output, tally in enumerate(tallies):
            tally.add(chunk.values[part_of(chunk, output, VALID)[0], output])
    trials = [_Trials(spec, target, tally) for target, tally in zip(spec.targets, tallies, strict=True)]
    for chunk in scores():
        for output, trial in enumerate(trials):
            trial.play(chunk, output)
    return [trial.choose() for trial in trials]


class _Trials:
    """One output's candidates, the strictest first, and what each would have done on validation."""

    def __init__(self, spec: ClassSpec, target: Target, tally: Tally) -> None:
        self._spec, self._target = spec, target
        found = tally.strictest_first(_CANDIDATES, target.kind == "rul")
        if len(found):  # and one beyond all that was seen, which never alarms
            beyond = np.nextafter(found[:1], np.float32(-np.inf if target.kind == "rul" else np.inf))
            found = np.concatenate([beyond, found])
        self._candidates = found
        self._counts: Counts = np.zeros((_GROUPS, len(found), 5), np.int64)
        self._observed_us = np.zeros(_GROUPS, np.int64)
        self._assets = np.zeros(_GROUPS, np.int64)  # that were observed

    def play(self, scores: ClassScores, output: int) -> None:
        """Add what every candidate does on one chunk's validation rows."""
        rows = playable(self._spec, scores, output, VALID)
        group = np.array([zlib.crc32(asset_id.encode()) % _GROUPS for asset_id in scores.asset_ids.tolist()], np.int64)
        for number, candidate in enumerate(self._candidates):
            seen = rows.warnings(float(candidate))
            found = seen.by_asset()
            np.add.at(self._counts[:, number], group, np.column_stack([found, found[:, 2] ** 2]))
            if not number:
                np.add.at(self._observed_us, group, seen.observed_us)
                np.add.at(self._assets, group, seen.observed_us > 0)

    def choose(self) -> Threshold:
        names = self._spec.name, self._target.name
        if not len(self._candidates):
            return Threshold(*names, float("nan"), 0.0, 0, 0)
        everywhere, observed_us = self._counts.sum(axis=0), int(self._observed_us.sum())
        chosen, by = self._choice(everywhere, observed_us)
        costs = costs_of(self._spec, self._target)
        spent = float("nan") if costs is None else float(cost_of(costs, everywhere[chosen : chosen + 1, :4])[0])
        failures, warned, cases, *_ = (int(count) for count in everywhere[chosen])
        return Threshold(
            *names,
            float(self._candidates[chosen]),
            cases / max(observed_us / WEEK_US, 1e-9),
            failures,
            warned,
            by,
            spent / max(observed_us / MONTH_US, 1e-9),
            self._promise(everywhere, chosen),
        )

    def _choice(self, counts: Counts, observed_us: int) -> tuple[int, str]:
        """(the candidate, "costs" or "budget") by counts int64[candidates, 5]."""
        costs = costs_of(self._spec, self._target)
        if costs is None or not counts[0, 0]:
            return self._within_budget(counts, observed_us), "budget"
        spent = cost_of(costs, counts[:, :4])
        return int(np.flatnonzero(spent == spent.min())[-1]), "costs"

    def _promise(self, everywhere: Counts, chosen: int) -> Promise:
        """Each group of assets at the threshold of the others; all at their own where there is but one group."""
        groups = np.flatnonzero(self._assets)
        held = everywhere[chosen]
        if len(groups) > 1:
            held = np.zeros(5, np.int64)
            for group in groups:
                others = everywhere - self._counts[group], int(self._observed_us.sum() - self._observed_us[group])
                held += self._counts[group, self._choice(*others)[0]]
        failures, warned, cases, _, squares = (int(count) for count in held)
        weeks = float(self._observed_us.sum()) / WEEK_US
        return Promise(rate_at_most(cases, squares, int(self._assets.sum()), weeks), share_at_least(warned, failures))

    def _within_budget(self, counts: Counts, observed_us: int) -> int:
        budget = self._spec.alarm.budget_per_asset_week / len(self._spec.targets)
        rates: npt.NDArray[np.float64] = counts[:, 2] / max(observed_us / WEEK_US, 1e-9)
        best = 0
        for number, warned in enumerate(counts[:, 1]):
            if rates[number] > budget:
                break  # a laxer one may raise fewer cases only by never ending them
            most = counts[best, 1]
            if warned > most or (warned == most and rates[number] <= budget / 2):
                best = number
        return best
