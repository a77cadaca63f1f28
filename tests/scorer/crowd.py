"""Many streams at once against a server, from one event loop: each sends its next block when the last is answered."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
import numpy as np
from serving import MINUTE_US, block, now_us, opening, reason, wrap
from wheeltapper_proto import scoring_pb2 as pb

STREAMS_PER_CHANNEL = 50
START_US = now_us() - 10_000_000 * MINUTE_US


@dataclass
class Heard:
    """What came of a crowd."""

    first_s: list[float] = field(default_factory=list)  # from opening to the first score, by stream
    block_s: list[float] = field(default_factory=list)
    releases: dict[int, int] = field(default_factory=dict)  # blocks by release
    refusals: list[tuple[str, float]] = field(default_factory=list)  # (reason, seconds until it may ask again)
    failures: list[str] = field(default_factory=list)
    rows: int = 0


class Crowd:
    """`streams` conversations of `rows` rows a block until `stop` is set. check: sees every score block."""

    def __init__(
        self,
        address: str,
        streams: int,
        rows: int,
        check: Callable[[int, int, pb.ScoreBlock], None] = lambda _stream, _sequence, _scores: None,
        first: int = 0,
    ) -> None:
        self.address, self.streams, self.rows, self.check = address, streams, rows, check
        self.first = first  # minutes of its timeline that it skips
        self.stop = asyncio.Event()
        self.heard = Heard()

    async def run(self, seconds: float, stagger_s: float = 0.0) -> Heard:
        options = [("grpc.use_local_subchannel_pool", 1)]
        count = -(-self.streams // STREAMS_PER_CHANNEL)
        channels = [grpc.aio.insecure_channel(self.address, options=options) for _ in range(count)]
        asyncio.get_running_loop().call_later(seconds, self.stop.set)
        try:
            await asyncio.gather(*(self._converse(channels[i % count], i, i * stagger_s) for i in range(self.streams)))
        finally:
            await asyncio.gather(*(channel.close() for channel in channels))
        return self.heard

    def request(self, stream: int, sequence: int) -> bytes:
        """Block `sequence` of a stream: readings of its one asset, minute after minute."""
        minutes = np.arange(self.rows)
        times = (START_US + (self.first + sequence * self.rows + minutes) * MINUTE_US).tolist()
        values = 50 + 10 * np.sin(np.add.outer(minutes + sequence * self.rows + stream, np.arange(3)))
        return wrap(block(sequence, [0] * self.rows, times, values)).SerializeToString()

    async def _converse(self, channel: grpc.aio.Channel, number: int, after_s: float) -> None:
        await asyncio.sleep(after_s)
        began = time.monotonic()
        heard = self.heard
        try:
            call = channel.stream_stream("/wheeltapper.v1.Scoring/StreamScores")()
            await call.write(wrap(opening(f"crowd-{number}", gateway=f"crowd-{number}")).SerializeToString())
            for sequence in itertools.count(1):
                if self.stop.is_set() and sequence > 1:
                    break
                sent = time.monotonic()
                await call.write(self.request(number, sequence))
                while (raw := await call.read()) is not grpc.aio.EOF:
                    response = pb.StreamResponse.FromString(raw)
                    if response.WhichOneof("body") == "scores":
                        break
                else:
                    raise AssertionError(f"stream {number} ended: {await call.code()}")
                now = time.monotonic()
                if sequence == 1:
                    heard.first_s.append(now - began)
                else:
                    heard.block_s.append(now - sent)
                heard.rows += self.rows
                release = response.scores.release
                heard.releases[release] = heard.releases.get(release, 0) + 1
                self.check(number, sequence, response.scores)
            await call.done_writing()
            while await call.read() is not grpc.aio.EOF:
                pass
        except grpc.RpcError as error:
            try:
                code, why, retry_s = reason(error)
            except AssertionError:
                heard.failures.append(str(error))
            else:
                if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
                    heard.refusals.append((why, retry_s))
                else:
                    heard.failures.append(f"{code} {why}")
