"""CPU time of a server for each reading that it answers, and its latency at half load: `make bench NAME=serving`.

Everyone answers with the same XGBoost forest (100 trees of depth 6) for the same 16 values; see serve/work.py. Servers
run on one core, clients on the other. In flight: so many conversations, each one message at a time. MLServer, BentoML
and Ray Serve run in environments of their own (serve/environments.py), in the full form only; one that cannot be had
here is named with the reason.

Latency is that of everyone at half of what it can answer itself, so the scorer is asked most; beside it the scorer at
the load of grpcio's stream, and an echo on grpc.aio at both loads: what the same messages take that nobody looks at.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xgboost
from wheeltapper.features import KERNELS
from wheeltapper.live import LiveFleet
from wheeltapper.pack import open_pack

from benchmarks import harness
from benchmarks.harness import Row, compared
from benchmarks.serve import environments, servers, work
from benchmarks.serve.clients import Client, Echo, Json, Load, Stream, Unary
from benchmarks.serve.environments import AbsentError
from benchmarks.serve.open_inference import OpenInference
from benchmarks.serve.servers import Server

OURS = "wheeltapper"
WINDOWED = "wheeltapper, 352 features"
STREAMED = "grpcio aio stream + Booster"
_TRANSPORTS: dict[str, tuple[str, type[Client] | None]] = {
    STREAMED: ("grpc-aio", None),
    "grpcio aio unary + Booster": ("grpc-aio", Unary),
    "grpcio sync unary + Booster": ("grpc-sync", Unary),
    "FastAPI + orjson + Booster": ("fastapi", Json),
    "MLServer, gRPC + Booster": ("mlserver", OpenInference),
    "BentoML, HTTP + Booster": ("bentoml", Json),
    "Ray Serve, gRPC + Booster": ("rayserve", Unary),
}
_CASES = {"1 reading, 1 in flight": (1, 1), "1 reading, 8 in flight": (8, 1), "256 readings, 1 in flight": (1, 256)}
_ECHO, _SLOWER = "echo on grpc.aio, floor", ", at grpcio's load"
_LATENCY_ROUNDS = 3
_FAST, _SLOW, _SLOWEST = 1200, 300, 80  # messages of a sample


@dataclass
class Side:
    name: str
    server: Server
    loads: dict[str, Load]


def measure(short: bool) -> list[Row]:
    servers.pin_client()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        plain = work.prepare(Path(folder), "plain", windowed=False)
        windowed = work.prepare(Path(folder), "windowed", windowed=True)
        started = {
            OURS: stack.enter_context(servers.scorer(plain.pack)),
            WINDOWED: stack.enter_context(servers.scorer(windowed.pack)),
        }
        kinds: dict[str, Server] = {}
        for name, (kind, _) in _TRANSPORTS.items():
            if short and kind in environments.KINDS:
                continue  # half a gigabyte to fetch, and a minute to start
            try:
                kinds[kind] = kinds.get(kind) or stack.enter_context(servers.peer(kind, plain.model))
            except AbsentError as why:
                sys.stderr.write(f"without {name}: {why}\n")
            else:
                started[name] = kinds[kind]
        echo = stack.enter_context(servers.echo())
        return asyncio.run(_compare(started, echo, plain, windowed, short))


async def _compare(
    started: dict[str, Server], echo: Server, plain: work.Work, windowed: work.Work, short: bool
) -> list[Row]:
    sides = [await _side(name, server) for name, server in started.items()]
    expected = xgboost.Booster(model_file=plain.model).inplace_predict(work.values(256, 0))
    for side in sides:
        found = await side.loads["256 readings, 1 in flight"].answers(1)
        if side.name != WINDOWED:
            harness.require(bool(np.allclose(found, expected, atol=1e-6)), f"{side.name} answers what XGBoost says")
        await _fill(side)
    rows: list[Row] = []
    for case, (_, size) in _CASES.items():
        spent = await _cpu(sides, case, size, 2 if short else 5, 4 if short else 1)
        ours = spent[OURS]
        rows += [compared(case, "µs CPU/reading", ours, name, spent[name]) for name in _peers(started)]
        rows.append(compared(f"{case}, 352 features", "µs CPU/reading", spent[WINDOWED]))
        if size == 256:
            for name, one in ((OURS, plain), (WINDOWED, windowed)):
                alone = [_kernels(one, 256, 20 if short else 100) for _ in range(3)]
                rows.append(
                    compared(f"{case}, of {name}", "µs CPU/reading", spent[name], "kernels alone, floor", alone)
                )
        if case != "1 reading, 1 in flight":
            rows += await _latency(sides, echo, case, {n: min(s) * size for n, s in spent.items()}, short)
    for side in sides:
        for load in side.loads.values():
            await load.close()
    return rows


async def _side(name: str, server: Server) -> Side:
    client_type = _TRANSPORTS[name][1] if name in _TRANSPORTS else None
    client = client_type() if client_type else Stream(wants_open=name not in _TRANSPORTS)
    loads = {}
    for case, (conversations, rows) in _CASES.items():
        loads[case] = Load(client, server.address, conversations, rows, case.replace(" ", ""))
        await loads[case].open()
    return Side(name, server, loads)


async def _fill(side: Side) -> None:
    """Everyone is warm, and the windows are full."""
    for case, (conversations, _) in _CASES.items():
        await side.loads[case].saturate(conversations * (380 if side.name == WINDOWED else 20))


async def _cpu(sides: list[Side], case: str, size: int, rounds: int, divide: int) -> dict[str, list[float]]:
    """µs of CPU per reading, `rounds` samples for everyone in turn."""
    spent: dict[str, list[float]] = {side.name: [] for side in sides}
    for number in range(rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            count = _messages(side.name, size) // divide
            began = side.server.cpu_s()
            await side.loads[case].saturate(count)
            conversations = _CASES[case][0]
            readings = max(1, count // conversations) * conversations * size
            spent[side.name].append((side.server.cpu_s() - began) / readings * 1e6)
    return spent


def _messages(name: str, size: int) -> int:
    """Of a sample, which should take about as long for everyone."""
    if name in _TRANSPORTS and _TRANSPORTS[name][0] in environments.KINDS:
        return _SLOWEST
    return _FAST // 4 if size > 1 else _FAST if name not in _TRANSPORTS else _SLOW


def _peers(names: Iterable[str]) -> list[str]:
    return [name for name in names if name in _TRANSPORTS]


async def _latency(sides: list[Side], echo: Server, case: str, message_us: dict[str, float], short: bool) -> list[Row]:
    """p50, p99 and how much of its core the server needs, medians of rounds with everyone in turn, at half of what one
    core can answer: its own, and what the grpcio stream's can."""
    conversations, size = _CASES[case]
    by_name = {side.name: (side.loads[case], side.server, 0.5e6 / message_us[side.name]) for side in sides}
    ours, server, most_per_s = by_name[OURS]
    echoed = Load(Echo(await ours.answer()), echo.address, conversations, size, "echo")
    await echoed.open()
    *_, per_s = by_name[STREAMED]
    plan = by_name | {
        _ECHO: (echoed, echo, most_per_s),
        OURS + _SLOWER: (ours, server, per_s),
        _ECHO + _SLOWER: (echoed, echo, per_s),
    }
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in plan}
    for number in range(_LATENCY_ROUNDS):
        for name in plan if number % 2 == 0 else reversed(plan):
            load, asked, rate = plan[name]
            began = asked.cpu_s()
            trips = await load.paced(rate, 0.35 if short else 1.5)
            cores = (asked.cpu_s() - began) / len(trips) * rate
            p50, p99 = np.quantile(trips, (0.5, 0.99)) * 1e6
            found[name].append((float(p50), float(p99), cores))
    await echoed.close()
    rows = []
    for i, (kind, unit) in enumerate((("p50", "µs"), ("p99", "µs"), ("CPU of the server", "cores"))):
        of = {name: [one[i] for one in rounds] for name, rounds in found.items()}
        high, low = f"{case}, {kind} at half load", f"{case}, {kind} at grpcio's half load"
        rows += [compared(high, unit, of[OURS], name, of[name]) for name in (*_peers(of), _ECHO)]
        rows.append(compared(low, unit, of[OURS + _SLOWER], STREAMED, of[STREAMED]))
        rows.append(compared(low, unit, of[OURS + _SLOWER], _ECHO, of[_ECHO + _SLOWER]))
    return rows


def _kernels(one: work.Work, rows: int, blocks: int) -> float:
    """µs of CPU per reading of the block path alone, in this process, windows full."""
    fleet = LiveFleet(open_pack(one.pack, kernels=KERNELS), 1)
    handles = fleet.open_assets("pump", [f"asset-{i}" for i in range(rows)])
    values = work.values(rows, 0)

    def play(first: int, count: int) -> None:
        for second in range(first, first + count):
            times = np.full(rows, work.FIRST_US + second * work.SECOND_US)
            fleet.score("pump", handles, times, values, 2**60)

    play(0, 400)
    return harness.cpu_seconds(lambda: play(400, blocks)) / blocks / rows * 1e6


if __name__ == "__main__":
    harness.main("serving", __doc__ or "", measure)
