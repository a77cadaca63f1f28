"""Servers as processes of their own, pinned to the last core, and the CPU time that they have used."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CORES = sorted(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True)
class Server:
    """One that listens."""

    name: str
    address: str
    started_s: float  # from the start of the process to its first line
    pid: int

    def cpu_s(self) -> float:
        """CPU time of its threads, to the nanosecond; none of these servers ends a thread while it is measured."""
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def rss(self) -> int:
        """Bytes of memory in use."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def scorer(pack: Path, *more: str, name: str = "wheeltapper", pinned: bool = True) -> Iterator[Server]:
    """`wheeltapper serve` as it comes."""
    words = [sys.executable, "-m", "wheeltapper_command", "serve", "--pack", str(pack), "--listen", "127.0.0.1:0"]
    with _running(name, [*words, "-o", "json", *more], pinned) as (process, line, seconds):
        yield Server(name, json.loads(line)["listening"], seconds, process.pid)


@contextlib.contextmanager
def peer(kind: str, model: Path, pinned: bool = True) -> Iterator[Server]:
    """One of `benchmarks.serve.peers`."""
    words = [sys.executable, "-m", "benchmarks.serve.peers", kind, str(model)]
    with _running(kind, words, pinned) as (process, line, seconds):
        yield Server(kind, f"127.0.0.1:{int(line)}", seconds, process.pid)


def pin_client() -> None:
    """This process keeps off the servers' core."""
    os.sched_setaffinity(0, set(CORES[:-1] or CORES))


@contextlib.contextmanager
def _running(name: str, words: Sequence[str], pinned: bool) -> Iterator[tuple[subprocess.Popen[str], str, float]]:
    with tempfile.TemporaryFile("w+") as log:
        began = time.monotonic()
        with _on({CORES[-1]} if pinned else set(CORES)):  # a child inherits it, with every thread that it starts
            process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                log.seek(0)
                raise SystemExit(f"{name} did not start:\n{log.read()}")
            yield process, line, time.monotonic() - began
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def _on(cores: set[int]) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
