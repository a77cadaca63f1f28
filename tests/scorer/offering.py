"""Calls that come at a fixed rate, whether or not the scorer keeps up.

Run as `python offering.py HOST:PORT PER_S SECONDS` it is somebody else's load: a process of its own, so that whoever
measures meanwhile does not wait for its own event loop. It prints how many were admitted, refused and lost.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
from serving import MINUTE_US, block, now_us, opening, reason
from wheeltapper_proto import scoring_pb2 as pb

METHOD = "/wheeltapper.v1.Scoring/Score"


class Calls:
    """Calls of 250 assets and 4 readings of each, none like another: readings that come again cost little."""

    def __init__(self, name: str) -> None:
        names = [f"{name}-{i}" for i in range(250)]
        self._times = np.tile(now_us() - (1_000_000 - np.arange(4)) * MINUTE_US, 250).astype("<i8")
        readings = block(0, np.repeat(range(250), 4).tolist(), self._times.tolist(), np.full((1_000, 3), 50))
        raw = pb.ScoreRequest(open=opening(*names), readings=readings).SerializeToString()
        self._head, self._tail = raw.split(self._times.tobytes())

    def __next__(self) -> bytes:
        self._times += 4 * MINUTE_US
        return self._head + self._times.tobytes() + self._tail


@dataclass
class Phase:
    """What came of calls at a fixed rate."""

    admitted_s: list[float] = field(default_factory=list)  # from sending to the answer
    refused: list[tuple[grpc.StatusCode, str, float]] = field(default_factory=list)
    lost: int = 0  # ended by grpc's core, which keeps 1,000 calls that nobody has accepted
    per_s: float = 0.0  # that were really sent
    rss_mb: float = 0.0  # the most

    @property
    def p99_s(self) -> float:
        return float(np.percentile(self.admitted_s, 99))


async def offer(
    address: str, calls_of: Calls, per_s: float, seconds: float, rss_mb: Callable[[], float] = lambda: 0.0
) -> Phase:
    """Open loop: a call every 1/per_s seconds on 4 connections."""
    phase = Phase()
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(4)]
    calls = [channel.unary_unary(METHOD) for channel in channels]

    async def one(number: int) -> None:
        began = time.monotonic()
        try:
            await calls[number % 4](next(calls_of), timeout=30)
            phase.admitted_s.append(time.monotonic() - began)
        except grpc.aio.AioRpcError as error:
            try:
                phase.refused.append(reason(error))
            except AssertionError:
                if error.code() is not grpc.StatusCode.CANCELLED:
                    raise
                phase.lost += 1

    begin, count, open_calls = time.monotonic(), round(per_s * seconds), set[asyncio.Task[None]]()
    for number in range(count):
        await asyncio.sleep(max(0.0, begin + number / per_s - time.monotonic()))
        task = asyncio.create_task(one(number))
        open_calls.add(task)
        task.add_done_callback(open_calls.discard)
        if number % 50 == 0:
            phase.rss_mb = max(phase.rss_mb, rss_mb())
    phase.per_s = count / (time.monotonic() - begin)
    await asyncio.gather(*open_calls)
    await asyncio.gather(*(channel.close() for channel in channels))
    return phase


class Flood:
    """The same from another process, which is offering once this is made."""

    def __init__(self, address: str, per_s: float, seconds: float) -> None:
        words = [sys.executable, __file__, address, str(per_s), str(seconds)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        self._process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "offering\n"

    def outcome(self) -> dict[str, float]:
        out, _ = self._process.communicate(timeout=120)
        return dict(json.loads(out))


def main() -> None:
    address, per_s, seconds = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    calls = Calls("flood")
    sys.stdout.write("offering\n")
    sys.stdout.flush()
    phase = asyncio.run(offer(address, calls, per_s, seconds))
    found = {"per_s": phase.per_s, "admitted": len(phase.admitted_s), "refused": len(phase.refused), "lost": phase.lost}
    reasons = [one for one in phase.refused if one[0] is not grpc.StatusCode.RESOURCE_EXHAUSTED or not one[2] > 0]
    sys.stdout.write(json.dumps({**found, "other": len(reasons)}))


if __name__ == "__main__":
    main()
