"""A gateway's way to speak: several blocks of one stream in flight, and another one whenever one is settled.

`Load` in clients.py asks one question at a time; this is what `wheeltapper_gateway` does. At `ack=durable` a block is
settled by its Ack.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
from wheeltapper_proto import scoring_pb2 as pb

from benchmarks import harness
from benchmarks.serve import work
from benchmarks.serve.clients import STREAM

Connect = Callable[[], grpc.aio.Channel]


class Conversation:
    """One stream with `in_flight` blocks of credit. Readings never repeat."""

    def __init__(self, gateway: str, rows: int, in_flight: int, durable: bool) -> None:
        self._gateway, self._rows, self._in_flight, self._durable = gateway, rows, in_flight, durable
        self._values = work.values(rows, len(gateway))
        self._sequence = 0
        self._call: Any = None

    async def open(self, stack: AsyncExitStack, channel: grpc.aio.Channel) -> None:
        opens = work.opening(self._gateway, self._rows)
        opens.ack = pb.ACK_LEVEL_DURABLE if self._durable else pb.ACK_LEVEL_SCORED
        self._call = channel.stream_stream(STREAM)()
        stack.callback(self._call.cancel)
        await self._call.write(pb.StreamRequest(open=opens).SerializeToString())
        harness.require(pb.StreamResponse.FromString(await self._call.read()).HasField("opened"), "Opened comes first")

    def questions(self, blocks: int) -> list[bytes]:
        """The next blocks, encoded."""
        return [self._question(self._sequence + i + 1) for i in range(blocks)]

    async def talk(self, questions: list[bytes], found: list[float] | None = None) -> list[float]:
        """Send them all with credit; seconds from sending each to its being settled. `found` takes the scores."""
        sent: deque[float] = deque()
        trips: list[float] = []
        following, settled, answered = 0, 0, 0
        first = self._sequence
        while settled < len(questions):
            while following < len(questions) and following - settled < self._in_flight:
                sent.append(time.perf_counter())
                await self._call.write(questions[following])
                following += 1
            response = pb.StreamResponse.FromString(await self._call.read())
            if response.HasField("scores"):
                answered += 1
                harness.require(response.scores.sequence == first + answered, "every block is answered in order")
                if found is not None:
                    found.extend(response.scores.values)
            elif not response.HasField("ack"):
                harness.require(False, "only scores and acks come back")
            now_settled = response.ack.sequence - first if self._durable and response.HasField("ack") else settled
            now_settled = now_settled if self._durable else answered
            now = time.perf_counter()
            trips += [now - sent.popleft() for _ in range(now_settled - settled)]
            settled = now_settled
        self._sequence += len(questions)
        return trips

    def _question(self, sequence: int) -> bytes:
        block = work.block(sequence, self._values, sequence)
        block.settled_sequence = max(0, sequence - 1 - self._in_flight)
        return pb.StreamRequest(readings=block).SerializeToString()


class Crowd:
    """So many conversations with one server at once, on one connection."""

    def __init__(self, connect: Connect, streams: int, in_flight: int, rows: int, durable: bool = False) -> None:
        self._connect, self._stack = connect, AsyncExitStack()
        self._talks = [Conversation(f"{i}-{in_flight}-{streams}", rows, in_flight, durable) for i in range(streams)]

    async def open(self) -> None:
        channel = await self._stack.enter_async_context(self._connect())
        for talk in self._talks:
            await talk.open(self._stack, channel)

    async def close(self) -> None:
        await self._stack.aclose()

    async def scores(self, blocks: int) -> list[float]:
        """What the first conversation is answered, for comparison."""
        found: list[float] = []
        await self._talks[0].talk(self._talks[0].questions(blocks), found)
        return found

    async def saturate(self, blocks: int) -> tuple[float, list[float]]:
        """`blocks` in all as fast as credit allows: wall seconds, and what each block took."""
        questions = [talk.questions(max(1, blocks // len(self._talks))) for talk in self._talks]
        began = time.perf_counter()
        trips = await asyncio.gather(*(t.talk(own) for t, own in zip(self._talks, questions, strict=True)))
        return time.perf_counter() - began, [trip for own in trips for trip in own]
