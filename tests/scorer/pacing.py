"""Streams whose blocks leave at times that were fixed beforehand, whether or not the scorer keeps up: a stall is felt
by every block that should have left meanwhile, not only by the one that was being answered.

Values repeat themselves block after block, longer than the longest window. So the scores of a block depend on its place
in the pattern and on the release alone, and every answer can be held against one of a few references.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from dataclasses import dataclass

import grpc
import numpy as np
from serving import MINUTE_US, SENSORS, now_us
from wheeltapper.live import LiveFleet
from wheeltapper_gateway import wire
from wheeltapper_proto import scoring_pb2 as pb

READINGS = 4  # of each asset in a block; the longest window of a press has 8 slots
PATTERN = 4  # blocks until the values are the same again
_START_US = now_us() - 10_000_000 * MINUTE_US


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it came, and how long after its block should have left."""

    stream: int
    sequence: int
    late_s: float
    raw: bytes


class _Line:
    """One open stream of assets of its own."""

    def __init__(self, number: int, assets: int, call: grpc.aio.StreamStreamCall) -> None:
        self.number, self.call, self.sequence = number, call, 0
        self.names = [f"paced-{number}-{i}" for i in range(assets)]
        self._handles = array("I", np.repeat(np.arange(assets), READINGS).tolist())
        self._values = [array("f", values_of(number, assets, place).ravel().tolist()) for place in range(PATTERN)]

    async def open(self) -> None:
        gateway = f"paced-{self.number}"
        await self.call.write(wire.encode_open(gateway, 1, "press", SENSORS, self.names))
        assert wire.decode_response(await self.call.read(), wire.Columns())[0] == "opened"

    async def send(self) -> None:
        self.sequence += 1
        minutes = self.sequence * READINGS + np.arange(READINGS)
        times = array("q", np.tile(_START_US + minutes * MINUTE_US, len(self.names)).tobytes())
        values, settled = self._values[self.sequence % PATTERN], max(0, self.sequence - 64)
        await self.call.write(wire.encode_readings(self.sequence, self._handles, times, values, False, settled))

    async def hear(self, sequence: int, due: float) -> Answer:
        raw = await self.call.read()
        assert raw is not grpc.aio.EOF, f"stream {self.number} ended: {await self.call.code()}"
        return Answer(self.number, sequence, time.monotonic() - due, raw)


class Pace:
    """`streams` streams of `assets` machines each, on connections of four streams."""

    def __init__(self, address: str, streams: int, assets: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(-(-streams // 4))]
        self._assets = assets
        self.lines = [
            _Line(n, assets, self._channels[n // 4].stream_stream("/wheeltapper.v1.Scoring/StreamScores")())
            for n in range(streams)
        ]

    async def open(self) -> None:
        await asyncio.gather(*(line.open() for line in self.lines))

    async def close(self) -> None:
        for line in self.lines:
            await line.call.done_writing()
            assert await line.call.read() is grpc.aio.EOF
        await asyncio.gather(*(channel.close() for channel in self._channels))

    async def saturate(self, seconds: float) -> float:
        """Blocks a second of all streams when each sends its next block as soon as the last is answered."""
        end = time.monotonic() + seconds

        async def press(line: _Line) -> int:
            count = 0
            while time.monotonic() < end:
                await line.send()
                await line.hear(line.sequence, end)
                count += 1
            return count

        return sum(await asyncio.gather(*map(press, self.lines))) / seconds

    async def steady(self, per_s: float, stop: asyncio.Event) -> list[Answer]:
        """`per_s` blocks a second of all streams until `stop` is set; every answer."""
        begin, each_s = time.monotonic() + 0.05, len(self.lines) / per_s

        async def keep_pace(line: _Line) -> list[Answer]:
            due, sent = begin + line.number / per_s, asyncio.Queue[tuple[int, float] | None]()

            async def listen() -> list[Answer]:
                answers = []
                while (one := await sent.get()) is not None:
                    answers.append(await line.hear(*one))
                return answers

            listening = asyncio.create_task(listen())
            while not stop.is_set():
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                sent.put_nowait((line.sequence + 1, due))
                await line.send()
                due += each_s
            sent.put_nowait(None)
            return await listening

        return [answer for heard in await asyncio.gather(*map(keep_pace, self.lines)) for answer in heard]


def values_of(stream: int, assets: int, place: int) -> np.ndarray:
    """float32 [assets × READINGS, sensors] of the block at this place of the pattern."""
    angles = np.arange(assets)[:, None] + (place * READINGS + np.arange(READINGS)) * (2 * np.pi / (PATTERN * READINGS))
    return (50 + 40 * np.sin(stream + angles.ravel()[:, None] + np.arange(3))).astype(np.float32)


def references(fleets: dict[int, LiveFleet], streams: int, assets: int) -> dict[tuple[int, int, int], bytes]:
    """The values that each release gives, by (release, stream, place in the pattern)."""
    found = {}
    for release, fleet in fleets.items():
        for stream in range(streams):
            rows = np.repeat(fleet.open_assets("press", [f"paced-{stream}-{i}" for i in range(assets)]), READINGS)
            for sequence in range(1, 1 + 2 * PATTERN):  # windows are full after the first half
                minutes = sequence * READINGS + np.arange(READINGS)
                times, place = np.tile(_START_US + minutes * MINUTE_US, assets), sequence % PATTERN
                answers = fleet.score("press", rows, times, values_of(stream, assets, place), now_us())
                found[release, stream, place] = answers.values.tobytes()
    return found


def check(answers: list[Answer], expected: dict[tuple[int, int, int], bytes]) -> set[int]:
    """Every answer is whole and has the scores of the release it names; which releases these were."""
    columns, releases = wire.Columns(("failure", "anomaly")), set()
    for answer in answers:
        kind, scores = wire.decode_response(answer.raw, columns)
        assert (kind, scores.sequence) == ("scores", answer.sequence)
        assert set(scores.status) == {pb.ROW_STATUS_OK}
        place = answer.stream, answer.sequence % PATTERN
        assert scores.values.tobytes() == expected[scores.release, *place], (answer.stream, answer.sequence)
        releases.add(scores.release)
    return releases
