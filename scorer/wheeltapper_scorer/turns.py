"""Whose block is next: newcomers first, the rest in slices of the event loop, and a bound on what waits.

grpc.aio accepts one call per turn of the event loop. Without slices a turn lasts as long as a block of every stream
that has sent one. docs/decisions/0012-turns-and-the-wake-up-pipe.md has the figures.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable

from wheeltapper_scorer.faults import CallError, Reason
from wheeltapper_scorer.loop import Loop

SLICE_S = 0.002  # work between two looks at the network
_RUSH_S = 0.1  # over which newcomers are counted …
_RUSH_MESSAGES = 20.0  # … and this many of theirs are a rush: all others together get …
_RUSH_PACE = 8  # … one block in the time of so many …
_RUSH_PATIENCE_S = 0.25  # … or one a turn of the loop, where they wait longer than this
_QUIET_S = 0.001  # without another call all are thought to be in …
_PATIENCE_S = 0.02  # … and nobody waits longer for that …
_HEARING = 4  # … or than so many times what the slice before took
_RETRY_S = 1.0
_MEMORY = 0.1  # weight of the newest block in the mean cost


class Turns:
    """Blocks in the order they came, those of streams that have had no answer yet before all others. In a rush of
    newcomers the others go on slowly, for an answered stream asks again at once and would leave them little.

    `wait_s_max`: newcomers are refused while the oldest block waits longer; `bytes_max`: what may wait in all;
    `seconds`: a clock that never steps back.
    """

    def __init__(self, wait_s_max: float, bytes_max: int, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._wait_s_max = wait_s_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self._waiting: deque[tuple[asyncio.Future[None], float]] = deque()
        self._newcomers: deque[tuple[asyncio.Future[None], float]] = deque()
        self._newcomer_at = 0.0
        self._rush = 0.0  # messages of newcomers, fading
        self._granted_at = 0.0  # the newest of `_waiting`
        self._spent_s = 0.0  # in …
        self._turn = -1  # … this turn of the loop
        self._mean_s = SLICE_S
        self._armed = False
        self._granted = 0  # blocks of this slice
        self._slice_at = 0.0
        self._called_at = 0.0
        self._heard_until = 0.0  # calls may be let in until then, before anybody else goes on
        self._waited_s = 0.0
        self._waited_at = 0.0

    @property
    def waiting(self) -> int:
        """Blocks that wait."""
        return len(self._waiting) + len(self._newcomers)

    @property
    def waited_s(self) -> float:
        """How long the latest block of the past second waited, or the oldest waits by now."""
        now = self._seconds()
        recent = self._waited_s if now - self._waited_at < 1.0 else 0.0
        return max([recent, *(now - line[0][1] for line in (self._waiting, self._newcomers) if line)])

    def admit(self) -> None:
        """A stream or call begins. Raises CallError OVERLOADED where a newcomer would only make everybody late."""
        if (waited_s := self.waited_s) > self._wait_s_max:
            raise CallError(
                Reason.OVERLOADED, f"blocks wait {waited_s:.1f} s here, more than {self._wait_s_max:g} s", _RETRY_S
            )

    def called(self) -> None:
        """A call has come, whether or not there is room for it. While the loop is busy, calls that grpc holds back are
        let in before any is answered: it accepts one a turn of the loop, and would hide all the others."""
        self._called_at = self._seconds()

    async def take(self, bytes_count: int, is_new: bool = False, is_call: bool = False) -> None:
        """Wait for a turn. Raises CallError OVERLOADED where too many bytes wait already.

        is_new: of a stream that has had no answer yet. is_call: others may have come with it, see `called`.
        """
        began = self._seconds()
        if is_new:
            self._rush, self._newcomer_at = self._rush_at(began) + 1.0, began
        line = self._newcomers if is_new else self._waiting
        if not (line if is_new else self.waiting) and self._is_left_over() and not (is_call and _is_busy()):
            self._waited_s, self._waited_at = 0.0, began
            return
        if self._bytes + bytes_count > self._bytes_max:
            raise CallError(
                Reason.OVERLOADED, f"{self._bytes:,} bytes wait here, and {self._bytes_max:,} may", _RETRY_S
            )
        future = asyncio.get_running_loop().create_future()
        line.append((future, began))
        self._bytes += bytes_count
        self._arm()
        try:
            await future
        finally:
            self._bytes -= bytes_count
        self._waited_at = self._seconds()
        self._waited_s = self._waited_at - began

    def done(self, seconds: float) -> None:
        """A turn has ended, and cost so much."""
        self._spent_s += seconds
        if self._waiting or self._newcomers:
            self._arm()

    def _is_left_over(self) -> bool:
        """Whether this turn of the loop has time for another block."""
        loop = asyncio.get_running_loop()
        if isinstance(loop, Loop) and loop.turns != self._turn:
            self._turn, self._spent_s = loop.turns, 0.0
        return self._spent_s < SLICE_S

    def _arm(self) -> None:
        if not self._armed:
            self._armed = True
            asyncio.get_running_loop().call_soon(self._next_slice)

    def _next_slice(self) -> None:
        """Let as many blocks go on as fit into a slice. What a block costs is what the loop took for those of the slice
        before, with reading and writing them."""
        now = self._seconds()
        if self._granted:
            self._mean_s += _MEMORY * ((now - self._slice_at) / self._granted - self._mean_s)
            self._heard_until = now + _HEARING * (now - self._slice_at)
        self._armed, self._spent_s, self._granted, self._slice_at = False, 0.0, 0, now
        if self._waiting and self._are_coming_in(now):
            self._armed = True
            asyncio.get_running_loop().call_later(_QUIET_S, self._next_slice)  # grpc's poller needs the core, too
            return
        fitting = max(1, int(SLICE_S / max(self._mean_s, 1e-6)))
        self._grant(self._newcomers, fitting)
        if not self._newcomers and self._rush_at(now) < _RUSH_MESSAGES:
            self._grant(self._waiting, fitting)
        elif self._waiting and (
            now - self._granted_at >= _RUSH_PACE * self._mean_s or now - self._waiting[0][1] >= _RUSH_PATIENCE_S
        ):
            self._granted_at = now
            self._grant(self._waiting, 1)
        if self._granted or self.waiting:
            self._arm()

    def _are_coming_in(self, now: float) -> bool:
        """Whether more calls are worth waiting for."""
        end = max(self._heard_until, self._waiting[0][1] + _PATIENCE_S)
        return now - self._called_at < _QUIET_S and now < end

    def _rush_at(self, now: float) -> float:
        return self._rush * math.exp((self._newcomer_at - now) / _RUSH_S)

    def _grant(self, line: deque[tuple[asyncio.Future[None], float]], most: int) -> None:
        """Let at most the first `most` of a line go on."""
        while line and most:
            future, _ = line.popleft()
            if not future.done():  # else its stream was cancelled
                future.set_result(None)
                self._granted += 1
                most -= 1


def _is_busy() -> bool:
    loop = asyncio.get_running_loop()
    return isinstance(loop, Loop) and loop.is_busy()
