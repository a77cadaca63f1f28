"""Whose block is next: work in slices, so that a saturated scorer still hears newcomers, and a bound on what waits.

grpc.aio accepts one call per turn of the event loop. Without slices a turn lasts as long as a block of every open
stream, and a thousand busy streams starve the next one (measured: 239 to 496 of 1,000 served within 3 s).
docs/decisions has the figures.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

from wheeltapper_scorer.faults import CallError, Reason

SLICE_S = 0.002  # work between two looks at the network
_RETRY_S = 1.0
_MEMORY = 0.1  # weight of the newest block in the mean cost


class Turns:
    """Blocks in the order they came. `wait_s_max`: newcomers are refused while the oldest block waits longer;
    `bytes_max`: what may wait in all."""

    def __init__(self, wait_s_max: float, bytes_max: int) -> None:
        self._wait_s_max = wait_s_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self._waiting: deque[tuple[asyncio.Future[None], float]] = deque()
        self._spent_s = 0.0
        self._mean_s = SLICE_S
        self._armed = False
        self._waited_s = 0.0
        self._waited_at = 0.0

    @property
    def waiting(self) -> int:
        """Blocks that wait."""
        return len(self._waiting)

    @property
    def waited_s(self) -> float:
        """How long the latest block of the past second waited, or the oldest waits by now."""
        now = time.monotonic()
        recent = self._waited_s if now - self._waited_at < 1.0 else 0.0
        return max(recent, now - self._waiting[0][1]) if self._waiting else recent

    def admit(self) -> None:
        """Raises CallError OVERLOADED where a newcomer would only make everybody late."""
        if (waited_s := self.waited_s) > self._wait_s_max:
            raise CallError(
                Reason.OVERLOADED, f"blocks wait {waited_s:.1f} s here, more than {self._wait_s_max:g} s", _RETRY_S
            )

    async def take(self, bytes_count: int) -> None:
        """Wait for a turn. Raises CallError OVERLOADED where too many bytes wait already."""
        if not self._waiting and self._spent_s < SLICE_S:
            self._note(0.0)
            return
        if self._bytes + bytes_count > self._bytes_max:
            raise CallError(
                Reason.OVERLOADED, f"{self._bytes:,} bytes wait here, and {self._bytes_max:,} may", _RETRY_S
            )
        future = asyncio.get_running_loop().create_future()
        began = time.monotonic()
        self._waiting.append((future, began))
        self._bytes += bytes_count
        self._arm()
        try:
            await future
        finally:
            self._bytes -= bytes_count
        self._note(time.monotonic() - began)

    def done(self, seconds: float) -> None:
        """A turn has ended, and cost so much."""
        self._spent_s += seconds
        self._mean_s += _MEMORY * (seconds - self._mean_s)
        self._arm()

    def _note(self, waited_s: float) -> None:
        self._waited_s, self._waited_at = waited_s, time.monotonic()

    def _arm(self) -> None:
        if not self._armed:
            self._armed = True
            asyncio.get_running_loop().call_soon(self._next_slice)

    def _next_slice(self) -> None:
        self._armed = False
        self._spent_s = 0.0
        for _ in range(max(1, int(SLICE_S / max(self._mean_s, 1e-6)))):
            while self._waiting and self._waiting[0][0].done():
                self._waiting.popleft()  # its stream was cancelled
            if not self._waiting:
                return
            self._waiting.popleft()[0].set_result(None)
        self._arm()
