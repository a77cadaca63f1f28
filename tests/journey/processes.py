"""Processes of one run, known by a mark in their environment: found, watched and ended by their own ids."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import trips

_MARK = "WHEELTAPPER_TEST_MARK"


class Marked:
    """A command of ours and every process it starts, however deep: they all inherit its mark."""

    def __init__(
        self,
        mark: str,
        *words: object,
        command: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> None:
        """`words`: of wheeltapper, unless another `command` is given; `log`: where its output goes instead of pipes."""
        self.mark = mark
        line = list(command) or [*trips.WHEELTAPPER, *map(str, words), "-o", "json", "--quiet"]
        variables = {**os.environ, **(environment or {}), _MARK: mark}
        out = subprocess.PIPE if log is None else log.open("w")
        error = subprocess.PIPE if log is None else subprocess.STDOUT
        self.process = subprocess.Popen(line, stdout=out, stderr=error, text=True, env=variables)

    def alive(self, said: str = "") -> list[int]:
        """Ids of the processes with the mark whose command line holds `said`."""
        found = []
        for folder in Path("/proc").iterdir():
            if not folder.name.isdecimal():
                continue
            try:
                ours = f"{_MARK}={self.mark}".encode() in (folder / "environ").read_bytes()
                line = (folder / "cmdline").read_bytes().decode(errors="replace")
            except OSError:  # ended meanwhile
                continue
            if ours and line and said in line:
                found.append(int(folder.name))
        return found

    def wait_until(self, there: Callable[[], bool], seconds: float = 200.0) -> None:
        """Wait for a moment of the run; AssertionError where it ends or takes too long before."""
        deadline = time.monotonic() + seconds
        while not there():
            assert self.process.poll() is None, f"ended too early: {self.process.communicate()}"
            assert time.monotonic() < deadline, "waited too long"
            time.sleep(0.02)

    def kill(self, seconds: float = 120.0) -> None:
        """SIGKILL the command alone, and see that nothing it started outlives it."""
        self.process.kill()
        self.process.communicate(timeout=30)
        deadline = time.monotonic() + seconds
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.1)
        left = [_line(pid) for pid in self.alive()]
        self.sweep()
        assert not left, f"outlived their killed driver: {left}"

    def sweep(self) -> None:
        """End whatever is left."""
        for pid in self.alive():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def _line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200]
    except OSError:
        return ""
