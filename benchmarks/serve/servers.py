"""Servers as processes of their own, pinned to the last core, and the CPU time that they have used.

Each may have processes under it: their time counts, and they end with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serve import environments

CORES = sorted(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True)
class Server:
    """One that listens."""

    name: str
    address: str
    started_s: float  # from the start of the process to its first line
    pid: int

    def cpu_s(self) -> float:
        """CPU time of the threads of all its processes, to the nanosecond. None of these servers ends a thread that it
        works with while it is measured."""
        return sum(_thread_s(task) for pid in _family(self.pid) for task in _entries(f"/proc/{pid}/task"))

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
    """One of `benchmarks.serve.peers`, or one in an environment of its own: AbsentError where that fails."""
    words = [sys.executable, "-m", "benchmarks.serve.peers", kind, str(model)]
    is_guest = kind in environments.KINDS
    if is_guest:
        words = [str(environments.interpreter(kind)), "-m", f"benchmarks.serve.{kind}_peer", str(model)]
    with _running(kind, words, pinned and not is_guest) as (process, line, seconds):
        if pinned and is_guest:  # to start half a dozen processes on one core would take minutes
            _pin(process.pid)
        yield Server(kind, f"127.0.0.1:{int(line)}", seconds, process.pid)


@contextlib.contextmanager
def echo() -> Iterator[Server]:
    """`benchmarks.serve.echo`: what a message takes that nobody looks at."""
    with _running("echo", [sys.executable, "-m", "benchmarks.serve.echo"], pinned=True) as (process, line, seconds):
        yield Server("echo", f"127.0.0.1:{int(line)}", seconds, process.pid)


def pin_client() -> None:
    """This process keeps off the servers' core."""
    os.sched_setaffinity(0, set(CORES[:-1] or CORES))


@contextlib.contextmanager
def _running(name: str, words: Sequence[str], pinned: bool) -> Iterator[tuple[subprocess.Popen[str], str, float]]:
    with tempfile.TemporaryFile("w+") as log:
        began = time.monotonic()
        with _on({CORES[-1]} if pinned else set(CORES)):  # a child inherits it, with every thread that it starts
            process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True, env=_environment())
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                log.seek(0)
                text = f"{name} did not start:\n{log.read()}"
                raise environments.AbsentError(text) if name in environments.KINDS else SystemExit(text)
            yield process, line, time.monotonic() - began
        finally:
            family = _family(process.pid)
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for pid in family:
                with contextlib.suppress(ProcessLookupError):  # most have ended with the first
                    os.kill(pid, signal.SIGKILL)


def _pin(pid: int) -> None:
    """Put every thread of a process, and of those under it, on the last core; what they start follows them."""
    for task in [task for one in _family(pid) for task in _entries(f"/proc/{one}/task")]:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.sched_setaffinity(int(task.name), {CORES[-1]})


def _environment() -> dict[str, str]:
    """Modules are found from any environment: those of the benchmarks, and the contract's stubs."""
    paths = [str(environments.ROOT), str(environments.ROOT / "proto"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def _family(pid: int) -> list[int]:
    """A process and all under it."""
    under: dict[int, list[int]] = {}
    for entry in _entries("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it has just ended
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                under.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for one in found:  # which grows meanwhile
        found += under.get(one, [])
    return found


def _entries(folder: str) -> list[Path]:
    try:
        return list(Path(folder).iterdir())
    except OSError:  # its process has just ended
        return []


def _thread_s(task: Path) -> float:
    try:
        return int((task / "schedstat").read_text().split()[0]) / 1e9
    except OSError:  # it has just ended
        return 0.0


@contextlib.contextmanager
def _on(cores: set[int]) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
