"""Answers given lately, to be given again word for word: a line that breaks takes with it what was on its way.

A block that comes again (same gateway, epoch and sequence, same rows and values) is answered as it was the first time,
alarms and revisions with it, and does not reach the fleet, whose windows have moved on. A gateway says with every block
up to where it will never ask again (`settled_sequence`), so what is kept is what is in flight. Of one that does not say
so the newest answers are kept, 1 MiB of them. What was forgotten is scored anew.
"""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

from numpy.typing import NDArray

_OVERHEAD_BYTES = 400  # of the objects around an answer's bytes …
_MESSAGE_BYTES = 33  # … and around each further message's
_MIB = 1024 * 1024
_COUNT = struct.Struct("<Q")
_UNSETTLED_BYTES_MAX = _MIB  # of a gateway that never said what is settled


class Body(IntEnum):
    """What was asked. Numbers are for ever."""

    READINGS = 1
    EVENTS = 2


class Asked(NamedTuple):
    """A block by name, and a checksum of all that its answer depends on."""

    body: Body
    sequence: int
    check: int


class Named(NamedTuple):
    """What the columns of an answer are, as Opened says it."""

    release: int
    pack: str  # hex sha256
    outputs: tuple[str, ...]
    features: tuple[str, ...]
    wanted: tuple[bool, int, bool]  # want_features, reasons_top, reasons_always


class Told(NamedTuple):
    """What was asked, as in `Asked`, and the answer as `wire.encode_scores` writes it, but for handles, which are a
    stream's own: in revisions they are rows of the fleet, and in scores those of whoever asked first."""

    body: Body
    sequence: int
    check: int
    clock_us: int  # the scorer's, when it was first asked
    named: Named
    revisions: tuple[bytes, ...]
    scores: bytes

    @property
    def bytes(self) -> int:
        """About what it takes in memory."""
        further = sum([_MESSAGE_BYTES + len(one) for one in self.revisions]) if self.revisions else 0
        return _OVERHEAD_BYTES + len(self.scores) + further


@dataclass(slots=True)
class Kept:
    """Of one gateway and epoch."""

    settled: int = 0  # nothing up to here is asked again
    told: OrderedDict[int, Told] = field(default_factory=OrderedDict)  # by sequence, in the order they were given
    sequences: list[int] = field(default_factory=list)  # the same, rising: backlog comes between newer blocks
    bytes: int = 0


class AnswerMemory:
    """`bytes_max` for each gateway and epoch, `bytes_total_max` for all: beyond them the oldest answers of that
    gateway, or all of the one that has been silent for longest, are forgotten."""

    def __init__(
        self, gateways_max: int = 10_000, bytes_max: int = 8 * _MIB, bytes_total_max: int = 128 * _MIB
    ) -> None:
        self._gateways_max, self._bytes_max, self._bytes_total_max = gateways_max, bytes_max, bytes_total_max
        self._kept: OrderedDict[tuple[str, int], Kept] = OrderedDict()
        self.bytes = 0

    def find(self, gateway: str, epoch: int, asked: Asked, wanted: tuple[bool, int, bool]) -> Told | None:
        """What was answered to exactly this block, where the same columns were wanted."""
        kept = self._kept.get((gateway, epoch))
        told = kept.told.get(asked.sequence) if kept is not None else None
        return told if told is not None and told[:3] == asked and told.named.wanted == wanted else None

    def keep(self, gateway: str, epoch: int, told: Told) -> None:
        """Remember an answer. The first answer to a block stays; sequence 0 is none."""
        kept = self._of(gateway, epoch)
        before = kept.told.get(told.sequence)
        if told.sequence <= kept.settled or (before is not None and before[:3] == told[:3]):
            return
        if before is not None:
            self._forget(kept, told.sequence)
        kept.told[told.sequence] = told
        insort(kept.sequences, told.sequence)
        size = told.bytes
        kept.bytes += size
        self.bytes += size
        limit = self._bytes_max if kept.settled else min(self._bytes_max, _UNSETTLED_BYTES_MAX)
        while kept.told and kept.bytes > limit:
            self._forget(kept, next(iter(kept.told)))
        while self.bytes > self._bytes_total_max:
            self._forget_silent()

    def settle(self, gateway: str, epoch: int, sequence: int) -> None:
        """Forget what is never asked again: everything up to this sequence."""
        kept = self._of(gateway, epoch)
        if sequence > kept.settled:
            kept.settled = sequence
            for one in kept.sequences[: bisect_right(kept.sequences, sequence)]:
                self._forget(kept, one)

    def state(self) -> Iterator[tuple[str, int, int, tuple[Told, ...]]]:
        """What outlives a process: gateway, epoch, settled, answers. The memory may change while one iterates."""
        for gateway, epoch in list(self._kept):
            kept = self._kept.get((gateway, epoch))
            if kept is not None:
                yield gateway, epoch, kept.settled, tuple(kept.told.values())

    def restore(self, gateway: str, epoch: int, settled: int, answers: Sequence[Told]) -> None:
        """Put back what `state` gave of one gateway."""
        self.settle(gateway, epoch, settled)
        for told in answers:
            self.keep(gateway, epoch, told)

    def _of(self, gateway: str, epoch: int) -> Kept:
        kept = self._kept.get((gateway, epoch))
        if kept is None:
            kept = self._kept[gateway, epoch] = Kept()
            while len(self._kept) > self._gateways_max:
                self._forget_silent()
        else:
            self._kept.move_to_end((gateway, epoch))
        return kept

    def _forget_silent(self) -> None:
        """All of the gateway that has been silent for longest."""
        _, kept = self._kept.popitem(last=False)
        self.bytes -= kept.bytes

    def _forget(self, kept: Kept, sequence: int) -> None:
        size = kept.told.pop(sequence).bytes
        del kept.sequences[bisect_left(kept.sequences, sequence)]
        kept.bytes -= size
        self.bytes -= size


def asked(body: Body, sequence: int, columns: Sequence[NDArray[Any]]) -> Asked:
    """The name of a block whose answer depends on these columns, contiguous ones."""
    parts = [part for column in columns for part in (_COUNT.pack(len(column)), column.data)]
    return Asked(body, sequence, zlib.crc32(b"".join(parts)))
