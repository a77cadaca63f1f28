"""A site's program that is killed at any moment, and what it leaves: a spool, how many readings it has sent, and every
answer that its sink was handed. One process imports, and forks a program on demand.

Run as `python sender.py HOST:PORT FOLDER SEED`. Each line on stdin is JSON {"until", "step", "at", "after"}: a program
sends readings up to number `until` and ends once all are settled, or kills itself with SIGKILL at the `at`-th step of
that name ("" never), before or after it. Its pid is the answer, then "open", then "ended" and how it did, of one killed
the negative signal. Any line lets the pid go.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wheeltapper_gateway import Settings, gateway, link
from wheeltapper_gateway.conversation import Conversation
from wheeltapper_gateway.delivery import Delivery
from wheeltapper_gateway.spool import Spool

MINUTE_US = 60_000_000
T0 = 1_700_000_040 * 1_000_000
SENSORS = ("force", "heat", "oil")
ASSETS = ("s-1", "s-2", "s-3")
BATCH_ROWS, IN_FLIGHT_BLOCKS_MAX = 8, 8
STEPS = {  # each is met before it and after it; of a transaction, before and after its COMMIT
    "keep readings": 100,
    "seal a block": 12,
    "message": 12,  # an Open or a block is handed to gRPC
    "sink": 12,
    "settle blocks": 8,
}


def row(number: int, seed: int) -> tuple[str, int, tuple[float, ...]]:
    """Reading `number` of all: assets in turn, a minute apart; of two minutes now and then the later one first."""
    minute, asset = divmod(number, len(ASSETS))
    if random.Random(seed * 1_000_003 + minute // 2).random() < 0.2:
        minute ^= 1
    rng = random.Random(seed * 1_000_003 + minute * len(ASSETS) + asset)
    return ASSETS[asset], T0 + minute * MINUTE_US, tuple(rng.uniform(0, 100) for _ in SENSORS)


class Fate:
    def __init__(self, step: str, at: int, after: bool) -> None:
        self._step, self._left, self._after = step, at, after

    @contextmanager
    def of(self, step: str) -> Iterator[None]:
        self._left -= step == self._step
        dies = step == self._step and self._left == 0
        if dies and not self._after:
            os.kill(os.getpid(), signal.SIGKILL)
        yield
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)


def make_mortal(fate: Fate) -> None:
    class MortalSpool(Spool):
        @contextmanager
        def _transaction(self, purpose: str) -> Iterator[None]:
            met = fate.of(purpose)
            with super()._transaction(purpose):
                yield
                met.__enter__()  # the COMMIT is next
            met.__exit__(None, None, None)

    class MortalConversation(Conversation):
        def _next(self) -> bytes | None:
            message = super()._next()
            with fate.of("message" if message else ""):
                return message

    gateway.Spool, link.Conversation = MortalSpool, MortalConversation


def live(address: str, folder: Path, seed: int, until: int, fate: Fate) -> bool:
    """Be a program, until something ends it. Whether all that it sent is settled."""
    make_mortal(fate)
    note = os.open(folder / "note", os.O_RDWR | os.O_CREAT)
    heard = os.open(folder / "heard", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(heard, b'"begins"\n')

    def sink(delivery: Delivery) -> None:
        scores = delivery.scores
        shown = scores.status, scores.values, scores.levels, scores.alarms, scores.health, scores.features
        rows = list(zip(delivery.assets, scores.times, strict=True))
        told = [delivery.revision, scores.sequence, rows, *(bytes(column).hex() for column in shown)]
        with fate.of("sink"):
            os.write(heard, json.dumps(told).encode() + b"\n")

    settings = Settings(
        batch_rows=BATCH_ROWS,
        in_flight_blocks_max=IN_FLIGHT_BLOCKS_MAX,
        durable=True,
        want_features=True,
        backoff_seconds=0.02,
        backoff_seconds_max=0.1,
        live_seconds=3_600,
    )
    with gateway.Gateway(address, name="site", asset_class="press", sensors=SENSORS, assets=ASSETS,
                         spool=folder / "spool", settings=settings, sink=sink) as site:  # fmt: skip
        print("open", flush=True)
        for number in range(int.from_bytes(os.pread(note, 8, 0), "little"), until):
            site.send(*row(number, seed))
            os.pwrite(note, (number + 1).to_bytes(8, "little"), 0)  # killed before this, it sends the row twice
        return site.flush(60)


def main() -> None:
    address, folder, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                print(os.getpid(), flush=True)
                until = order.pop("until")
                code = not live(address, folder, seed, until, Fate(**order))
            finally:
                os._exit(code)
        end = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        assert end is not None
        print("ended", end.si_status if end.si_code == os.CLD_EXITED else -end.si_status, flush=True)
        sys.stdin.readline()  # until then the pid is nobody else's
        os.waitpid(child, 0)


class Site:
    """The other end: programs one after the other."""

    def __init__(self, address: str, folder: Path, seed: int) -> None:
        words = [sys.executable, __file__, address, str(folder), str(seed)]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._pid = 0

    def begin(self, until: int, step: str = "", at: int = 0, after: bool = False) -> None:
        self._say(json.dumps({"until": until, "step": step, "at": at, "after": after}))
        self._pid = int(self._line())

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)

    def ended(self) -> int:
        """Its exit code, of one killed the negative signal."""
        while not (line := self._line()).startswith("ended"):
            assert line == "open"
        self._say("")
        return int(line.split()[1])

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait(10)

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the sender is gone"
        return line.strip()


if __name__ == "__main__":
    main()
