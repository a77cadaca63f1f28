"""One asset class over live windows: what the kernels need, which asset has which row, and the calls that score."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from wheeltapper.answers import first
from wheeltapper.bound import Bound, Room, bind, room_for, score_rows, work_for
from wheeltapper.ordering import order_rows
from wheeltapper.pack import PackClass
from wheeltapper.reasons import ReasonWork
from wheeltapper.scoring import Assets, Columns, Heads, Work
from wheeltapper.windows import Plan, Windows

# rows, times, values, now_us, historical, repeated, and the answer's columns
Block: TypeAlias = tuple[
    npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32], int, bool, bool, Columns
]


class LiveClass:
    """`row_s`: what a row of its large blocks takes, seconds; 0.0 before the first."""

    __slots__ = ("_hands", "bound", "known", "row_s", "rows", "table", "why")

    def __init__(self, known: PackClass, bound: Bound) -> None:
        self.known = known
        self.rows: dict[str, int] = {}
        self.row_s = 0.0
        self.why: ReasonWork | None = None  # made when somebody first asks why
        self._bind(bound)

    @property
    def plan(self) -> Plan:
        return self.bound.plan

    @property
    def windows(self) -> Windows:
        return self.bound.windows

    @property
    def heads(self) -> Heads:
        return self.bound.heads

    @property
    def assets(self) -> Assets:
        return self.bound.assets

    @property
    def work(self) -> Work:
        return self.bound.work

    def replace(self, windows: Windows, assets: Assets) -> None:
        self._bind(self.bound._replace(windows=windows, assets=assets))

    def make_room(self, rows: int) -> None:
        """Working memory for a block of so many rows."""
        if rows > len(self.bound.room.order):
            self._bind(self.bound._replace(room=room_for(self.plan, len(self.known.outputs), rows)))

    def make_hands(self, count: int) -> None:
        """Working memory for so many threads, each its own but for the order of the rows."""
        room = self.bound.room
        while len(self._hands) < count:
            own = room_for(self.plan, len(self.known.outputs), len(room.order))
            hand = self.bound._replace(
                work=work_for(self.plan, self.known.slots), room=Room(room.order, room.spare, own.revised)
            )
            self._hands.append((hand, bind(hand)))

    def cut(self, n: int, block: Block, parts: int) -> list[int]:
        """Put a block of `n` rows in order and cut it into at most `parts` parts of about one length, no asset in two:
        where they begin, and the end. Raises nothing; 0 parts are 1."""
        if parts < 2:
            return [0, n]
        rows, times = block[0], block[1]
        room = self.bound.room
        order_rows(rows, times, room.order, room.spare)
        in_order = rows[room.order[:n]]
        wanted = np.arange(1, parts) * n // parts
        begins = np.searchsorted(in_order, in_order[wanted])  # of the asset there
        return [0, *np.unique(begins[begins > 0]).tolist(), n]

    def score(self, begin: int, end: int, block: Block, want_features: bool, hand: int = 0) -> list[Columns]:
        """Score rows begin … end of a block in order, with the working memory of one thread; the revisions.

        A call for all rows puts them in order first, which is what `cut` has done for parts.
        """
        bound, table = self._hands[hand]
        rows, times, values, now_us, historical, repeated, out = block
        is_cut = end - begin < len(rows)
        revisions: list[Columns] = []
        while begin < end:
            begin, count = score_rows(
                table, begin, end, is_cut or begin > 0, rows, times, values, now_us, historical, repeated, *out
            )
            if count:
                revisions.append(_copied(bound, count, want_features))
        return revisions

    def revised(self, count: int, want_features: bool) -> Columns:
        """A copy of the revisions that a kernel has just written."""
        return _copied(self.bound, count, want_features)

    def _bind(self, bound: Bound) -> None:
        self.bound = bound
        self.table = bind(bound)  # the arrays at its addresses live as long as `bound`
        self._hands = [(bound, self.table)]


def _copied(bound: Bound, count: int, want_features: bool) -> Columns:
    found = bound.room.revised
    return first(found if want_features else found._replace(features=found.features[:0]), count)
