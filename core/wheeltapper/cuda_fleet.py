"""A `LiveFleet` whose windows, alarms and forests live on a GPU; blocks go in and the same answers come out.

Windows stay on the device from block to block (docs/decisions/0015): only readings and answers travel. A block is cut
into slices of whole assets that two queues take in turn, so that one copies while the other computes. Whoever asks for
windows on this side (snapshots, a swap to another pack) gets them copied home, and the next block brings them back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from wheeltapper import cuda
from wheeltapper.answers import Answers, EventAnswers, answers, columns, joined
from wheeltapper.cuda import Block, Counts, Statuses, empty, fetch, require_device, resident, send, staged
from wheeltapper.live import LiveFleet, Prepared
from wheeltapper.live_class import LiveClass
from wheeltapper.pack import Pack
from wheeltapper.scoring import Assets, Columns, Heads, Work
from wheeltapper.windows import EMPTY, Plan, RowStatus, Windows

SLICE_ROWS = 65_536  # of one launch: enough threads to fill a large card, and memory that stays bounded
_QUEUES = 2
_HOST_OWNED = ("statics", "heads", "start")  # what only this side writes; the rest only the device does


class _Lane:
    """A queue of its own, and room on both sides for slices of `capacity` rows."""

    def __init__(self, live: LiveClass, with_features: bool, capacity: int) -> None:
        plan, outputs = live.plan, len(live.known.outputs)
        self.capacity, self.queue = capacity, cuda.stream()
        features = plan.features if with_features else 0
        block = Block(
            np.empty(capacity + 1, np.int64), np.empty(capacity, np.int64), np.empty(capacity, np.int64),
            np.empty(capacity, np.int64), np.empty((capacity, plan.minimum.size), np.float32),
        )  # fmt: skip
        self.block_here = Block(*(staged(one.shape, one.dtype) for one in block))
        self.block = Block(*(empty(one.shape, one.dtype) for one in block))
        send(np.arange(capacity), self.block.order)
        self.out_here = Columns._make(staged(one.shape, one.dtype) for one in columns(capacity, outputs, features))
        self.out = _like(columns(capacity, outputs, features))
        self.revised = _like(columns(capacity * (1 + plan.lateness), outputs, features))
        self.counts_here, self.counts = staged((capacity,), np.int64), Counts(empty((capacity,), np.int64))
        self.work = _work(live, capacity)
        self.begin = self.end = self.assets = 0

    def fetch_answers(self) -> None:
        """Have the answers copied home behind the launch that writes them."""
        here: list[npt.NDArray[Any]] = list(self.out_here)
        for home, away in zip(here, self.out, strict=True):
            fetch(away, home[: self.end - self.begin], self.queue)
        fetch(self.counts.count, self.counts_here[: self.assets], self.queue)


class _Forests:
    """A pack's forests on the device, shared by every fleet of that pack as long as one of them lives."""

    _known: ClassVar[WeakValueDictionary[str, _Forests]] = WeakValueDictionary()

    def __init__(self, pack: Pack) -> None:
        self._forest = resident(pack.forest)
        self._heads: dict[str, Heads] = {}

    @classmethod
    def of(cls, pack: Pack) -> _Forests:
        found = cls._known.get(pack.sha256)
        if found is None:
            found = cls._known[pack.sha256] = cls(pack)
        return found

    def heads(self, live: LiveClass) -> Heads:
        name = live.known.name
        if name not in self._heads:
            rest = resident(Heads._make(() if column is live.heads.forest else column for column in live.heads))
            self._heads[name] = rest._replace(forest=self._forest)
        return self._heads[name]


@dataclass(slots=True)
class _Resident:
    """One class on the device."""

    plan: Plan
    heads: Heads
    windows: Windows
    assets: Assets
    newest_times: npt.NDArray[np.int64]  # [capacity] µs, kept on this side: any thread may ask
    lanes: dict[bool, list[_Lane]] = field(default_factory=dict)  # by whether features are wanted


