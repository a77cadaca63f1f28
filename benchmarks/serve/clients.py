"""Clients that keep a server busy: so many conversations at once, each one question at a time.

What they ask is encoded before anything is timed. They run on another core than the server, and only the server's
CPU time and the round trips are counted.
"""

from __future__ import annotations

import asyncio
import gc
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import grpc
import numpy as np
import orjson
from wheeltapper_proto import scoring_pb2 as pb

from benchmarks import harness
from benchmarks.serve import work

Ask = Callable[[bytes], Awaitable[bytes]]
SCORE = "/wheeltapper.v1.Scoring/Score"
STREAM = "/wheeltapper.v1.Scoring/StreamScores"


class Client(ABC):
    """A way to speak to one kind of server."""

    @abstractmethod
    def encode(self, block: pb.ReadingBlock) -> bytes: ...

    @abstractmethod
    def scores(self, answer: bytes) -> Sequence[float]: ...

    @abstractmethod
    async def connect(self, stack: AsyncExitStack, address: str, opens: pb.Open) -> Ask:
        """One conversation about the assets of an Open."""


class Stream(Client):
    """One bidirectional stream a conversation, all on one connection."""

    def __init__(self, wants_open: bool) -> None:
        self._wants_open = wants_open

    def encode(self, block: pb.ReadingBlock) -> bytes:
        return pb.StreamRequest(readings=block).SerializeToString()

    def scores(self, answer: bytes) -> Sequence[float]:
        return list(pb.StreamResponse.FromString(answer).scores.values)

    async def connect(self, stack: AsyncExitStack, address: str, opens: pb.Open) -> Ask:
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        call: Any = channel.stream_stream(STREAM)()
        stack.callback(call.cancel)

        async def ask(question: bytes) -> bytes:
            await call.write(question)
            return bytes(await call.read())

        if self._wants_open:
            await ask(pb.StreamRequest(open=opens).SerializeToString())
        return ask


class Echo(Stream):
    """A stream of `benchmarks.serve.echo`, which answers every question with the same bytes."""

    def __init__(self, answer: bytes) -> None:
        super().__init__(wants_open=False)
        self._answer = answer

    async def connect(self, stack: AsyncExitStack, address: str, opens: pb.Open) -> Ask:
        ask = await super().connect(stack, address, opens)
        harness.require(await ask(self._answer) == self._answer, "an echo says what it was told")
        return ask


class Unary(Client):
    def encode(self, block: pb.ReadingBlock) -> bytes:
        return pb.ScoreRequest(readings=block).SerializeToString()

    def scores(self, answer: bytes) -> Sequence[float]:
        return list(pb.ScoreResponse.FromString(answer).scores.values)

    async def connect(self, stack: AsyncExitStack, address: str, _opens: pb.Open) -> Ask:
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        call: Any = channel.unary_unary(SCORE)

        async def ask(question: bytes) -> bytes:
            return bytes(await call(question))

        return ask


class Json(Client):
    """HTTP/1.1 with keep-alive, a connection a conversation."""

    def encode(self, block: pb.ReadingBlock) -> bytes:
        rows = np.array(block.values, np.float32).reshape(len(block.handles), -1)
        body = orjson.dumps({"sequence": block.sequence, "values": rows}, option=orjson.OPT_SERIALIZE_NUMPY)
        head = (
            f"POST /score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def scores(self, answer: bytes) -> Sequence[float]:
        return _numbers(orjson.loads(answer))

    async def connect(self, stack: AsyncExitStack, address: str, _opens: pb.Open) -> Ask:
        host, port = address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        stack.callback(writer.close)

        async def ask(question: bytes) -> bytes:
            writer.write(question)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
            return await reader.readexactly(length)

        return ask


def _numbers(answer: Any) -> list[float]:
    """Of {"values": …}, or as they stand."""
    return list(answer["values"] if isinstance(answer, dict) else answer)


class Load:
    """Conversations with one server, kept open between rounds; readings never repeat."""

    def __init__(self, client: Client, address: str, conversations: int, rows: int, name: str) -> None:
        self._client, self._address, self._rows, self._name = client, address, rows, name
        self._count = conversations
        self._stack = AsyncExitStack()
        self._asks: list[Ask] = []
        self._second = 0

    async def open(self) -> None:
        for number in range(self._count):
            opens = work.opening(f"{self._name}-{number}", self._rows)
            self._asks.append(await self._client.connect(self._stack, self._address, opens))

    async def close(self) -> None:
        await self._stack.aclose()

    async def answer(self) -> bytes:
        """The bytes of one answer in the first conversation, for an `Echo` to be given."""
        return await self._asks[0](self._questions(1)[0][0])

    async def answers(self, blocks: int) -> list[float]:
        """The scores of some blocks in the first conversation, for comparison."""
        found: list[float] = []
        for question in self._questions(blocks)[0]:
            found += self._client.scores(await self._asks[0](question))
        return found

    async def saturate(self, messages: int) -> float:
        """Everyone asks as fast as it is answered; wall seconds for `messages` in all."""
        questions = self._questions(max(1, messages // self._count))
        began = time.perf_counter()
        await asyncio.gather(*(_ask_all(ask, own) for ask, own in zip(self._asks, questions, strict=True)))
        return time.perf_counter() - began

    async def paced(self, per_s: float, seconds: float) -> list[float]:
        """Round trips in seconds, from the moment each question was due, at `per_s` messages a second in all. The
        client's own collector stands still meanwhile: its pauses are no server's."""
        each = max(2, int(per_s * seconds / self._count))
        questions = self._questions(each)
        gc.collect()
        gc.disable()
        try:
            begin, step = time.perf_counter() + 0.05, self._count / per_s
            found = await asyncio.gather(
                *(
                    _ask_when_due(ask, own, begin + step * number / self._count, step)
                    for number, (ask, own) in enumerate(zip(self._asks, questions, strict=True))
                )
            )
        finally:
            gc.enable()
        return [trip for own in found for trip in own]

    def _questions(self, each: int) -> list[list[bytes]]:
        sent = []
        for number in range(self._count):
            rows = work.values(self._rows, number)
            sent.append([self._client.encode(work.block(s + 1, rows, s)) for s in self._seconds(each)])
        self._second += each
        return sent

    def _seconds(self, count: int) -> range:
        return range(self._second, self._second + count)


async def _ask_all(ask: Ask, questions: Sequence[bytes]) -> None:
    for question in questions:
        await ask(question)


async def _ask_when_due(ask: Ask, questions: Sequence[bytes], due: float, step: float) -> list[float]:
    trips = []
    for question in questions:
        while (early := due - time.perf_counter()) > 0:
            await asyncio.sleep(early - 0.001 if early > 0.002 else 0)
        await ask(question)
        trips.append(time.perf_counter() - due)
        due += step
    return trips
