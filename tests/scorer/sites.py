"""Gateways in memory, talking to the real service: what they send, how they go on after a cut, and what they hear."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from presses import MINUTE_US
from wheeltapper_proto import scoring_pb2 as pb
from wheeltapper_scorer.service import ScoringService

T0 = 1_700_000_040 * 1_000_000
ASSETS = 3  # of a site
MINUTES, IN_FLIGHT = 30, 4
Answer = tuple[bytes, ...]  # handles, times, status, values, levels, alarms, health, features


class Line:
    """The server's end of a call, as grpc.aio gives it to a handler."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[Any] = asyncio.Queue()
        self.responses: asyncio.Queue[Any] = asyncio.Queue()

    async def read(self) -> Any:
        return await self.requests.get()

    async def write(self, message: bytes) -> None:
        await asyncio.sleep(0)
        self.responses.put_nowait(pb.StreamResponse.FromString(message))

    async def abort(self, code: Any, details: str, trailing: Any) -> None:
        assert "the journal's disk failed" in details or "going away" in details
        raise grpc.aio.AbortError(details)

    def done(self) -> bool:
        return False

    def auth_context(self) -> dict[str, Any]:
        return {}

    def time_remaining(self) -> None:
        return None


@dataclass
class Site:
    """A gateway: it sends its blocks in order and forgets none before its Ack, or before its answer where it asks for
    ack=SCORED. `cuts`: breaks its own lines now and then, after so many responses; None: never."""

    name: str
    blocks: list[pb.StreamRequest]
    trace: list[str]  # shared by all that happens
    durable: bool = True
    cuts: random.Random | None = None
    settled: int = 0
    refusals: int = 0
    cut: int = 0
    answers: dict[int, list[Answer]] = field(default_factory=dict)  # by sequence: revisions, then the scores
    repeated: int = 0  # blocks that were answered more than once
    sent: int = 0  # the highest sequence that ever left

    @property
    def done(self) -> bool:
        return self.settled == len(self.blocks)

    def opening(self) -> pb.StreamRequest:
        ack = pb.ACK_LEVEL_DURABLE if self.durable else pb.ACK_LEVEL_SCORED
        return pb.StreamRequest(open=opening_of(self.name, ack))

    async def converse(self, service: ScoringService, in_flight: int = IN_FLIGHT) -> None:
        """One conversation, until all is settled, the scorer wants to stop, or the line breaks."""
        line = Line()
        call = asyncio.create_task(service._stream_scores(None, line))
        call.add_done_callback(lambda ended: ended.cancelled() or (ended.exception(), line.responses.put_nowait(None)))
        line.requests.put_nowait(self.opening().SerializeToString())
        opened = await line.responses.get()
        if opened is None:
            self.refusals += 1
            return
        if opened.HasField("drain"):  # told to stop before it was heard
            line.requests.put_nowait(grpc.aio.EOF)
            await call
            return
        assert not self.durable or opened.opened.resume_sequence >= self.settled, "what was acknowledged is gone"
        flying: deque[int] = deque()
        heard: list[Answer] = []
        following, draining = self.settled, False
        left = self.cuts.randrange(1, 40) if self.cuts else -1
        while not self.done and (flying or not draining):
            while len(flying) < in_flight and following < len(self.blocks) and not draining:
                line.requests.put_nowait(self.block(following).SerializeToString())
                following += 1
                flying.append(following)
                self.sent = max(self.sent, following)
            response = await line.responses.get()
            if response is None:
                self.refusals += 1
                self.trace.append(f"{self.name} is cut off")
                return
            draining |= response.HasField("drain")
            if response.HasField("ack") or response.HasField("scores") or response.HasField("revisions"):
                heard = self.hear(heard, response)
            while flying and flying[0] <= self.settled:
                flying.popleft()
            left -= 1
            if left == 0:
                self.cut += 1
                self.trace.append(f"{self.name} breaks its line")
                call.cancel()
                await asyncio.gather(call, return_exceptions=True)
                return
        line.requests.put_nowait(grpc.aio.EOF)
        await call

    def block(self, place: int) -> pb.StreamRequest:
        """A block as it is sent now."""
        request = self.blocks[place]
        body = request.events if request.HasField("events") else request.readings
        body.settled_sequence = self.settled
        return request

    def hear(self, before: list[Answer], response: pb.StreamResponse) -> list[Answer]:
        """What was heard of the block so far; a second answer is the first one."""
        if response.HasField("ack"):
            assert response.ack.sequence > self.settled
            self.settled = response.ack.sequence
            self.trace.append(f"{self.name} is safe up to {self.settled}")
            return before
        if response.HasField("revisions"):
            return [*before, answer_of(response.revisions)]
        sequence, told = response.scores.sequence, [*before, answer_of(response.scores)]
        self.repeated += sequence in self.answers
        self.trace.append(f"{self.name} hears {sequence}")
        assert self.answers.setdefault(sequence, told) == told, f"{self.name} hears something else of {sequence}"
        if not self.durable:
            self.settled = sequence
        return []


