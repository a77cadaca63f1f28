"""A pack over live windows: assets are opened once, blocks of readings go in, answers come out.

The gRPC scorer and offline scoring are both thin shells around `LiveFleet`, which is why they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from wheeltapper.alarms import RAISED
from wheeltapper.answers import Answers, EventAnswers, answers, columns_of, joined
from wheeltapper.bound import Bound, room_for, take_rows, work_for
from wheeltapper.carrying import carry_windows
from wheeltapper.crew import Crew
from wheeltapper.errors import Refused
from wheeltapper.live_class import LiveClass
from wheeltapper.pack import Pack, PackClass
from wheeltapper.reasons import Reasons, explain
from wheeltapper.reasons import work_for as reason_work_for
from wheeltapper.scoring import Assets, Columns
from wheeltapper.seating import Seats, seats
from wheeltapper.served import heads_of
from wheeltapper.spec import ClassSpec, features_of
from wheeltapper.windows import EMPTY, RowStatus, allocate, compile_plan, grow

_Scalar = TypeVar("_Scalar", bound=np.generic)

_FIRST_CAPACITY = 16
_FIRST_ROWS_MAX = 256  # of a block; the working memory grows with the largest block that came


@dataclass(frozen=True, slots=True)
class Prepared:
    """A pack ready to be swapped in, and the seats of the assets that were open when it was made ready."""

    pack: Pack
    release: int
    classes: dict[str, LiveClass]
    seated: dict[str, Seats]


class LiveFleet:
    """Windows of every asset that was opened, and the pack that scores them. One owner: it is not thread-safe.

    threads: cores that a large block may use.
    """

    def __init__(self, pack: Pack, release: int, capacity_max: int = 200_000, threads: int = 1) -> None:
        self.pack = pack
        self.release = release
        self._capacity_max = capacity_max
        self._crew = Crew(threads)
        self._classes = {one.name: _empty_class(pack, one) for one in pack.classes}

    def class_names(self) -> list[str]:
        return list(self._classes)

    def spec(self, asset_class: str) -> ClassSpec:
        return self._class(asset_class).known.spec

    def outputs(self, asset_class: str) -> list[str]:
        return [output.name for output in self._class(asset_class).known.outputs]

    def features(self, asset_class: str) -> list[str]:
        return [feature.name for feature in features_of(self.spec(asset_class))]

    def open_assets(
        self, asset_class: str, asset_ids: Sequence[str], statics: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.int64]:
        """State rows of assets, int64 [n]; the same asset always has the same row, also after `swap`.

        statics float32 [n, attributes in spec order], for what the pack does not know of them; NaN = nobody does.
        Raises KeyError for an unknown class and Refused where more assets than `capacity_max` would be held.
        """
        live = self._class(asset_class)
        fresh = [name for name in dict.fromkeys(asset_ids) if name not in live.rows]
        held = sum(len(one.rows) for one in self._classes.values())
        if held + len(fresh) > self._capacity_max:
            raise Refused(
                f"expected at most {self._capacity_max:,} assets in this scorer, found {held + len(fresh):,}",
                "raise its limit, or spread the fleet over more scorers",
            )
        self._reserve(live, len(live.rows) + len(fresh))
        first = len(live.rows)
        live.rows.update((name, first + i) for i, name in enumerate(fresh))
        _sit(live, seats(self.pack, live.known, fresh), first)
        rows = np.array([live.rows[name] for name in asset_ids], np.int64)
        if statics is not None and statics.size:
            # The pack goes first, as in `swap`: features must not depend on which of the two was last.
            known = seats(self.pack, live.known, asset_ids).statics
            told = np.where(np.isnan(known), statics, known)
            live.windows.statics[rows] = np.where(np.isnan(told), live.windows.statics[rows], told)
        return rows

    def assets(self, asset_class: str) -> list[str]:
        """The assets of a class that were opened, in order of their rows. Any thread may ask."""
        return list(self._class(asset_class).rows)

    def newest_times(self, asset_class: str) -> npt.NDArray[np.int64]:
        """Event time of the newest reading of each of `assets`, int64 [n] µs; EMPTY where none came. Any thread may
        ask."""
        live = self._class(asset_class)
        count = len(live.rows)
        return _newest_times(live, slice(count))

    def newest_time(self, asset_class: str, asset_id: str) -> int | None:
        """Event time of the newest reading of one asset, µs; EMPTY where none came, None where it was not opened."""
        live = self._class(asset_class)
        row = live.rows.get(asset_id)
        return None if row is None else int(_newest_times(live, slice(row, row + 1))[0])

    def levels(self, asset_class: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """The best level that answers for each row, uint8 [n]."""
        live = self._class(asset_class)
        heads = live.assets.heads[rows]
        levels = np.where(heads >= 0, np.append(live.heads.level, np.uint8(0))[heads], np.uint8(0))
        return np.asarray(levels.max(axis=1, initial=0), np.uint8)

    def event_code(self, asset_class: str, name: str) -> int:
        """What `take_events` knows an event "kind:code" by; −1 where this class has no use for it.

        It is the set of event features that count it, one bit each, so no code is remembered however many a gateway
        makes up. Ask again after `swap`: another spec has other bits.
        """
        return _event_bits(self._class(asset_class).known.spec, name) or -1

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
        """Answer a block. rows int64 [n] from `open_assets`, −1 = unknown; values float32 [n, sensors], NaN = missing.

        The answers keep `rows` and `times` as theirs, or a copy of what is read-only. `historical` rows are scored and
        raise no alarm. A `repeated` block is answered with the revisions of its first time again.
        """
        live = self._class(asset_class)
        n = len(rows)
        live.make_room(n)
        rows, times, values = _writable(rows), _writable(times), _writable(values)
        out = columns_of(rows, times, len(live.known.outputs), live.plan.features if want_features else 0)
        block = rows, times, values, now_us, historical, repeated, out
        return answers(out, self._crew.score(live, n, block, want_features), want_features)

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
        """Remember events; codes int64 [n] from `event_code`."""
        live = self._class(asset_class)
        bits = np.maximum(codes, 0).astype(np.uint64)
        rows, times = _writable(rows), _writable(times)
        status = np.empty(len(rows), np.uint8)
        live.make_room(len(rows))
        revisions: list[Columns] = []
        start = 0
        while start < len(rows):
            start, count = take_rows(live.table, start, rows, times, bits, now_us, repeated, status)
            if count:
                revisions.append(live.revised(count, want_features))
        return EventAnswers(status, joined(revisions, want_features))

    def reasons(
        self, asset_class: str, scored: Answers, top: int, which: npt.NDArray[np.bool_] | None = None
    ) -> Reasons:
        """Why, of answers with features that `score` just gave: at most `top` reasons of each (row, output).

        which bool [n, O]: of these, None for those that raised an alarm; where there is no score there is no reason.
        Raises ValueError for answers without features.
        """
        live = self._class(asset_class)
        if scored.features is None:
            raise ValueError("expected answers with features, found none; score with want_features=True")
        asked = scored.alarms == RAISED if which is None else which
        wanted = asked & ~np.isnan(scored.values)
        live.why = live.why or reason_work_for(live.heads, live.plan.features)
        return explain(live.heads, live.why, live.assets.heads[scored.rows], scored.features, wanted, top)

    def prepare(self, pack: Pack, release: int) -> Prepared:
        """Everything about a swap that takes time, done beside the scoring: any thread may call it."""
        classes = {one.name: _empty_class(pack, one) for one in pack.classes}
        seated = {}
        for name, live in self._classes.items():
            if name in classes:
                seated[name] = seats(pack, classes[name].known, list(live.rows))
        return Prepared(pack, release, classes, seated)

    def swap(self, pack: Pack | Prepared, release: int = 0) -> None:
        """Serve another pack from the next block on. Windows stay; where a class changed they are placed anew.

        With what `prepare` gave it takes as long as copying the alarms of all assets, unless a class changed. Raises
        Refused where the pack lacks a class of which assets are open; the old pack then serves on.
        """
        made = pack if isinstance(pack, Prepared) else self.prepare(pack, release)
        fresh = made.classes
        lost = [name for name, live in self._classes.items() if live.rows and name not in fresh]
        if lost:
            raise Refused(
                f"expected a pack with the classes that are being scored, found none for {lost}",
                "publish a pack that has them, or close their streams first",
            )
        for name, live in self._classes.items():
            if name in fresh:
                seated = made.seated[name]
                _carry(live, fresh[name])
                _sit(fresh[name], seated, 0)
                since = list(live.rows)[len(seated.heads) :]  # opened while the swap was prepared
                _sit(fresh[name], seats(made.pack, fresh[name].known, since), len(seated.heads))
        self.pack, self.release, self._classes = made.pack, made.release, fresh

    def warm(self) -> None:
        """Compile every kernel the block path needs, on windows of its own."""
        for name in self._classes:
            trial = LiveFleet(self.pack, self.release)
            rows = trial.open_assets(name, ["warm"])
            sensors = len(trial.spec(name).sensors)
            for time in (10**15, 10**15 + 1, 10**15 + 1):
                block = name, rows, np.array([time]), np.zeros((1, sensors), np.float32), 2 * 10**15
                scored = trial.score(*block, want_features=True)
            trial.reasons(name, scored, 1, np.ones(scored.values.shape, np.bool_))
            trial.take_events(name, rows, np.array([10**15]), np.array([-1]), 2 * 10**15)

    def held(self, asset_class: str, read: tuple[int, int] | None = None) -> LiveClass:  # noqa: ARG002  for a GPU's
        """Windows, alarms and rows of a class as they are, for `warmth` to keep and bring back.

        read: the caller looks at the rows [begin, end) and changes nothing.
        """
        return self._class(asset_class)

    def _class(self, name: str) -> LiveClass:
        try:
            return self._classes[name]
        except KeyError:
            raise KeyError(f"asset class {name!r} is not one of {sorted(self._classes)}") from None

    def _reserve(self, live: LiveClass, count: int) -> None:
        capacity = len(live.windows.newest)
        if count <= capacity:
            return
        larger = max(count, min(2 * capacity, self._capacity_max))
        assets = _empty_assets(live.known, larger)
        before: list[npt.NDArray[np.generic]] = list(live.assets)
        after: list[npt.NDArray[np.generic]] = list(assets)
        for old, new in zip(before, after, strict=True):
            new[:capacity] = old
        live.replace(grow(live.windows, live.plan, larger), assets)


def _writable(column: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
    """The kernels are compiled for arrays that can be written: a read-only one would have them compiled once more."""
    return column if column.flags.writeable else column.copy()


def _newest_times(live: LiveClass, rows: slice) -> npt.NDArray[np.int64]:
    windows = live.windows
    newest = windows.newest[rows]
    times = windows.times[rows][np.arange(len(newest)), newest % live.plan.slots]
    return np.where(newest == EMPTY, EMPTY, times)


def _sit(live: LiveClass, found: Seats, first: int) -> None:
    """Give the assets in rows first … their heads and starts, and the attributes that the pack has."""
    rows = slice(first, first + len(found.heads))
    live.assets.heads[rows] = found.heads
    live.assets.start[rows] = found.start
    live.windows.statics[rows] = np.where(np.isnan(found.statics), live.windows.statics[rows], found.statics)


def _empty_class(pack: Pack, known: PackClass) -> LiveClass:
    plan = compile_plan(known.spec, known.regimes)
    work, room = work_for(plan, known.slots), room_for(plan, len(known.outputs), _FIRST_ROWS_MAX)
    windows, assets = allocate(plan, _FIRST_CAPACITY), _empty_assets(known, _FIRST_CAPACITY)
    return LiveClass(known, Bound(plan, windows, heads_of(pack, known), assets, work, room))


def _empty_assets(known: PackClass, capacity: int) -> Assets:
    outputs = len(known.outputs)
    return Assets(
        np.full((capacity, known.slots), -1, np.int32),
        np.full((capacity, known.spec.start_width), np.nan),
        np.zeros((capacity, outputs), np.uint8),
        np.zeros((capacity, outputs), np.int64),
    )


def _carry(old: LiveClass, new: LiveClass) -> None:
    """Take over assets, windows, events, attributes and open alarms from the class as it was."""
    new.rows = old.rows
    capacity = len(old.windows.newest)
    windows = old.windows
    if not _same_ring(old, new):
        windows = allocate(new.plan, capacity)
        new_names, old_names = ring_names(new), ring_names(old)
        column = np.array([old_names.index(s) if s in old_names else -1 for s in new_names], np.int64)
        old_events, events = event_names(old.known.spec), event_names(new.known.spec)
        event = np.array([old_events.index(e) if e in old_events else -1 for e in events], np.int64)
        row = new.work.row
        carry_windows(old.plan, old.windows, new.plan, windows, len(old.rows), column, event, row)
        for x, attribute in enumerate(new.known.spec.statics):
            if attribute in old.known.spec.statics:
                windows.statics[:, x] = old.windows.statics[:, old.known.spec.statics.index(attribute)]
    assets = _empty_assets(new.known, capacity)
    before = [o.name for o in old.known.outputs]
    for o, output in enumerate(new.known.outputs):
        if output.name in before:
            assets.alarm[:, o] = old.assets.alarm[:, before.index(output.name)]
            assets.run[:, o] = old.assets.run[:, before.index(output.name)]
    new.replace(windows, assets)


# What a ring's bytes depend on; windows and statistics are only read from it.
RING_FIELDS = ("cadence_us", "slots", "minimum", "maximum", "centroids", "regime_scale", "mean", "inverse_std")


def _same_ring(old: LiveClass, new: LiveClass) -> bool:
    """Whether windows laid out for one class serve the other as they are."""
    names = [(ring_names(one), event_names(one.known.spec), one.known.spec.statics) for one in (old, new)]
    return names[0] == names[1] and all(
        np.array_equal(getattr(old.plan, name), getattr(new.plan, name)) for name in RING_FIELDS
    )


def ring_names(live: LiveClass) -> list[str]:
    return [live.known.spec.sensors[i].name for i in live.plan.order]


def event_names(spec: ClassSpec) -> list[tuple[str, str]]:
    return [(event.kind, event.code) for event in spec.events]


def _event_bits(spec: ClassSpec, name: str) -> int:
    kind, _, code = name.partition(":")
    return sum(1 << e for e, event in enumerate(spec.events) if event.kind == kind and event.code in ("*", code))


__all__ = ["Answers", "EventAnswers", "LiveFleet", "RowStatus"]
