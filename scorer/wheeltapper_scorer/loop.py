"""An event loop that takes all of grpc's finished operations at once, and knows when it is busy.

grpc.aio's poller thread queues each finished operation and writes one byte into a pipe; the loop reads one byte and
empties the queue. So bytes are left over, and once the pipe is full of them the poller may queue only one operation for
each turn of the loop. Accepting a stream is one operation after another, each behind those of all busy streams: a
saturated server accepted fewer than 20 streams a second. Here the surplus is read away before the queue is emptied.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import time
from collections.abc import Callable
from typing import Any

_BYTES = bytearray(4_096)  # the pipe is full long before
_MEMORY_S = 0.1  # over which idleness is remembered


class Loop(asyncio.SelectorEventLoop):
    """Readers added here are grpc's wake-up pipes: asyncio adds its own in another way."""

    def __init__(self) -> None:
        self._idleness = _Idleness()
        super().__init__(self._idleness)

    def is_busy(self) -> bool:
        """Whether the loop has had next to nothing to wait for lately."""
        return self._idleness.share < 0.1

    @property
    def turns(self) -> int:
        """How often it has looked at the network."""
        return self._idleness.looks

    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]
        if isinstance(fd, socket.socket) and fd.family == socket.AF_UNIX:
            super().add_reader(fd, _read_all, fd, callback, args)
        else:
            super().add_reader(fd, callback, *args)


class _Idleness(selectors.DefaultSelector):
    """The system's selector, and the share of the time that is spent waiting in it."""

    def __init__(self) -> None:
        super().__init__()
        self.share = 1.0
        self.looks = 0
        self._ended = time.monotonic()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        began = time.monotonic()
        found = super().select(timeout)
        self.looks += 1
        now = time.monotonic()
        if now > self._ended:
            span_s = now - self._ended
            idle = (now - began) / span_s if timeout is None or timeout > 0 else 0.0
            self.share += (idle - self.share) * min(1.0, span_s / _MEMORY_S)
            self._ended = now
        return found


def _read_all(pipe: socket.socket, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Read all bytes but one, which the callback itself reads. An operation is queued before its byte is written, so
    the callback finds every operation whose byte was read here."""
    waiting = pipe.recv_into(_BYTES, flags=socket.MSG_PEEK)
    if waiting > 1:
        pipe.recv_into(_BYTES, waiting - 1)
    callback(*args)
