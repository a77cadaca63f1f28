"""Where a gateway may go on after a broken stream: the last sequence up to which every block was answered."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

_AHEAD_MAX = 256  # answered sequences kept beyond a hole; past them the point waits, which is safe


@dataclass(slots=True)
class _Point:
    epoch: int
    answered: int = 0  # every sequence from 1 up to here
    ahead: set[int] = field(default_factory=set)


class ResumePoints:
    """In memory, per gateway and epoch; the `gateways_max` most recent gateways are kept. What is not known counts as
    not answered, so a gateway may send again what was answered already, and never skips what was not."""

    def __init__(self, gateways_max: int) -> None:
        self._gateways_max = gateways_max
        self._points: OrderedDict[str, _Point] = OrderedDict()

    def resume(self, gateway: str, epoch: int) -> int:
        """The sequence up to which all is answered; 0 where nothing is known of this epoch."""
        point = self._points.get(gateway)
        return point.answered if point is not None and point.epoch == epoch else 0

    def answered(self, gateway: str, epoch: int, sequence: int) -> None:
        """Remember that the answer of one block has left. Blocks of an epoch before the newest are forgotten."""
        point = self._points.get(gateway)
        if point is None or epoch > point.epoch:
            point = self._points[gateway] = _Point(epoch)
        self._points.move_to_end(gateway)
        while len(self._points) > self._gateways_max:
            self._points.popitem(last=False)
        if epoch == point.epoch:
            _advance(point, sequence)


def _advance(point: _Point, sequence: int) -> None:
    if sequence > point.answered + 1:
        if len(point.ahead) < _AHEAD_MAX:
            point.ahead.add(sequence)
        return
    point.answered = max(point.answered, sequence)
    while point.answered + 1 in point.ahead:
        point.answered += 1
        point.ahead.remove(point.answered)
