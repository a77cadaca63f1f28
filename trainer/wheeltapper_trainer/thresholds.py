"""From an alarm budget to a threshold, by playing validation scores through the very alarm machine that will be live.

The budget is a class's whole: its outputs share it equally, so that all of them together stay within it. Within its
share an output takes the threshold that warns of the most failures. Of equally good ones it takes the laxest that
spends at most half the share: the failures to come may show less than the few that were seen, and budget that buys
nothing more is not spent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from wheeltapper.alarms import RAISED, alarm_states, off_level
from wheeltapper.spec import ANY_CODE, AlarmSpec, ClassSpec, Target

from wheeltapper_trainer.job import VALID, Chunk, TrainJob
from wheeltapper_trainer.labels import horizon_of
from wheeltapper_trainer.scores import ClassScores, load_scores, part_of

WEEK_US = 7 * 86_400_000_000
_CANDIDATES = 160


@dataclass(frozen=True, slots=True)
class Threshold:
    """One output's alarm: raised at `threshold`, NaN where nothing could be scored and it never alarms."""

    asset_class: str
    output: str
    threshold: float  # exactly a float32
    cases_per_asset_week: float  # on validation
    failures: int
    warned: int


@dataclass(frozen=True, slots=True)
class Warnings:
    """What the alarms of one output did in one part: cases, failures and the first alarm in time before each.

    case_times int64[k], case_assets int64[k], false_cases bool[k]: not followed by a failure within 1.5 horizons;
    failure_times int64[f], failure_assets int64[f], lead_us int64[f]: -1 where it was not warned of in time.
    """

    case_times: npt.NDArray[np.int64]
    case_assets: npt.NDArray[np.int64]
    false_cases: npt.NDArray[np.bool_]
    failure_assets: npt.NDArray[np.int64]
    failure_times: npt.NDArray[np.int64]
    lead_us: npt.NDArray[np.int64]
    asset_weeks: npt.NDArray[np.float64]  # float64[A], observed time of each asset


def choose_thresholds(job: TrainJob, chunks: Sequence[Chunk]) -> tuple[Threshold, ...]:
    """One threshold per class and output, in the order of the fleet."""
    found: list[Threshold] = []
    for spec in job.spec.classes:
        scores = load_scores(job, spec.name, chunks)
        for output, target in enumerate(spec.targets):
            if scores is None:
                found.append(Threshold(spec.name, target.name, float("nan"), 0.0, 0, 0))
            else:
                found.append(choose_threshold(spec, scores, output))
    return tuple(found)


def choose_threshold(spec: ClassSpec, scores: ClassScores, output: int) -> Threshold:
    """The threshold of one output from the validation rows of `scores`."""
    target = spec.targets[output]
    rows, _ = part_of(scores, output, VALID)
    column = scores.values[rows, output]
    finite = column[np.isfinite(column)]
    if not len(finite):
        return Threshold(spec.name, target.name, float("nan"), 0.0, 0, 0)
    below = target.kind == "rul"
    # From the strictest candidate on, steps widen with the share of rows they let through.
    shares = np.concatenate([[0.0], np.geomspace(1.0 / max(len(finite), 2), 0.5, _CANDIDATES - 1)])
    candidates = np.unique(np.quantile(finite, shares if below else 1.0 - shares, method="nearest"))
    budget = spec.alarm.budget_per_asset_week / len(spec.targets)
    best: tuple[int, float, float, int] | None = None
    for candidate in candidates if below else candidates[::-1]:
        seen = warnings_of(spec, scores, output, VALID, float(candidate))
        rate = len(seen.case_times) / max(float(seen.asset_weeks.sum()), 1e-9)
        if rate > budget:
            break  # a laxer one may raise fewer cases only by never ending them
        warned = int((seen.lead_us >= 0).sum())
        if best is None or warned > best[0] or (warned == best[0] and rate <= budget / 2):
            best = (warned, float(candidate), rate, len(seen.lead_us))
    if best is None:  # even the strictest score spends more than the budget: alarm beyond all that was seen
        strictest = finite.min() if below else finite.max()
        beyond = float(np.nextafter(strictest, np.float32(-np.inf if below else np.inf)))
        failures = len(warnings_of(spec, scores, output, VALID, beyond).lead_us)
        return Threshold(spec.name, target.name, beyond, 0.0, failures, 0)
    return Threshold(spec.name, target.name, best[1], best[2], best[3], best[0])


