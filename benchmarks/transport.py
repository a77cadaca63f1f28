"""What carrying a reading costs the server, by block size and by streams: `make bench NAME=transport`.

The forest of `serving` on 16 last values, one stream, one message at a time, server on one core. "Kernels alone" is the
same block path without grpc, protobuf or Python between blocks; "echo" is grpc.aio that reads the same requests, writes
answers of the same bytes and does nothing else: no scorer on public grpcio can be below both together. The streams
share 50 connections, and every one asks again as soon as it is answered; the client is Python on the other core, and
its own CPU bounds how fast they open.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from wheeltapper.features import KERNELS
from wheeltapper.live import LiveFleet
from wheeltapper.pack import open_pack
from wheeltapper_proto import scoring_pb2 as pb

from benchmarks import harness
from benchmarks.harness import Row, compared
from benchmarks.serve import servers, work
from benchmarks.serve.clients import STREAM, Echo, Load, Stream
from benchmarks.serve.servers import Server

_SIZES = {1: 800, 16: 400, 256: 120, 1024: 40}  # readings a message: messages of a sample
_STREAM_COUNTS = (1, 16, 256, 1000)
_FLAT = 2000  # messages of a sample, whatever the streams
_STREAMS, _CONNECTIONS = 1000, 50
_SPREAD = {256: 80, 1024: 40, 4096: 12}  # readings a message: messages of a stream and sample …
_SPREAD_STREAMS = 4  # … of so many, for one core and for all
_FULL_S = 380  # of readings, and the windows of the usual day are full
_NEWER = "with grpc's event engine listener"


def measure(short: bool) -> list[Row]:
    servers.pin_client()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        plain = work.prepare(Path(folder), "plain", windowed=False)
        ours = stack.enter_context(servers.scorer(plain.pack))
        with _listener("event_engine_listener"):
            newer = stack.enter_context(servers.scorer(plain.pack, name=_NEWER))
        echo = stack.enter_context(servers.echo())
        rows = asyncio.run(_carry(plain, ours, newer, echo, short))
        rows += asyncio.run(_flat(plain, stack, short))
        if len(servers.CORES) > 1:
            rows += asyncio.run(_spread(work.prepare(Path(folder), "windowed", windowed=True), short))
        return rows + asyncio.run(_crowded(plain, 3.0 if short else 8.0))


async def _carry(plain: work.Work, ours: Server, newer: Server, echo: Server, short: bool) -> list[Row]:
    rows, sides = [], (ours, newer, echo)
    for size, messages in _SIZES.items():
        count, rounds = (messages // 4, 2) if short else (messages, 5)
        spent: dict[str, list[float]] = {server.name: [] for server in sides}
        client: Stream = Stream(wants_open=True)
        loads: dict[str, Load] = {}
        for server in sides:
            client = Echo(await loads[ours.name].answer()) if server is echo else client
            loads[server.name] = Load(client, server.address, 1, size, f"b{size}")
            await loads[server.name].open()
            await loads[server.name].saturate(10)
        for number in range(rounds):
            for server in sides if number % 2 == 0 else reversed(sides):
                began = server.cpu_s()
                await loads[server.name].saturate(count)
                spent[server.name].append((server.cpu_s() - began) / count / size * 1e6)
        for load in loads.values():
            await load.close()
        alone = [_kernels(plain, size, count) for _ in range(rounds)]
        least = [sum(both) for both in zip(spent[echo.name], alone, strict=True)]
        case = f"{size} readings a message"
        rows.append(compared(case, "µs CPU/reading", spent[ours.name], _NEWER, spent[_NEWER]))
        rows.append(compared(case, "µs CPU/reading", spent[ours.name], "echo, floor", spent[echo.name]))
        rows.append(compared(case, "µs CPU/reading", spent[ours.name], "kernels alone, floor", alone))
        rows.append(compared(case, "µs CPU/reading", spent[ours.name], "echo + kernels, floor", least))
    return rows


async def _flat(plain: work.Work, stack: contextlib.ExitStack, short: bool) -> list[Row]:
    """A reading a message, as fast as it is answered, from more and more streams on servers of their own."""
    loads: dict[int, tuple[Server, Load]] = {}
    spent: dict[int, list[float]] = {}
    rows = []
    for count in _STREAM_COUNTS:
        server = stack.enter_context(servers.scorer(plain.pack, name=f"{count} streams"))
        warm, load = (Load(Stream(wants_open=True), server.address, n, 1, f"s{n}") for n in (2, count))
        await warm.open()
        await warm.saturate(_FLAT)
        await warm.close()
        before = server.rss()
        await load.open()
        await load.saturate(2 * count)
        kib = (server.rss() - before) / count / 1024
        rows.append(_goal(f"memory of a stream, streams: {count:,}", kib, "KiB", 64.0))
        loads[count], spent[count] = (server, load), []
    for number in range(3 if short else 7):
        for count in _STREAM_COUNTS if number % 2 == 0 else _STREAM_COUNTS[::-1]:
            server, load = loads[count]
            began = server.cpu_s()
            await load.saturate(_FLAT)
            spent[count].append((server.cpu_s() - began) / (_FLAT // count * count) * 1e6)
    for _, load in loads.values():
        await load.close()
    case = "1 reading a message, streams"
    first, *more = _STREAM_COUNTS
    rows.append(compared(f"{case}: {first}", "µs CPU/reading", spent[first]))
    return rows + [
        compared(f"{case}: {count:,}", "µs CPU/reading", spent[count], f"{first} stream", spent[first])
        for count in more
    ]


async def _spread(usual: work.Work, short: bool) -> list[Row]:
    """Large blocks of the usual day on a server that may use one thread for each, or all cores: wall time, for the
    server is not pinned here, and the client has its share of the cores in both."""
    rows, cores = [], len(servers.CORES)
    with (
        servers.scorer(usual.pack, "--threads", "1", name="one thread", pinned=False) as one,
        servers.scorer(usual.pack, "--threads", str(cores), name=f"{cores} threads", pinned=False) as several,
    ):
        for size, messages in _SPREAD.items():
            loads = {
                s: Load(Stream(wants_open=True), s.address, _SPREAD_STREAMS, size, f"t{size}") for s in (one, several)
            }
            for load in loads.values():
                await load.open()
                await load.saturate(_FULL_S * _SPREAD_STREAMS)
            told = [await load.answers(2) for load in loads.values()]
            harness.require(told[0] == told[1], "threads change no score")
            count = _SPREAD_STREAMS * messages
            wall: dict[Server, list[float]] = {server: [] for server in loads}
            for number in range(2 if short else 7):
                for server in loads if number % 2 == 0 else reversed(loads):
                    wall[server].append(await loads[server].saturate(count) / count / size * 1e6)
            for load in loads.values():
                await load.close()
            case = (
                f"{size:,} readings a message of {usual.features} features, {_SPREAD_STREAMS} streams, {several.name}"
            )
            rows.append(compared(case, "µs wall/reading", wall[several], one.name, wall[one]))
    return rows


class _Crowd:
    """Streams on one server; answers are counted once every stream has had its first."""

    def __init__(self, size: int, seconds: float) -> None:
        self._missing, self._seconds = size, seconds
        self._began, self._began_cpu = time.perf_counter(), time.process_time()
        self.all_in_s = self.client_s = 0.0  # until each had its first answer: time, and CPU of this process
        self.own_s: list[float] = []  # how long each waited for that after its own first message
        self.trips_s: list[float] = []  # round trips once all were in
        self.counts = [0] * size
        self._end = float("inf")
        self.memory = 0  # bytes of the server, for all of them

    async def converse(self, number: int, channel: Any) -> None:
        call = channel.stream_stream(STREAM)()
        began = time.perf_counter()
        await call.write(pb.StreamRequest(open=work.opening(f"crowd-{number}", 1)).SerializeToString())
        await call.read()
        row, sequence = work.values(1, 0), 0
        while time.perf_counter() < self._end:
            sequence += 1
            sent = time.perf_counter()
            await call.write(pb.StreamRequest(readings=work.block(sequence, row, sequence)).SerializeToString())
            harness.require(await call.read() is not grpc.aio.EOF, "a stream lasts")
            now = time.perf_counter()
            if sequence == 1:
                self._served(began, now)
            elif not self._missing:
                self.counts[number] += 1
                self.trips_s.append(now - sent)
        call.cancel()

    def _served(self, began: float, now: float) -> None:
        self._missing -= 1
        self.own_s.append(now - began)
        if not self._missing:
            self._end = now + self._seconds
            self.all_in_s, self.client_s = now - self._began, time.process_time() - self._began_cpu


async def _crowded(plain: work.Work, seconds: float) -> list[Row]:
    """1,000 streams that open at once on a fresh server and never pause; and how long an echo takes to let them in."""
    with servers.echo() as server:
        echo_s = (await _rush(server, 0.1)).all_in_s
    with servers.scorer(plain.pack) as server:
        crowd = await _rush(server, seconds)
    case, answers = f"{_STREAMS} streams", crowd.counts
    median_s, late_s = (float(q) for q in np.quantile(crowd.own_s, (0.5, 0.99)))
    return [
        _goal(f"{case}: until each had an answer", crowd.all_in_s, "s", 1.0),
        compared(f"{case}: until each had an answer", "s", [crowd.all_in_s], "echo on grpc.aio", [echo_s]),
        _goal(f"{case}: first message to first answer, p50", median_s, "s", 1.0),
        _goal(f"{case}: first message to first answer, p99", late_s, "s", 1.0),
        _goal(f"{case}: most ÷ least answers", max(answers) / max(min(answers), 0.1), "×", 2.0),
        _goal(f"{case}: memory of a stream", crowd.memory / _STREAMS / 1024, "KiB", 64.0),
        Row(f"{case}: round trip, p99, all asking at once", float(np.quantile(crowd.trips_s, 0.99)) * 1e3, "ms"),
        Row(f"{case}: answers a second", sum(answers) / seconds, "1/s"),
        Row(f"{case}: CPU of the client until each had an answer", crowd.client_s, "s"),
    ]


async def _rush(server: Server, seconds: float) -> _Crowd:
    """All streams at once, until `seconds` after the last of them had its first answer."""
    alone = [("grpc.use_local_subchannel_pool", 1)]  # a connection for every channel
    channels = [grpc.aio.insecure_channel(server.address, alone) for _ in range(_CONNECTIONS)]
    await asyncio.gather(*(channel.channel_ready() for channel in channels))
    crowd, before = _Crowd(_STREAMS, seconds), server.rss()
    await asyncio.gather(*(crowd.converse(i, channels[i % _CONNECTIONS]) for i in range(_STREAMS)))
    crowd.memory = server.rss() - before
    await asyncio.gather(*(channel.close() for channel in channels))
    return crowd


def _goal(case: str, value: float, unit: str, most: float) -> Row:
    return Row(case, value, unit, f"goal of {most:g} {unit}", most, most / value if value > 0 else None)


def _kernels(plain: work.Work, size: int, blocks: int) -> float:
    """µs of CPU a reading of the block path in this process."""
    fleet = LiveFleet(open_pack(plain.pack, kernels=KERNELS), 1)
    rows = fleet.open_assets("pump", [f"asset-{i}" for i in range(size)])
    values = work.values(size, 0)
    seconds = iter(range(10 + blocks))

    def play() -> None:
        times = np.full(size, work.FIRST_US + next(seconds) * work.SECOND_US)
        fleet.score("pump", rows, times, values, 2**60)

    for _ in range(10):
        play()
    return harness.cpu_seconds(play, blocks) / size * 1e6


@contextlib.contextmanager
def _listener(experiments: str) -> Iterator[None]:
    os.environ["GRPC_EXPERIMENTS"] = experiments
    try:
        yield
    finally:
        del os.environ["GRPC_EXPERIMENTS"]


if __name__ == "__main__":
    harness.main("transport", __doc__ or "", measure)
