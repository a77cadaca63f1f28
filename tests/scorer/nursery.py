"""Real scorer processes in a fraction of a second each: one process imports and compiles, and forks a scorer on demand.

Run as `python nursery.py REGISTRY STATE PORT`. Each line on stdin is JSON {"step", "at", "after"}: a scorer is forked
that kills itself with SIGKILL at the `at`-th disk step of that name ("" never), before or after it; its pid is the
answer. The scorer's own line follows once it listens.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from wheeltapper.live import LiveFleet
from wheeltapper.registry import Registry
from wheeltapper_scorer import logs
from wheeltapper_scorer.disk import File, Folder
from wheeltapper_scorer.reload import Stage
from wheeltapper_scorer.server import serve
from wheeltapper_scorer.settings import Settings

STEPS = ("append", "sync", "create", "rename", "remove")
SEGMENT_BYTES = 8_192  # small, so that segments and snapshots end and begin all the time


class Mortal(Folder):
    """A disk that kills its process at one named step."""

    def __init__(self, path: Path, step: str, at: int, after: bool) -> None:
        super().__init__(path)
        self._step, self._left, self._after = step, at, after

    def create(self, name: str) -> File:
        with self.fate("create"):
            return MortalFile(super().create(name), self)

    def rename(self, old: str, new: str) -> None:
        with self.fate("rename"):
            super().rename(old, new)

    def remove(self, name: str) -> None:
        with self.fate("remove"):
            super().remove(name)

    def fate(self, step: str) -> Fate:
        self._left -= step == self._step
        return Fate(step == self._step and self._left == 0, self._after)


class Fate:
    def __init__(self, dies: bool, after: bool) -> None:
        self._before, self._after = dies and not after, dies and after

    def __enter__(self) -> None:
        if self._before:
            os.kill(os.getpid(), signal.SIGKILL)

    def __exit__(self, *_: object) -> None:
        if self._after:
            os.kill(os.getpid(), signal.SIGKILL)


class MortalFile:
    def __init__(self, file: File, disk: Mortal) -> None:
        self._file, self._disk = file, disk

    def append(self, parts: Sequence[bytes]) -> None:
        with self._disk.fate("append"):
            self._file.append(parts)

    def sync(self) -> None:
        with self._disk.fate("sync"):
            self._file.sync()

    def close(self) -> None:
        self._file.close()


def bear(registry: Path, state: Path, port: int, fate: dict) -> None:
    """Be a scorer, until something ends it."""
    os.dup2(os.open(registry.parent / "serve.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    logs.to_stderr()
    settings = Settings(listen=f"127.0.0.1:{port}", state=state, segment_bytes_max=SEGMENT_BYTES)

    def ready(address: str, release: int) -> None:
        print(json.dumps({"listening": address}), flush=True)

    serve(settings, Stage(Registry(registry), "production"), ready, Mortal(state, **fate))


def die_with(nursery: int) -> None:
    """Whoever would have ended this scorer may have been killed itself."""
    while os.getppid() == nursery:
        time.sleep(1)
    os._exit(1)


def main() -> None:
    registry, state, port = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    LiveFleet(Stage(Registry(registry), "production").load().pack, 0).warm()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the dead
    for line in sys.stdin:
        nursery = os.getpid()
        if os.fork() == 0:
            threading.Thread(target=die_with, args=(nursery,), daemon=True).start()
            os.write(sys.stdout.fileno(), f"{os.getpid()}\n".encode())  # here, so that it comes before all it says
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            code = 1
            try:
                bear(registry, state, port, json.loads(line))
                code = 0
            finally:
                os._exit(code)


class Nursery:
    """The other end: scorers on one port and one state folder, one at a time."""

    def __init__(self, registry: Path, state: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        words = [sys.executable, __file__, str(registry), str(state), str(self.port)]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self.address = f"127.0.0.1:{self.port}"
        self._pid = 0

    def begin(self, step: str = "", at: int = 0, after: bool = False) -> bool:
        """Fork a scorer. Whether it came to listen: one that dies in its recovery does not."""
        self.kill()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"step": step, "at": at, "after": after}).encode() + b"\n")
        self._pid = int(self._process.stdout.readline())
        return self._heard_listening()

    def _heard_listening(self) -> bool:
        import select

        stdout = self._process.stdout
        while self.alive:
            if select.select([stdout], [], [], 0.05)[0]:
                return b"listening" in stdout.readline()
        return bool(select.select([stdout], [], [], 0.0)[0]) and b"listening" in stdout.readline()

    @property
    def alive(self) -> bool:
        try:
            os.kill(self._pid, 0)
        except ProcessLookupError:
            return False
        return self._pid > 0

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self._pid and self.alive:
            os.kill(self._pid, number)
        while self._pid and self.alive:
            pass
        self._pid = 0

    def close(self) -> None:
        self.kill()
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


if __name__ == "__main__":
    main()