def warnings_of(
    spec: ClassSpec, scores: ClassScores, output: int, part: int, threshold: float, column: str = "values"
) -> Warnings:
    """Play one part's scores through the alarm machine and hold its cases against what happened.

    A failure counts where it falls into an asset's rows of the part or within a horizon after them. It is warned of by
    a case raised at most 1.5 horizons before it and at least `lead_us` before it; the earliest such case is its lead.
    """
    target, alarm = spec.targets[output], spec.alarm
    rows, begin = part_of(scores, output, part)
    times = scores.times[rows]
    states = np.empty(len(rows), np.uint8)
    values = np.ascontiguousarray(getattr(scores, column)[rows, output])
    below = target.kind == "rul"
    off = off_level(threshold, alarm.hysteresis, below)
    alarm_states(values, begin, threshold, float(off), alarm.hold, below, states)
    code = None if target.code == ANY_CODE else target.code
    by_asset = [
        match_cases(spec, target, alarm, times[a:b], states[a:b], scores.failures(asset, code))
        for asset, (a, b) in enumerate(pairwise(begin))
    ]
    return Warnings(
        np.concatenate([found[0] for found in by_asset]),
        np.repeat(np.arange(len(by_asset)), [len(found[0]) for found in by_asset]),
        np.concatenate([found[1] for found in by_asset]),
        np.repeat(np.arange(len(by_asset)), [len(found[2]) for found in by_asset]),
        np.concatenate([found[2] for found in by_asset]),
        np.concatenate([found[3] for found in by_asset]),
        np.array([(times[b - 1] - times[a]) / WEEK_US if b > a else 0.0 for a, b in pairwise(begin)]),
    )


def match_cases(
    spec: ClassSpec,
    target: Target,
    alarm: AlarmSpec,
    times: npt.NDArray[np.int64],
    states: npt.NDArray[np.uint8],
    failures: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """One asset's alarm states against its failures int64[k]: (case times, whether each was false, the failures that
    count, lead of each or -1), as `Warnings` has them.
    """
    cases = times[states == RAISED]
    if not len(times):
        return cases, np.empty(0, np.bool_), np.empty(0, np.int64), np.empty(0, np.int64)
    horizon = horizon_us(spec, target, times)
    reach = round(1.5 * horizon)
    counted = failures[(failures > times[0] + alarm.lead_us) & (failures <= times[-1] + horizon)]
    leads = np.full(len(counted), -1, np.int64)
    for k, failure in enumerate(counted):
        useful = cases[(cases >= failure - reach) & (cases <= failure - alarm.lead_us)]
        if len(useful):
            leads[k] = failure - useful[0]
    following = np.searchsorted(failures, cases)  # a case at the failure's own time still belongs to it
    ahead = np.append(failures, np.iinfo(np.int64).max)[following] - cases
    return cases, ahead > reach, counted, leads


def horizon_us(spec: ClassSpec, target: Target, times: npt.NDArray[np.int64]) -> int:
    """The span in which a warning counts, in µs; where a slot is a reading, so many usual steps of this asset.

    rul alarms count over the longest failure horizon, or their cap where the class has none.
    """
    span = horizon_of(spec, target)
    if target.kind == "rul":
        span = max((horizon_of(spec, other) for other in spec.targets if other.kind == "failure"), default=span)
    if spec.cadence_us:
        return round(span)
    return round(span * float(np.median(np.diff(times)))) if len(times) > 1 else 0
