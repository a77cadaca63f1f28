"""The final answer to every reading of some assets: what a stream of them would have been told in the end.

Assets pass through one `LiveFleet`, the same that stands behind the gRPC scorer, their readings in order of time and
every event before the readings of its own time or later. Assets do not know each other, so they pass side by side in
large blocks, which is what a GPU wants and what costs Python least.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
import numpy.typing as npt
from wheeltapper.live import Answers, LiveFleet
from wheeltapper.pack import Pack
from wheeltapper.reasons import Reasons
from wheeltapper.spec import features_of
from wheeltapper.windows import RowStatus
from wheeltapper_command.reasons import reasons_text

from wheeltapper_trainer.inputs import statics_of
from wheeltapper_trainer.records import Asset, AssetReadings, Events

_SCORED = (int(RowStatus.OK), int(RowStatus.DUPLICATE))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is told beside scores. reasons: at most so many of each output that raises an alarm, or of every reading
    where `reasons_always`."""

    features: bool = False
    reasons: int = 0
    reasons_always: bool = False


@dataclass(frozen=True, slots=True)
class Lived:
    """All that is known of one asset; its readings have one column for each name of `sensors`."""

    asset: Asset
    sensors: Sequence[str]
    readings: AssetReadings
    events: Events


def final_answers(
    pack: Pack, release: int, asset: Asset, sensors: Sequence[str], readings: AssetReadings, events: Events
) -> FinalAnswers:
    """All readings of one asset in windows of its own, as a scorer would answer them now."""
    lived = Lived(asset, sensors, readings, events)
    # A reading from the future is refused here as well.
    return answer_all(LiveFleet(pack, release), [lived], time.time_ns() // 1_000)[0]


def answer_all(
    fleet: LiveFleet, assets: Sequence[Lived], now_us: int, wanted: Wanted | None = None
) -> list[FinalAnswers]:
    """The final answers to some assets of one class, none of which the fleet has seen before.

    Sensors of the class that an asset's readings do not have count as missing.
    """
    wanted = wanted or Wanted()
    name = assets[0].asset.asset_class
    statics = np.stack([statics_of(fleet.spec(name), one.asset) for one in assets])
    rows = fleet.open_assets(name, [one.asset.asset_id for one in assets], statics)
    passing = [_Passing(fleet, int(row), one, wanted) for row, one in zip(rows, assets, strict=True)]
    under_way = passing
    while under_way:
        _score(fleet, name, [one for one in under_way if one.begin < one.cuts[one.step]], now_us, wanted)
        _take_events(fleet, name, under_way, now_us, wanted)
        under_way = [one for one in under_way if one.advance()]
    return [one.final for one in passing]


class _Passing:
    """One asset on its way through the windows: readings begin:cuts[step] are next, then the events of that cut."""

    def __init__(self, fleet: LiveFleet, row: int, lived: Lived, wanted: Wanted) -> None:
        name, spec = lived.asset.asset_class, fleet.spec(lived.asset.asset_class)
        readings, events = lived.readings, lived.events
        self.row, self.times, self.begin, self.step = row, readings.times, 0, 0
        self.values = np.full((len(readings.times), len(spec.sensors)), np.nan, np.float32)
        self.values[:, [[s.name for s in spec.sensors].index(s) for s in lived.sensors]] = readings.values
        words = zip(events.kinds, events.codes, strict=True)
        codes = np.array([fleet.event_code(name, f"{kind}:{code}") for kind, code in words], np.int64)
        # An event at time t is known to the readings of time t and later.
        cuts = np.searchsorted(readings.times, events.times, "left")
        useful = (codes >= 0) & (cuts < len(readings.times))
        self.event_times, self.event_codes, self.event_cuts = events.times[useful], codes[useful], cuts[useful]
        self.cuts = np.unique(np.append(self.event_cuts, len(readings.times))).tolist()
        features = len(features_of(spec)) if wanted.features else 0
        self.final = FinalAnswers(readings.times, len(fleet.outputs(name)), features)

    def block(self) -> slice:
        return slice(self.begin, self.cuts[self.step])

    def due(self) -> slice:
        """The events before the reading at this cut."""
        cut = self.cuts[self.step]
        return slice(*np.searchsorted(self.event_cuts, [cut, cut + 1]).tolist())

    def advance(self) -> bool:
        """Go on to the next cut; False behind the last one."""
        self.begin = self.cuts[self.step]
        self.step += 1
        return self.step < len(self.cuts)


def _score(fleet: LiveFleet, name: str, passing: Sequence[_Passing], now_us: int, wanted: Wanted) -> None:
    if not passing:
        return
    blocks = [one.block() for one in passing]
    sizes = [block.stop - block.start for block in blocks]
    rows = np.repeat(np.array([one.row for one in passing], np.int64), sizes)
    times = np.concatenate([one.times[block] for one, block in zip(passing, blocks, strict=True)])
    values = np.concatenate([one.values[block] for one, block in zip(passing, blocks, strict=True)])
    told = fleet.score(name, rows, times, values, now_us, want_features=wanted.features or wanted.reasons > 0)
    revised = dict(_by_row(told.revisions))
    ends = np.cumsum(sizes).tolist()
    for one, begin, end in zip(passing, [0, *ends], ends, strict=False):
        answers = _part(told, slice(begin, end))
        one.final.take(answers, revised.get(one.row))
        if wanted.reasons:  # not of revisions: in order of time they only say that a slot was taken by a later reading
            which = np.ones(answers.values.shape, np.bool_) if wanted.reasons_always else None
            one.final.explain(answers.times, fleet.reasons(name, answers, wanted.reasons, which), fleet.features(name))


def _take_events(fleet: LiveFleet, name: str, passing: Sequence[_Passing], now_us: int, wanted: Wanted) -> None:
    due = [one.due() for one in passing]
    counts = [one.stop - one.start for one in due]
    if not sum(counts):
        return
    rows = np.repeat(np.array([one.row for one in passing], np.int64), counts)
    times = np.concatenate([one.event_times[these] for one, these in zip(passing, due, strict=True)])
    codes = np.concatenate([one.event_codes[these] for one, these in zip(passing, due, strict=True)])
    done = fleet.take_events(name, rows, times, codes, now_us, wanted.features or wanted.reasons > 0)
    revised = dict(_by_row(done.revisions))
    for one in passing:
        one.final.revise(revised.get(one.row))


def _part(answers: Answers, rows: slice) -> Answers:
    """Some rows of answers, without their revisions."""
    return Answers(
        answers.rows[rows],
        answers.times[rows],
        answers.status[rows],
        answers.values[rows],
        answers.levels[rows],
        answers.alarms[rows],
        answers.health[rows],
        None if answers.features is None else answers.features[rows],
    )


def _by_row(answers: Answers | None) -> Iterator[tuple[int, Answers]]:
    """(state row, its answers) of answers whose rows lie asset by asset."""
    if answers is None:
        return
    cuts = [0, *(np.flatnonzero(np.diff(answers.rows)) + 1).tolist(), len(answers.rows)]
    for begin, end in pairwise(cuts):
        yield int(answers.rows[begin]), _part(answers, slice(begin, end))


class FinalAnswers:
    """The final answer to every distinct reading of one asset; m of them, O outputs, F features of its class."""

    def __init__(self, times: npt.NDArray[np.int64], outputs: int, features: int) -> None:
        self.times = np.unique(times)
        self.status = np.zeros(len(self.times), np.uint8)
        self.health = np.zeros(len(self.times), np.uint8)
        self.revisions = np.zeros(len(self.times), np.uint32)
        self.values = np.full((len(self.times), outputs), np.nan, np.float32)
        self.levels = np.zeros((len(self.times), outputs), np.uint8)
        self.alarms = np.zeros((len(self.times), outputs), np.uint8)
        self.features = np.full((len(self.times), features), np.nan, np.float32)
        self.reasons = np.full((len(self.times), outputs), "", np.object_)
        self._answered = np.zeros(len(self.times), np.bool_)

    def take(self, answers: Answers, revisions: Answers | None) -> None:
        """A block's answers: the first to a reading stands, unless a later one has a score and it has none."""
        self.revise(revisions)
        places = np.searchsorted(self.times, answers.times)
        again = self._answered[places]
        again[1:] |= places[1:] == places[:-1]  # rows come in order of time
        self._put(answers, np.flatnonzero(~again), places)
        for i in np.flatnonzero(again):
            if self.status[places[i]] not in _SCORED and answers.status[i] == RowStatus.OK:
                self._put(answers, np.array([i]), places)

    def revise(self, revisions: Answers | None) -> None:
        """Readings scored anew: the last word on them."""
        if revisions is None:
            return
        places = np.searchsorted(self.times, revisions.times)
        self._put(revisions, np.arange(len(places)), places)
        np.add.at(self.revisions, places, 1)

    def explain(self, times: npt.NDArray[np.int64], why: Reasons, features: Sequence[str]) -> None:
        """Reasons of answers to the readings of `times`: the latest that a reading was given stand."""
        places = np.searchsorted(self.times, times)
        self.reasons[places[why.row]] = ""
        cells = zip(*(column.tolist() for column in why), strict=True)
        for (row, output), own in groupby(cells, key=lambda cell: cell[:2]):
            self.reasons[places[row], output] = reasons_text((features[f], worth) for _, _, f, worth in own)

    def _put(self, answers: Answers, rows: npt.NDArray[np.int64], places: npt.NDArray[np.int64]) -> None:
        at = places[rows]
        self._answered[at] = True
        for name in ("status", "health", "values", "levels", "alarms"):
            getattr(self, name)[at] = getattr(answers, name)[rows]
        if answers.features is not None and self.features.shape[1]:
            self.features[at] = answers.features[rows]
