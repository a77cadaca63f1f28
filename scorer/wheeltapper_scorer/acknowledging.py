"""One stream's part of the journal: what it sent is kept, and acknowledged once it is on disk."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from wheeltapper_proto import scoring_pb2

from wheeltapper_scorer import wire
from wheeltapper_scorer.faults import CallError
from wheeltapper_scorer.journal import Journal
from wheeltapper_scorer.records import Kind
from wheeltapper_scorer.session import Answered


class Acknowledging:
    """Belongs to the task of its stream, which it cancels where an acknowledgement can never come: `refusal` is why."""

    def __init__(self, journal: Journal, write: Callable[[bytes], Awaitable[None]]) -> None:
        self.refusal: CallError | None = None
        self._journal, self._write = journal, write
        self._stream = journal.open_stream()
        self._told: scoring_pb2.Open | None = None
        self._assets = 0  # of the stream
        self._unsafe: deque[tuple[int, asyncio.Future[None]]] = deque()  # scored, told, and not yet acknowledged
        self._more, self._none = asyncio.Event(), asyncio.Event()
        self._none.set()
        self._owner = asyncio.current_task()
        self._acker: asyncio.Task[None] | None = None

    async def room(self) -> None:
        """Wait for the journal where it is behind. Raises CallError JOURNAL_FAILED where a block could not be kept."""
        await self._journal.room()
        if self._is_durable:
            self._journal.check()

    def opened(self, message: scoring_pb2.Open, answer: scoring_pb2.Opened, raw: bytes, now_us: int) -> None:
        """The stream has opened, or has added assets. A later Open is kept as what is new in it: the journal repeats
        all of them with every segment, and a gateway may send one before each block. Raises CallError JOURNAL_FAILED
        before a durable stream is told a resume point that may be lost."""
        fresh = [i for i, handle in enumerate(answer.handles) if handle >= self._assets]
        self._assets += len(fresh)
        if self._told is None:
            self._told = message
        elif fresh:
            raw = _only(fresh, message)
        else:
            return
        if self._is_durable:
            self._journal.check()
        self._journal.opened(self._stream, raw, now_us)
        if self._is_durable and self._acker is None:
            self._acker = asyncio.create_task(self._acknowledge())

    def took(self, raw: bytes, told: Answered, sequence: int) -> asyncio.Future[None] | None:
        """The fleet took a block, now or when it came first; what to hand to `answered` with it. Call it before
        anything else is scored."""
        self._journal.append(Kind.AGAIN if told.again else Kind.BLOCK, self._stream, raw, told.clock_us)
        if self._told is None or not self._is_durable:
            return None
        return self._journal.on_disk(self._told.gateway, self._told.epoch, sequence, urgent=not self._unsafe)

    def answered(self, sequence: int, on_disk: asyncio.Future[None] | None) -> None:
        """The block's answer was written: its Ack may follow."""
        if on_disk is not None:
            self._unsafe.append((sequence, on_disk))
            self._none.clear()
            self._more.set()

    async def finish(self) -> None:
        """The gateway has half-closed: wait for the last Ack."""
        await self._none.wait()

    def close(self) -> None:
        """The stream is over, whatever ended it."""
        if self._acker is not None:
            self._acker.cancel()
        for _, on_disk in self._unsafe:
            on_disk.cancel()
        self._journal.close_stream(self._stream)

    @property
    def _is_durable(self) -> bool:
        return self._told is not None and self._told.ack == scoring_pb2.ACK_LEVEL_DURABLE

    async def _acknowledge(self) -> None:
        """One Ack for all that one sync made safe."""
        try:
            while True:
                await self._more.wait()
                self._more.clear()
                while self._unsafe:
                    await self._unsafe[0][1]
                    newest = 0
                    while self._unsafe and self._unsafe[0][1].done():
                        sequence, on_disk = self._unsafe.popleft()
                        on_disk.result()
                        newest = sequence
                    await self._write(wire.encode_ack(newest))
                self._none.set()
        except CallError as refusal:
            self.refusal = refusal
            if self._owner is not None:
                self._owner.cancel()
        except Exception:  # the connection broke under the Ack: the stream's own task hears of it
            return
        finally:
            self._none.set()


def _only(assets: Sequence[int], message: scoring_pb2.Open) -> bytes:
    """A later Open of some of its assets, with their attributes: what the first one said need not be said again."""
    width, values = len(message.attributes), message.attribute_values
    return scoring_pb2.StreamRequest(
        open=scoring_pb2.Open(
            asset_ids=[message.asset_ids[i] for i in assets],
            attributes=message.attributes,
            attribute_values=[value for i in assets for value in values[i * width : (i + 1) * width]],
        )
    ).SerializeToString()
