"""How soon a killed scorer is warm: seconds from its start to the first score over full windows."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
from wheeltapper_proto import scoring_pb2 as pb

from benchmarks import harness
from benchmarks.harness import Row, compared
from benchmarks.serve import servers, work
from benchmarks.serve.clients import STREAM, Ask
from benchmarks.serve.servers import Server

_ROWS = 256
_FILL = 380  # blocks until the longest window is full


def measure(pack: Path, folder: Path, assets: int) -> list[Row]:
    """Kill a scorer with full windows; seconds from its next start to the first score that says so."""
    state = folder / "killed"
    with _killed(pack, state) as server:
        asyncio.run(_load_and_ask(server, assets, _FILL))
        time.sleep(1.0)  # the snapshot of the last full segment
    warm: list[float] = []
    cold: list[float] = []
    for number in range(3):
        for path, seconds in ((state, warm), (folder / f"empty-{number}", cold)):
            with _killed(pack, path) as server:
                began = time.perf_counter()
                gaps = asyncio.run(_load_and_ask(server, assets, 0))
                seconds.append(server.started_s + time.perf_counter() - began)
            harness.require(gaps == (path != state), "a killed scorer comes back with its windows")
    size = sum(file.stat().st_size for file in state.iterdir())
    case = f"start to first warm score after kill -9, {assets:,} assets"
    return [
        compared(case, "s", warm, "start without state, floor", cold),
        Row("state on disk per asset, windows of 384 slots × 16 sensors", size / assets / 1024, "KiB"),
    ]


@contextlib.contextmanager
def _killed(pack: Path, state: Path) -> Iterator[Server]:
    with servers.scorer(pack, "--state", str(state), pinned=False) as server:
        yield server
        os.kill(server.pid, signal.SIGKILL)


async def _load_and_ask(server: Server, assets: int, blocks: int) -> bool:
    """Fill windows with durable blocks, then ask once for the health of a new reading: whether its window has gaps."""
    async with AsyncExitStack() as stack:
        asks = [await _connect(stack, server.address, f"warm-{number}") for number in range(assets // _ROWS)]
        values = work.values(_ROWS, 1)
        for second in range(blocks):
            question = pb.StreamRequest(readings=work.block(second + 1, values, second)).SerializeToString()
            await asyncio.gather(*(ask(question) for ask in asks))
        last = pb.StreamRequest(readings=work.block(_FILL + 1, values, _FILL)).SerializeToString()
        scores = pb.StreamResponse.FromString(await asks[-1](last)).scores
    return bool(scores.health[0] & pb.HEALTH_GAPS)


async def _connect(stack: AsyncExitStack, address: str, gateway: str) -> Ask:
    """A conversation that goes on when its block is on the server's disk."""
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
    call: Any = channel.stream_stream(STREAM)()
    stack.callback(call.cancel)
    opens = work.opening(gateway, _ROWS)
    opens.ack = pb.ACK_LEVEL_DURABLE
    await call.write(pb.StreamRequest(open=opens).SerializeToString())
    await call.read()

    async def ask(question: bytes) -> bytes:
        await call.write(question)
        answer = bytes(await call.read())
        acknowledged = pb.StreamResponse.FromString(await call.read())
        harness.require(acknowledged.HasField("ack"), "an Ack follows the scores")
        return answer

    return ask
