"""What durability costs on the hot path, and how soon a killed scorer is warm: `make bench NAME=protection`.

The scorer's usual day (16 sensors, 352 features, 100 trees) in blocks of 256 readings, three ways: no journal; a
journal and `ack=scored`; a journal and `ack=durable`, where a conversation goes on when its block is acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from wheeltapper_proto import scoring_pb2 as pb

from benchmarks import harness
from benchmarks.harness import Row, compared
from benchmarks.serve import servers, work
from benchmarks.serve.clients import Ask, Load, Stream
from benchmarks.serve.servers import Server

OFF, SCORED, DURABLE = "no journal", "journal, ack=scored", "journal, ack=durable"
_ROWS = 256
_IN_FLIGHT = (1, 8)
_FILL = 380  # blocks until the longest window is full


class Durable(Stream):
    """A conversation that goes on when its block is on the server's disk."""

    def __init__(self) -> None:
        super().__init__(wants_open=True)

    async def connect(self, stack: AsyncExitStack, address: str, opens: pb.Open) -> Ask:
        opens.ack = pb.ACK_LEVEL_DURABLE
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        call: Any = channel.stream_stream("/wheeltapper.v1.Scoring/StreamScores")()
        stack.callback(call.cancel)

        async def ask(question: bytes) -> bytes:
            await call.write(question)
            answer = bytes(await call.read())
            acknowledged = pb.StreamResponse.FromString(await call.read())
            harness.require(acknowledged.HasField("ack"), "an Ack follows the scores")
            return answer

        await call.write(pb.StreamRequest(open=opens).SerializeToString())
        await call.read()
        return ask


def measure(short: bool) -> list[Row]:
    servers.pin_client()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        pack = work.prepare(Path(folder), "windowed", windowed=True).pack
        started = {
            OFF: stack.enter_context(servers.scorer(pack)),
            SCORED: stack.enter_context(servers.scorer(pack, "--state", f"{folder}/scored")),
            DURABLE: stack.enter_context(servers.scorer(pack, "--state", f"{folder}/durable")),
        }
        rows = asyncio.run(_compare(started, 2 if short else 7, 40 if short else 160))
        stack.close()
        return rows + _warm_start(pack, Path(folder), 256 if short else 2_048)


async def _compare(started: dict[str, Server], rounds: int, blocks: int) -> list[Row]:
    rows: list[Row] = []
    for in_flight in _IN_FLIGHT:
        loads = {
            name: Load(
                Durable() if name == DURABLE else Stream(True), server.address, in_flight, _ROWS, f"n{in_flight}"
            )
            for name, server in started.items()
        }
        for load in loads.values():
            await load.open()
        told = {name: await load.answers(3) for name, load in loads.items()}
        harness.require(
            all(np.array_equal(told[OFF], found, equal_nan=True) for found in told.values()), "all answer the same"
        )
        for load in loads.values():
            await load.saturate(in_flight * _FILL)
        cpu, wall = await _saturated(started, loads, rounds, blocks, in_flight)
        case = f"blocks of {_ROWS}, {in_flight} in flight"
        for name in (SCORED, DURABLE):
            rows.append(compared(f"{case}, {name}", "µs CPU/reading", cpu[name], OFF, cpu[OFF]))
            rows.append(compared(f"{case}, {name}", "readings/s", wall[name], OFF, wall[OFF], more_is_better=True))
        per_s = 0.25 / float(np.median(cpu[OFF])) * 1e6 / _ROWS
        for name, trips in (await _paced(loads, rounds, per_s, blocks)).items():
            if name != OFF:
                rows.append(compared(f"{case}, {name}, p50 at quarter load", "ms", trips[0], OFF, trips[1]))
        for load in loads.values():
            await load.close()
    return rows


async def _saturated(
    started: dict[str, Server], loads: dict[str, Load], rounds: int, blocks: int, in_flight: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """µs of CPU per reading and readings a second, `rounds` samples for everyone in turn."""
    cpu: dict[str, list[float]] = {name: [] for name in loads}
    wall: dict[str, list[float]] = {name: [] for name in loads}
    readings = max(1, blocks // in_flight) * in_flight * _ROWS
    for number in range(rounds):
        for name in loads if number % 2 == 0 else reversed(loads):
            began = started[name].cpu_s()
            took = await loads[name].saturate(blocks)
            cpu[name].append((started[name].cpu_s() - began) / readings * 1e6)
            wall[name].append(readings / took)
    return cpu, wall


async def _paced(
    loads: dict[str, Load], rounds: int, per_s: float, blocks: int
) -> dict[str, tuple[list[float], list[float]]]:
    """p50 of the round trips in ms, beside that without a journal."""
    found: dict[str, list[float]] = {name: [] for name in loads}
    for number in range(rounds):
        for name in loads if number % 2 == 0 else reversed(loads):
            trips = await loads[name].paced(per_s, blocks / per_s / 4)
            found[name].append(float(np.median(trips)) * 1e3)
    return {name: (samples, found[OFF]) for name, samples in found.items()}


def _warm_start(pack: Path, folder: Path, assets: int) -> list[Row]:
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
        asks = [
            await Durable().connect(stack, server.address, work.opening(f"warm-{number}", _ROWS))
            for number in range(assets // _ROWS)
        ]
        values = work.values(_ROWS, 1)
        for second in range(blocks):
            question = pb.StreamRequest(readings=work.block(second + 1, values, second)).SerializeToString()
            await asyncio.gather(*(ask(question) for ask in asks))
        last = pb.StreamRequest(readings=work.block(_FILL + 1, values, _FILL)).SerializeToString()
        scores = pb.StreamResponse.FromString(await asks[-1](last)).scores
    return bool(scores.health[0] & pb.HEALTH_GAPS)


if __name__ == "__main__":
    harness.main("protection", __doc__ or "", measure)