class CudaFleet(LiveFleet):
    """Raises Refused where there is no GPU, or its compiler would not keep to the arithmetic."""

    def __init__(self, pack: Pack, release: int, capacity_max: int = 200_000) -> None:
        require_device()
        self._residents: dict[str, _Resident] = {}
        self._forests = _Forests.of(pack)
        super().__init__(pack, release, capacity_max)

    def open_assets(
        self, asset_class: str, asset_ids: Sequence[str], statics: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.int64]:
        rows = super().open_assets(asset_class, asset_ids, statics)
        there, live = self._residents.get(asset_class), self._class(asset_class)
        if there is not None:
            send(live.windows.statics, there.windows.statics)
            send(live.assets.heads, there.assets.heads)
            send(live.assets.start, there.assets.start)
        return rows

    def newest_times(self, asset_class: str) -> npt.NDArray[np.int64]:
        there = self._residents.get(asset_class)
        if there is None:
            return super().newest_times(asset_class)
        return there.newest_times[: len(self._class(asset_class).rows)].copy()

    def newest_time(self, asset_class: str, asset_id: str) -> int | None:
        there, row = self._residents.get(asset_class), self._class(asset_class).rows.get(asset_id)
        if there is None or row is None:
            return super().newest_time(asset_class, asset_id)
        return int(there.newest_times[row])

    def score(
        self,
        asset_class: str,
        rows: npt.NDArray[np.int64],
        times: npt.NDArray[np.int64],
        values: npt.NDArray[np.float32],
        now_us: int,
        historical: bool = False,
        want_features: bool = False,
        repeated: bool = False,
    ) -> Answers:
        live = self._class(asset_class)
        there = self._brought(asset_class)
        order = np.lexsort((times, rows))
        out = columns(len(rows), len(live.known.outputs), live.plan.features if want_features else 0)
        revisions: list[Columns] = []
        under_way: deque[_Lane] = deque()
        for number, (begin, ends) in enumerate(_slices(rows[order])):
            lane = self._lane(live, there, number % _QUEUES, want_features, int(ends[-1]) - begin)
            while lane in under_way:  # what was given before it comes home before it
                _collect(under_way.popleft(), live.plan, order, out, revisions)
            _fill(lane, order[begin : ends[-1]], begin, ends, rows, times, values)
            cuda.score(
                there.plan, there.windows, there.heads, there.assets, lane.work, lane.block, lane.assets, now_us,
                historical, repeated, lane.out, lane.revised, lane.counts, lane.queue,
            )  # fmt: skip
            lane.fetch_answers()
            under_way.append(lane)
        while under_way:
            _collect(under_way.popleft(), live.plan, order, out, revisions)
        taken = out.status == RowStatus.OK
        np.maximum.at(there.newest_times, rows[taken], times[taken])
        return answers(out, revisions, want_features)

    def take_events(
        self,
        asset_class: str,
        rows: npt.NDArray[np.int64],
        times: npt.NDArray[np.int64],
        codes: npt.NDArray[np.int64],
        now_us: int,
        want_features: bool = False,
        repeated: bool = False,
    ) -> EventAnswers:
        live = self._class(asset_class)
        there = self._brought(asset_class)
        order = np.lexsort((times, rows))
        status = np.empty(len(rows), np.uint8)
        revisions: list[Columns] = []
        for begin, ends in _slices(rows[order]):
            mine = order[begin : ends[-1]]
            count, room = len(ends), live.plan.lateness + 1
            bits = np.maximum(codes[mine], 0).astype(np.uint64)
            begins = np.concatenate([[0], ends - begin]).astype(np.int64)
            block = resident(Block(begins, np.arange(len(mine)), rows[mine], times[mine], bits))
            features = live.plan.features if want_features else 0
            revised = _like(columns(count * room, len(live.known.outputs), features))
            taken, counts = Statuses(empty((len(mine),), np.uint8)), Counts(empty((count,), np.int64))
            cuda.take_events(
                there.plan, there.windows, there.heads, there.assets, _work(live, count), block, count, now_us,
                repeated, taken, revised, counts,
            )  # fmt: skip
            here, written = np.empty(len(mine), np.uint8), np.empty(count, np.int64)
            fetch(taken.status, here)
            fetch(counts.count, written)
            status[mine] = here
            revisions.append(_written(revised, written, np.arange(count) * room))
        return EventAnswers(status, joined(revisions, want_features))

    def swap(self, pack: Pack | Prepared, release: int = 0) -> None:
        for name in list(self._residents):
            self._send_home(name)
        super().swap(pack, release)
        self._forests = _Forests.of(self.pack)

    def warm(self) -> None:
        """Compile what the block path needs for the device, and what reasons need for this side."""
        super().warm()
        for name in self.class_names():
            trial = CudaFleet(self.pack, self.release)
            rows, sensors = trial.open_assets(name, ["warm"]), len(trial.spec(name).sensors)
            for features in (False, True):
                block = name, rows, np.array([10**15]), np.zeros((1, sensors), np.float32), 2 * 10**15
                trial.score(*block, want_features=features)
            trial.take_events(name, rows, np.array([10**15]), np.array([-1]), 2 * 10**15)

    def held(self, asset_class: str, read: tuple[int, int] | None = None) -> LiveClass:
        """The class as this side has it. For a reader its rows are copied home; otherwise all are, and the device
        forgets its own, since the caller may change what it is given."""
        if read is None:
            self._send_home(asset_class)
        else:
            self._copy_home(asset_class, *read)
        return super().held(asset_class)

    def _reserve(self, live: LiveClass, count: int) -> None:
        if count > len(live.windows.newest):
            self._send_home(live.known.name)
        super()._reserve(live, count)

    def _brought(self, name: str) -> _Resident:
        """The class on the device, brought there if it is not."""
        there = self._residents.get(name)
        if there is None:
            live = self._class(name)
            newest = np.full(len(live.windows.newest), EMPTY, np.int64)
            newest[: len(live.rows)] = super().newest_times(name)
            there = _Resident(
                resident(live.plan), self._forests.heads(live), resident(live.windows), resident(live.assets), newest
            )
            self._residents[name] = there
        return there

    def _send_home(self, name: str) -> None:
        self._copy_home(name, 0, len(self._class(name).windows.newest))
        self._residents.pop(name, None)

    def _copy_home(self, name: str, begin: int, end: int) -> None:
        there, live = self._residents.get(name), self._class(name)
        if there is None or begin == end:
            return
        for away, home in ((there.windows, live.windows), (there.assets, live.assets)):
            for column in away._fields:
                if column not in _HOST_OWNED:
                    fetch(getattr(away, column)[begin:end], getattr(home, column)[begin:end])

    def _lane(self, live: LiveClass, there: _Resident, number: int, with_features: bool, rows: int) -> _Lane:
        """One of the lanes, larger if it is too small for so many rows."""
        lanes = there.lanes.setdefault(with_features, [])
        while len(lanes) <= number:
            lanes.append(_Lane(live, with_features, 1 << max(rows - 1, 1).bit_length()))
        if lanes[number].capacity < rows:
            lanes[number] = _Lane(live, with_features, 1 << (rows - 1).bit_length())
        return lanes[number]


