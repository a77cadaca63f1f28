"""Whole trips by the command line alone, as an engineer or a gateway would make them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DATA = Path(os.environ.get("WHEELTAPPER_DATA", Path(__file__).parents[3] / "shared" / "data"))
WHEELTAPPER = (sys.executable, "-m", "wheeltapper_command")


def wheeltapper(
    *words: object, code: int = 0, command: tuple[str, ...] = WHEELTAPPER, seconds: float = 280
) -> dict[str, Any]:
    """Run one command with -o json and return its one object; `code` is the exit code it must have."""
    line = [*command, *map(str, words), "-o", "json", "--quiet"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == code, f"{' '.join(line)}\nexit {done.returncode}, expected {code}\n{done.stderr[-4000:]}"
    assert done.stdout.count("\n") == 1, done.stdout
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def lighter(fleet: Path, rounds: int) -> None:
    """Fewer trees: these trips prove sameness, not skill."""
    text = re.sub(r"(?m)^rounds = \d+$", f"rounds = {rounds}", fleet.read_text())
    fleet.write_text(text)


def to_production(registry: Path, release: int) -> None:
    for stage in ("qa", "production"):
        reason = ("--by", "a test", "--why", "the trip goes on", "--override", "a light fleet passes no gate")
        wheeltapper("release", "promote", release, "--to", stage, "--registry", registry, *reason)


@contextmanager
def serving(registry: Path, command: tuple[str, ...] = WHEELTAPPER) -> Iterator[str]:
    """The address of a scorer that serves production; stopped by its own process id."""
    words = [*command, "serve", "--registry", str(registry), "--stage", "production", "--listen", "127.0.0.1:0"]
    process = subprocess.Popen([*words, "-o", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise AssertionError(process.communicate(timeout=10)[1])
        yield str(json.loads(line)["listening"])
    finally:
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=25)
    assert process.returncode == 0, log
