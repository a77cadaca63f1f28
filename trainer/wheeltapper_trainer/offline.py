"""`wheeltapper score`: a history through the kernels that serve, and one final answer for every reading.

Each asset passes alone through a `LiveFleet`, the same that stands behind the gRPC scorer, its readings in order of
time and every event before the readings of its own time or later. What comes out is what a stream would have been
answered in the end, revisions included, bit for bit.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from wheeltapper.errors import NotFound
from wheeltapper.live import Answers, LiveFleet
from wheeltapper.pack import Pack
from wheeltapper.reasons import Reasons
from wheeltapper.spec import features_of
from wheeltapper.windows import RowStatus
from wheeltapper_command.progress import Progress
from wheeltapper_command.reasons import reasons_text

from wheeltapper_trainer.history import History, TableWriter
from wheeltapper_trainer.inputs import statics_of
from wheeltapper_trainer.records import Asset, AssetReadings, Events

_AHEAD_PER_CPU = 2  # assets read and not yet written, so that memory stays bounded
_SCORED = (int(RowStatus.OK), int(RowStatus.DUPLICATE))
_STATUS = np.array([status.name for status in RowStatus])

Result = TypeVar("Result")
Table = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Order:
    """What to score and how. Readings before `from_us` (µs since 1970 UTC) fill windows and are not written.

    reasons: at most so many for each output that raises an alarm, or of every reading where `reasons_always`.
    """

    history: str
    out: Path
    from_us: int | None = None
    want_features: bool = False
    cpus: int = 1
    reasons: int = 0
    reasons_always: bool = False


def score_history(order: Order, pack: Pack, release: int, progress: Progress) -> dict[str, Any]:
    """Write `order.out` (Parquet, sorted by asset_id and time); returns counts and the time it took.

    Raises NotFound where the pack has no class for an asset of the history.
    """
    began = time.perf_counter()
    history = History.open(order.history)
    assets = history.assets()
    _check_classes(assets, pack)
    shape = _shape_of(pack, assets, order)
    readings, statuses, written = 0, Counter[str](), 0
    progress.start("scoring", sum(part.rows for part in history.plan()), "readings")
    score = partial(_score_asset, order, pack, release, shape)
    with TableWriter(order.out) as writer:
        for table, read in in_order(order.cpus, score, _calls(history, assets, pack)):
            if len(table["time"]):
                writer.write(table)
            readings += read
            written += len(table["time"])
            statuses.update(table["status"].tolist())
            progress.advance(read)
        if not written:
            name = assets[0].asset_class
            nothing = FinalAnswers(np.empty(0, np.int64), len(shape.outputs[name]), len(shape.features[name]))
            writer.write(shape.table("", name, release, nothing))
    progress.finish()
    seconds = time.perf_counter() - began
    return {
        "assets": len(assets),
        "readings_read": readings,
        "readings_answered": written,
        "statuses": dict(sorted(statuses.items())),
        "score_seconds": round(seconds, 3),
        "readings_per_second": round(readings / seconds, 1),
        "release": release,
        "out": str(order.out),
    }


def in_order(cpus: int, function: Callable[..., Result], calls: Iterable[tuple[Any, ...]]) -> Iterator[Result]:
    """`function(*call)` of every call, in order, on so many threads: kernels hold no GIL. `calls` is drawn from only a
    little ahead, so that what it reads stays bounded."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(cpus) as pool:
        for call in calls:
            waiting.append(pool.submit(function, *call))
            if len(waiting) >= cpus * _AHEAD_PER_CPU:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _calls(history: History, assets: Sequence[Asset], pack: Pack) -> Iterator[tuple[Any, ...]]:
    """(asset, sensors read, readings, events) of each asset."""
    events = history.events()
    for asset in assets:
        there = set(history.sensors(asset.asset_class))
        wanted = [s.name for s in pack.class_named(asset.asset_class).spec.sensors if s.name in there]
        found = next(iter(history.read([asset.asset_id], wanted)))
        yield asset, wanted, found, events.of_asset(asset.asset_id)


def _score_asset(
    order: Order,
    pack: Pack,
    release: int,
    shape: _Shape,
    asset: Asset,
    sensors: Sequence[str],
    readings: AssetReadings,
    events: Events,
) -> tuple[Table, int]:
    """The table of one asset, and how many readings it had."""
    final = final_answers(
        pack, release, asset, sensors, readings, events, order.want_features, order.reasons, order.reasons_always
    )
    table = shape.table(asset.asset_id, asset.asset_class, release, final)
    if order.from_us is not None:
        table = {column: cells[final.times >= order.from_us] for column, cells in table.items()}
    return table, len(readings.times)


