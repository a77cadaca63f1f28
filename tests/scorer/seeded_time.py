"""Time that depends on a seed alone: an event loop that waits for nobody, and a scorer's clocks on it."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from wheeltapper_scorer.clock import Clock

T = TypeVar("T")
_BEGIN_US = 1_760_000_000_000_000
_TURN_S = (0.000_005, 0.000_05, 0.000_5)  # of a fast, a usual and a slow machine


class SeededTime:
    """Each turn of a loop, and each look at the clock, takes a moment; a wait passes at once."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(f"time {seed}")
        self._now = 0.0
        self._turn_s = _TURN_S[0]

    def clock(self) -> Clock:
        return Clock(self._look, lambda: _BEGIN_US + int(self._now * 1e6))

    def run(self, story: Coroutine[Any, Any, T]) -> T:
        """The story on a loop of its own, on a machine of another speed than the last one."""
        self._turn_s = self._rng.choice(_TURN_S)
        with asyncio.Runner(loop_factory=lambda: _Loop(self)) as runner:
            return runner.run(story)

    def now(self) -> float:
        return self._now

    def moment(self) -> float:
        """Seconds that something takes: about as long as the loop takes for some of its turns."""
        return self._rng.expovariate(0.2 / self._turn_s)

    def step(self, waits_s: float = 0.0) -> None:
        self._now += waits_s + self._rng.expovariate(1 / self._turn_s)

    def _look(self) -> float:
        self.step()
        return self._now


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, time: SeededTime) -> None:
        self._time = time
        super().__init__(_Unwaiting(time))

    def time(self) -> float:
        return self._time.now()


class _Unwaiting(selectors.DefaultSelector):
    """Where the loop would wait, the time has passed."""

    def __init__(self, time: SeededTime) -> None:
        super().__init__()
        self._time = time

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("everybody waits, and nobody is left to wake them")
        self._time.step(max(0.0, timeout))
        return super().select(0)
