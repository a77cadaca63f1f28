"""From the start of `wheeltapper serve` to its first answer, with empty and with warm kernel caches.

`make bench NAME=coldstart`. The empty cache is a folder of its own; `wheeltapper warm` fills another one. The server
has every core; the fleet is the one of `serving`, 352 features. Loads of the machine show in wall time: CPU time of the
start is printed beside it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks import harness
from benchmarks.harness import Row, compared
from benchmarks.serve import servers, work
from benchmarks.serve.clients import Client, Json, Stream
from benchmarks.serve.servers import Server

_EMPTY_S_MAX, _WARM_S_MAX = 30.0, 5.0


def measure(short: bool) -> list[Row]:
    rounds = 1 if short else 3
    with tempfile.TemporaryDirectory() as work_folder:
        folder = Path(work_folder)
        plain = work.prepare(folder, "plain", windowed=False)
        full = work.prepare(folder, "full", windowed=True)
        warmed = folder / "warm"
        made = _warm(warmed)
        warm, warm_cpu, theirs = [], [], []
        for _ in range(rounds):
            seconds, cpu_s = _first_answer(full.pack, warmed)
            warm.append(seconds)
            warm_cpu.append(cpu_s)
            theirs.append(_peers_first_answer(plain.model))
        rows = [
            compared("warm cache: start to first answer", "s", warm, "FastAPI + Booster", theirs),
            compared("warm cache: goal", "s", warm, f"goal of {_WARM_S_MAX:g} s", [_WARM_S_MAX]),
            compared("warm cache: CPU of the start", "s", warm_cpu),
            Row("wheeltapper warm, empty cache", made["seconds"], "s"),
            Row("wheeltapper warm, what it leaves", made["bytes"] / 1e6, "MB"),
        ]
        if not short:
            seconds, cpu_s = _first_answer(full.pack, folder / "empty")
            rows += [
                compared(
                    "empty cache: start to first answer", "s", [seconds], f"goal of {_EMPTY_S_MAX:g} s", [_EMPTY_S_MAX]
                ),
                compared("empty cache: CPU of the start", "s", [cpu_s]),
            ]
    return rows


def _warm(cache: Path) -> dict[str, float]:
    words = [sys.executable, "-m", "wheeltapper_command", "warm", "--cache", str(cache), "-o", "json"]
    found: dict[str, float] = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    return found


def _first_answer(pack: Path, cache: Path) -> tuple[float, float]:
    """(wall seconds from the start to the first answer, CPU seconds of the server until then)."""
    began = time.monotonic()
    with servers.scorer(pack, "--cache", str(cache), pinned=False) as server:
        asyncio.run(_ask_once(Stream(wants_open=True), server))
        return time.monotonic() - began, server.cpu_s()


def _peers_first_answer(model: Path) -> float:
    began = time.monotonic()
    with servers.peer("fastapi", model, pinned=False) as server:
        asyncio.run(_ask_once(Json(), server))
        return time.monotonic() - began


async def _ask_once(client: Client, server: Server) -> None:
    async with AsyncExitStack() as stack:
        ask = await client.connect(stack, server.address, work.opening("gateway", 1))
        scores = client.scores(await ask(client.encode(work.block(1, work.values(1, 0), 0))))
        harness.require(len(scores) == 1, "one reading has one score")


if __name__ == "__main__":
    harness.main("coldstart", __doc__ or "", measure)