def _slices(rows: npt.NDArray[np.int64]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """(first row, end of each asset) of slices of whole assets, of about SLICE_ROWS each; rows: sorted state rows."""
    ends = np.append(np.flatnonzero(np.diff(rows)) + 1, len(rows)) if len(rows) else np.empty(0, np.int64)
    begin, at = 0, 0
    while at < len(ends):
        stop = max(int(np.searchsorted(ends, begin + SLICE_ROWS, "right")), at + 1)
        yield begin, ends[at:stop]
        begin, at = int(ends[stop - 1]), stop


def _fill(
    lane: _Lane,
    mine: npt.NDArray[np.int64],
    begin: int,
    ends: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    times: npt.NDArray[np.int64],
    values: npt.NDArray[np.float32],
) -> None:
    """Gather a slice's rows into the lane's pages and send them on their way."""
    here, n = lane.block_here, len(mine)
    lane.begin, lane.end, lane.assets = begin, begin + n, len(ends)
    here.begin[0] = 0
    here.begin[1 : len(ends) + 1] = ends - begin
    for whole, part in ((rows, here.rows), (times, here.times), (values, here.values)):
        np.take(whole, mine, axis=0, out=part[:n])
    for column, size in ((0, len(ends) + 1), (2, n), (3, n), (4, n)):
        send(here[column][:size], lane.block[column], lane.queue)


def _collect(lane: _Lane, plan: Plan, order: npt.NDArray[np.int64], out: Columns, revisions: list[Columns]) -> None:
    """Wait for a slice and put its answers where the block has its rows."""
    cuda.finish(lane.queue)
    mine = order[lane.begin : lane.end]
    target: list[npt.NDArray[Any]] = list(out)
    answered: list[npt.NDArray[Any]] = list(lane.out_here)
    for whole, part in zip(target, answered, strict=True):
        if len(whole):
            whole[mine] = part[: len(mine)]
    counts = lane.counts_here[: lane.assets]
    first = lane.block_here.begin[: lane.assets] + np.arange(lane.assets) * plan.lateness
    revisions.append(_written(lane.revised, counts, first))


def _written(revised: Columns, counts: npt.NDArray[np.int64], first: npt.NDArray[np.int64]) -> Columns:
    """The revisions that were written: counts[t] rows from first[t] on, asset by asset."""
    total = int(counts.sum())
    if not total:
        return Columns._make(np.empty((0, *one.shape[1:]), one.dtype) for one in revised)
    used = int((first + counts).max())
    which = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(total)
    found = []
    for away in revised:
        here = np.empty((min(used, away.shape[0]), *away.shape[1:]), away.dtype)
        fetch(away, here)
        found.append(here[which] if len(here) else here)
    return Columns._make(found)


def _like(given: Columns) -> Columns:
    return Columns._make(empty(one.shape, one.dtype) for one in given)


def _work(live: LiveClass, threads: int) -> Work:
    """Working memory for so many threads, on the device."""
    return Work._make(empty((threads, *one.shape), one.dtype) for one in live.work)
