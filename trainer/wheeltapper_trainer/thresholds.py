"""From an alarm budget, or from costs, to a threshold: validation scores played through the alarm machine that is live.

By costs: the threshold at which failures missed, false alarms and planned replacements cost least together; of equally
cheap ones the laxest. Where validation saw no failure of an output, costs have nothing to weigh, and its budget stands
in.

By budget: it is a class's whole, and its outputs share it equally, so that all of them together stay within it. Within
its share an output takes the threshold that warns of the most failures. Of equally good ones it takes the laxest that
spends at most half the share: the failures to come may show less than the few that were seen, and budget that buys
nothing more is not spent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from wheeltapper.spec import ClassSpec, Target, costs_of

from wheeltapper_trainer.cases import MONTH_US, WEEK_US, cost_of, playable
from wheeltapper_trainer.job import VALID, Chunk, TrainJob
from wheeltapper_trainer.scores import ClassScores, each_scores, part_of
from wheeltapper_trainer.tally import Tally

_CANDIDATES = 160

Scores = Callable[[], Iterable[ClassScores]]  # a class's scores, a chunk at a time, as often as it is called


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
        self._counts = np.zeros((len(found), 4), np.int64)  # failures, warned of, cases, false
        self._observed_us = 0

    def play(self, scores: ClassScores, output: int) -> None:
        """Add what every candidate does on one chunk's validation rows."""
        rows = playable(self._spec, scores, output, VALID)
        for number, candidate in enumerate(self._candidates):
            seen = rows.warnings(float(candidate))
            self._counts[number] += seen.by_asset().sum(axis=0)
            if not number:
                self._observed_us += int(seen.observed_us.sum())

    def choose(self) -> Threshold:
        names = self._spec.name, self._target.name
        if not len(self._candidates):
            return Threshold(*names, float("nan"), 0.0, 0, 0)
        costs = costs_of(self._spec, self._target)
        by_costs = costs is not None and self._counts[0, 0] > 0
        spent = np.zeros(len(self._candidates)) if costs is None else cost_of(costs, self._counts)
        chosen = int(np.flatnonzero(spent == spent.min())[-1]) if by_costs else self._within_budget()
        failures, warned, cases, _ = (int(count) for count in self._counts[chosen])
        return Threshold(
            *names,
            float(self._candidates[chosen]),
            cases / max(self._observed_us / WEEK_US, 1e-9),
            failures,
            warned,
            "costs" if by_costs else "budget",
            float("nan") if costs is None else float(spent[chosen]) / max(self._observed_us / MONTH_US, 1e-9),
        )

    def _within_budget(self) -> int:
        budget = self._spec.alarm.budget_per_asset_week / len(self._spec.targets)
        rates: npt.NDArray[np.float64] = self._counts[:, 2] / max(self._observed_us / WEEK_US, 1e-9)
        best = 0
        for number, (_, warned, _, _) in enumerate(self._counts):
            if rates[number] > budget:
                break  # a laxer one may raise fewer cases only by never ending them
            most = self._counts[best, 1]
            if warned > most or (warned == most and rates[number] <= budget / 2):
                best = number
        return best
