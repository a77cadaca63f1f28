"""Where a gateway may go on after a broken stream: the last sequence up to which every block is safe."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from wheeltapper_scorer.answer_memory import AnswerMemory
from wheeltapper_scorer.settings import Settings

_AHEAD_MAX = 256  # sequences kept beyond a hole; past them the point waits, which is safe


@dataclass(slots=True)
class _Run:
    """Every sequence from 1 up to `upto`, and some beyond a hole."""

    upto: int = 0
    ahead: set[int] = field(default_factory=set)

    def add(self, sequence: int) -> None:
        if sequence > self.upto + 1:
            if len(self.ahead) < _AHEAD_MAX:
                self.ahead.add(sequence)
            return
        self.upto = max(self.upto, sequence)
        while self.upto + 1 in self.ahead:
            self.upto += 1
            self.ahead.remove(self.upto)


@dataclass(slots=True)
class _Point:
    answered: _Run = field(default_factory=_Run)  # the answer has left
    durable: _Run = field(default_factory=_Run)  # the block is on disk
    taken: int = 0  # the highest that was scored


class ResumePoints:
    """Per gateway and epoch; the `gateways_max` most recent ones are kept. What is not known counts as not safe, so a
    gateway may send again what was safe already, and never skips what was not. `answers`: what it is told then."""

    def __init__(self, gateways_max: int, answers: AnswerMemory | None = None) -> None:
        self._gateways_max = gateways_max
        self.answers = answers or AnswerMemory(gateways_max)
        self._points: OrderedDict[tuple[str, int], _Point] = OrderedDict()

    def resume(self, gateway: str, epoch: int, durable: bool = False) -> int:
        """The sequence up to which all is answered, or on disk; 0 where nothing is known of this epoch."""
        point = self._points.get((gateway, epoch))
        if point is None:
            return 0
        return point.durable.upto if durable else point.answered.upto

    def answered(self, gateway: str, epoch: int, sequence: int) -> None:
        """Remember that the answer of one block has left."""
        self._point(gateway, epoch).answered.add(sequence)

    def durable(self, gateway: str, epoch: int, sequence: int) -> None:
        """Remember that one block is on disk."""
        self._point(gateway, epoch).durable.add(sequence)

    def taken(self, gateway: str, epoch: int, sequence: int) -> bool:
        """Remember that one block is being scored. Whether it, or one after it, was before: then its answer may have
        been lost with a connection. 0 is no sequence."""
        point = self._point(gateway, epoch)
        again = 0 < sequence <= point.taken
        point.taken = max(point.taken, sequence)
        return again

    def state(self) -> list[list[Any]]:
        """What outlives a process, as JSON: answers that left one are not asked of the next."""
        return [
            [gateway, epoch, point.durable.upto, sorted(point.durable.ahead), point.taken]
            for (gateway, epoch), point in self._points.items()
        ]

    def restore(self, state: Iterable[list[Any]]) -> None:
        """Put back what `state` gave."""
        for gateway, epoch, upto, ahead, taken in state:
            point = self._point(gateway, epoch)
            point.durable, point.taken = _Run(upto, set(ahead)), taken

    def _point(self, gateway: str, epoch: int) -> _Point:
        key = (gateway, epoch)
        point = self._points.get(key)
        if point is None:
            point = self._points[key] = _Point()
        self._points.move_to_end(key)
        while len(self._points) > self._gateways_max:
            self._points.popitem(last=False)
        return point


def points_of(settings: Settings) -> ResumePoints:
    """Nothing known yet, within the limits of a scorer."""
    limits = settings.gateways_max, settings.answers_bytes_max, settings.answers_total_bytes_max
    return ResumePoints(settings.gateways_max, AnswerMemory(*limits))