def final_answers(
    pack: Pack,
    release: int,
    asset: Asset,
    sensors: Sequence[str],
    readings: AssetReadings,
    events: Events,
    want_features: bool = False,
    reasons: int = 0,
    reasons_always: bool = False,
) -> FinalAnswers:
    """All readings of one asset in windows of its own, in blocks that end where an event comes in between.

    `sensors` names the columns of `readings`; those of the class that are not among them count as missing.
    """
    fleet = LiveFleet(pack, release)
    name, spec = asset.asset_class, fleet.spec(asset.asset_class)
    [row] = fleet.open_assets(name, [asset.asset_id], statics_of(spec, asset)[None, :])
    values = np.full((len(readings.times), len(spec.sensors)), np.nan, np.float32)
    values[:, [[s.name for s in spec.sensors].index(s) for s in sensors]] = readings.values
    codes = [fleet.event_code(name, f"{kind}:{code}") for kind, code in zip(events.kinds, events.codes, strict=True)]
    event_codes = np.array(codes, np.int64)
    features = len(features_of(spec)) if want_features else 0
    final = FinalAnswers(readings.times, len(fleet.outputs(name)), features)
    with_features = want_features or reasons > 0

    now_us = time.time_ns() // 1_000  # as a scorer has it: a reading from the future is refused here as well
    # An event at time t is known to the readings of time t and later.
    cuts = np.searchsorted(readings.times, events.times, "left")
    begin = 0
    for cut in np.unique(np.append(cuts, len(readings.times))).tolist():
        if cut > begin:
            block = slice(begin, cut)
            rows = np.full(cut - begin, row, np.int64)
            times = readings.times[block]
            answers = fleet.score(name, rows, times, values[block], now_us, want_features=with_features)
            final.take(answers)
            if reasons:  # not of revisions: in order of time they only say that a slot was taken by a later reading
                which = np.ones(answers.values.shape, np.bool_) if reasons_always else None
                final.explain(answers.times, fleet.reasons(name, answers, reasons, which), fleet.features(name))
            begin = cut
        due = np.flatnonzero((cuts == cut) & (event_codes >= 0))
        if len(due) and cut < len(readings.times):
            rows = np.full(len(due), row, np.int64)
            done = fleet.take_events(name, rows, events.times[due], event_codes[due], now_us, with_features)
            final.revise(done.revisions)
    return final


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

    def take(self, answers: Answers) -> None:
        """A block's answers: the first to a reading stands, unless a later one has a score and it has none."""
        self.revise(answers.revisions)
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


@dataclass(frozen=True, slots=True)
class _Shape:
    """The columns of the table: outputs and features by class; what a class does not have is NaN there, its alarm 0."""

    outputs: dict[str, list[str]]
    features: dict[str, list[str]]
    with_reasons: bool

    def table(self, asset_id: str, asset_class: str, release: int, final: FinalAnswers) -> Table:
        """The rows of one asset, with the columns of every class."""
        rows = len(final.times)
        table: Table = {
            "asset_id": np.full(rows, asset_id),
            "time": final.times.astype("M8[us]"),
            "status": _STATUS[final.status],
            "release": np.full(rows, release, np.uint64),
            "level": final.levels[:, 0] if final.levels.shape[1] else np.zeros(rows, np.uint8),
            "health": final.health,
            "revisions": final.revisions,
        }
        outputs, features = self.outputs[asset_class], self.features[asset_class]
        for output in _union(self.outputs):
            at = outputs.index(output) if output in outputs else -1
            table[f"score:{output}"] = final.values[:, at] if at >= 0 else np.full(rows, np.nan, np.float32)
            table[f"alarm:{output}"] = final.alarms[:, at] if at >= 0 else np.zeros(rows, np.uint8)
            if self.with_reasons:
                table[f"reasons:{output}"] = final.reasons[:, at].astype(np.str_) if at >= 0 else np.full(rows, "")
        place = {feature: at for at, feature in enumerate(features)}
        blank = np.full(rows, np.nan, np.float32)
        for feature in _union(self.features):
            table[f"feature:{feature}"] = final.features[:, place[feature]] if feature in place else blank
        return table


def _shape_of(pack: Pack, assets: Sequence[Asset], order: Order) -> _Shape:
    classes = [pack.class_named(name) for name in sorted({asset.asset_class for asset in assets})]
    features = {one.name: [f.name for f in features_of(one.spec)] if order.want_features else [] for one in classes}
    outputs = {one.name: [output.name for output in one.outputs] for one in classes}
    return _Shape(outputs, features, with_reasons=order.reasons > 0)


def _union(names: dict[str, list[str]]) -> list[str]:
    return list(dict.fromkeys(name for own in names.values() for name in own))


def _check_classes(assets: Sequence[Asset], pack: Pack) -> None:
    known = [one.name for one in pack.classes]
    for asset in assets:
        if asset.asset_class not in known:
            raise NotFound(
                f"asset {asset.asset_id!r} is of class {asset.asset_class!r}; the pack has {known}",
                "score with a release that was trained for this fleet",
            )