@dataclass
class Caller:
    """A simple client: one durable `Score` call after the other, each again until it is answered."""

    name: str
    blocks: list[pb.StreamRequest]
    trace: list[str]
    answers: dict[int, list[Answer]] = field(default_factory=dict)  # of calls that were answered at once
    settled: int = 0
    tries: int = 0  # of the call that is next

    @property
    def done(self) -> bool:
        return self.settled == len(self.blocks)

    def opening(self) -> pb.StreamRequest:
        return pb.StreamRequest(open=opening_of(self.name, pb.ACK_LEVEL_DURABLE))

    async def converse(self, service: ScoringService) -> None:
        """Calls until all are answered or one is refused."""
        while not self.done:
            block = self.blocks[self.settled]
            fields = {"events": block.events} if block.HasField("events") else {"readings": block.readings}
            request = pb.ScoreRequest(open=self.opening().open, **fields)
            request.readings.sequence = self.settled + 1
            self.tries += 1
            try:
                raw = await service._score(request.SerializeToString(), Line())
            except grpc.aio.AbortError:
                return
            self.settled += 1
            self.trace.append(f"{self.name} hears {self.settled}")
            response = pb.ScoreResponse.FromString(raw)
            if self.tries == 1 and block.HasField("readings"):
                revised = [answer_of(response.revisions)] if response.HasField("revisions") else []
                self.answers[self.settled] = [*revised, answer_of(response.scores)]
            self.tries = 0


def opening_of(gateway: str, ack: int) -> pb.Open:
    return pb.Open(gateway=gateway, epoch=1, asset_class="press", sensors=["force", "heat", "oil"],
                   asset_ids=[f"{gateway}/{i}" for i in range(ASSETS)], event_codes=["error:e1"], ack=ack,
                   attributes=["age"], attribute_values=[1.0, 2.0, 3.0], want_features=True)  # fmt: skip


def answer_of(block: pb.ScoreBlock) -> Answer:
    columns = block.handles, block.times, block.values, block.features
    dtypes = np.uint32, np.int64, np.float32, np.float32
    handles, times, values, features = (
        np.array(one, dtype).tobytes() for one, dtype in zip(columns, dtypes, strict=True)
    )
    return handles, times, block.status, values, block.levels, block.alarms, block.health, features


def sites_of(rng: random.Random, trace: list[str] | None = None, minutes: int = MINUTES) -> list[Site]:
    """Three gateways of three assets: readings of each minute, some missing, some two minutes late, and events."""
    trace = [] if trace is None else trace
    return [Site(name, blocks_of(rng, minutes), trace) for name in ("north", "south", "west")]


def blocks_of(rng: random.Random, minutes: int = MINUTES) -> list[pb.StreamRequest]:
    rows = [(asset, minute) for minute in range(minutes) for asset in range(ASSETS) if rng.random() < 0.9]
    rows.sort(key=lambda row: row[1] + (rng.randrange(3) if rng.random() < 0.2 else 0))
    blocks = []
    while rows:
        count = rng.randint(1, 4)
        part, rows = rows[:count], rows[count:]
        values = [rng.uniform(0, 100) if rng.random() < 0.95 else float("nan") for _ in range(3 * len(part))]
        sequence = len(blocks) + 1
        handles, times = [asset for asset, _ in part], [T0 + minute * MINUTE_US for _, minute in part]
        if rng.random() < 0.1:
            body = {"events": pb.EventBlock(sequence=sequence, handles=handles, times=times, codes=[0] * len(part))}
        else:
            body = {"readings": pb.ReadingBlock(sequence=sequence, handles=handles, times=times, values=values)}
        blocks.append(pb.StreamRequest(**body))
    return blocks
