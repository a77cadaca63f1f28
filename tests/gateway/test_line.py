"""A durable gateway and a real scorer with a journal, and between them a line that fails in every way a line can."""

from __future__ import annotations

import gc
import itertools
import random
import threading
import time
import weakref
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from growth import Growth
from presses import MINUTE_US, content
from proxy import Proxy
from serving import Running, promote, run_server
from told import Told, undisturbed
from wheeltapper.features import KERNELS
from wheeltapper.live import LiveFleet
from wheeltapper.pack import Pack, write_pack
from wheeltapper.registry import Registry
from wheeltapper_gateway import Gateway, Settings
from wheeltapper_gateway.settings import Clock
from wheeltapper_gateway.spool import SpoolError
from wheeltapper_proto import scoring_pb2 as pb

T0 = 1_700_000_040 * 1_000_000
SENSORS = ("force", "heat", "oil")
PATIENCE = {"backoff_seconds": 0.02, "backoff_seconds_max": 0.1, "answer_timeout_seconds": 0.5, "durable": True}


@pytest.fixture(scope="module")
def scorer_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("line")
    made = Registry(folder / "registry")
    made.publish(write_pack(content(1)), who="a test", why="first")
    promote(made, 1)
    with run_server(made.path, "--state", str(folder / "state"), "--segment-bytes", "16384") as running:
        yield running


@pytest.fixture
def line(scorer_process: Running) -> Iterator[Proxy]:
    proxy = Proxy(scorer_process.address)
    yield proxy
    proxy.close()


def test_cuts_delays_and_half_open_lines_lose_no_answer_and_no_revision(line: Proxy, tmp_path: Path) -> None:
    """Eight blocks in flight, so that rows are behind the lateness when a cut line brings them again: every answer and
    every revision is told once, and is the one of an undisturbed line."""
    rng, told = random.Random(4), Told()
    readings = {
        (asset, T0 + m * MINUTE_US): tuple(float(np.float32(rng.uniform(0, 100))) for _ in SENSORS)
        for m in range(300)
        for asset in ("cut-1", "cut-2")
    }
    order = sorted(readings, key=lambda row: row[1] + (rng.randrange(3) * MINUTE_US if rng.random() < 0.2 else 0))
    settings = Settings(batch_rows=4, in_flight_blocks_max=8, want_features=True, **PATIENCE)
    with Gateway(line.address, name="cut", asset_class="press", sensors=SENSORS, assets=["cut-1", "cut-2"],
                 spool=tmp_path / "s", settings=settings, sink=told.take) as gateway:  # fmt: skip
        for i, row in enumerate(order):
            gateway.send(*row, readings[row])
            if i % 60 == 30:
                line.delay_seconds = rng.choice((0.0, 0.002))
                line.cut()
            if i % 200 == 150:
                assert gateway.flush(20), gateway.failure  # the line is up: what follows is sent, and swallowed
                line.swallowing = True
            if i % 200 == 170:
                time.sleep(0.3)
                line.swallowing = False
                line.cut()
        line.delay_seconds = 0.0
        assert gateway.flush(60), gateway.failure
        counters = gateway.counters
    assert counters.answered_rows == len(order)
    assert counters.reconnects >= 5
    assert sorted(row for block in told.blocks for row in block) == sorted(order)
    assert told.sequences == list(range(1, len(told.blocks) + 1))
    fleet = LiveFleet(Pack.from_bytes(write_pack(content(1)), KERNELS), 1)
    assert told.answers == undisturbed(fleet, "press", readings, told.blocks)
    assert counters.revised_rows > 0
    assert counters.resent_rows > 0


def withered() -> int:
    """Dead references to cursors: Python's sqlite3 sweeps them away with every two hundredth cursor."""
    gc.collect()
    return sum(type(found) is weakref.ref and found() is None for found in gc.get_objects())


def test_a_line_that_breaks_for_ever_leaves_nothing(line: Proxy, tmp_path: Path) -> None:
    """Cut behind each answer, with a block in flight, or taken up by nobody: what a gateway holds does not grow."""
    times, sent = 40, itertools.count()
    settings = Settings(**{**PATIENCE, "backoff_seconds": 0.001, "backoff_seconds_max": 0.002})
    with Gateway(line.address, name="worn", asset_class="press", sensors=SENSORS, assets=["worn"],
                 spool=tmp_path / "s", settings=settings, sink=lambda _: None) as gateway:  # fmt: skip

        def send() -> None:
            gateway.send("worn", T0 + next(sent) * MINUTE_US, [1.0, 2.0, 3.0])

        def until(true: Callable[[], bool]) -> None:
            deadline = time.monotonic() + 20
            while not true():
                assert time.monotonic() < deadline, (line.connections, threading.enumerate())
                time.sleep(0.001)

        def wear(cuts: int) -> None:
            for number in range(cuts):
                send()
                assert number % 3 or gateway.flush(20), gateway.failure
                line.refusing, connections = number % 3 == 1, line.connections
                line.cut()
                until(lambda before=connections: not line.refusing or line.connections >= before + 2)
            line.refusing = False
            send()
            assert gateway.flush(20), gateway.failure
            until(lambda: threading.active_count() <= threads)  # gRPC's own end a moment after a call has
            time.sleep(0.2)  # and are forgotten a moment after that

        send()
        assert gateway.flush(20), gateway.failure
        threads = threading.active_count()
        wear(20)
        for _ in range(3):  # what is left behind grows every time; gRPC's threads that are under way do not
            swept = withered()
            with Growth() as growth:
                wear(times)
            grown = growth.objects - (withered() - swept)
            if grown < times / 2:
                break
        assert gateway.counters.reconnects > times
    assert grown < times / 2


class HandClock(Clock):
    """Time that passes by hand; waiting is real."""

    def __init__(self) -> None:
        self.now_us = T0

    def time_us(self) -> int:
        return self.now_us

    def monotonic(self) -> float:
        return time.monotonic() + (self.now_us - T0) / 1e6


def test_an_outage_of_a_day(line: Proxy, tmp_path: Path) -> None:
    """Backlog drains in order, live readings go first, and what is old raises no alarm."""
    told, clock, hot = Told(), HandClock(), (99.0, 0.0, 0.0)
    settings = Settings(batch_rows=256, in_flight_blocks_max=1, **PATIENCE)
    line.refusing = True
    line.cut()
    with Gateway(line.address, name="day", asset_class="press", sensors=SENSORS, assets=["day-old", "day-live"],
                 spool=tmp_path / "s", settings=settings, sink=told.take, clock=clock) as gateway:  # fmt: skip
        old = gateway.numbers(["day-old"])
        for minute in range(24 * 60):
            clock.now_us = T0 + minute * MINUTE_US
            gateway.send_columns(old, array("q", [clock.now_us]), array("f", hot))
        clock.now_us += 2 * MINUTE_US
        gateway.send("day-live", clock.now_us, hot)
        line.refusing = False
        assert gateway.flush(60), gateway.failure
        assert gateway.counters.dropped_rows == 0
    assert told.blocks[0] == [("day-live", clock.now_us)]
    drained = [row for block in told.blocks[1:] for row in block]
    assert drained == [("day-old", T0 + minute * MINUTE_US) for minute in range(24 * 60)]
    alarms = {asset: set[int]() for asset, _ in (drained[0], told.blocks[0][0])}
    for _, rows, *_, shown, _health, _features in told.answers:
        width = len(shown) // len(rows)
        for i, (asset, _) in enumerate(rows):
            alarms[asset].update(shown[i * width : (i + 1) * width])
    assert alarms["day-old"] == {pb.ALARM_STATE_NONE}
    assert pb.ALARM_STATE_RAISED in alarms["day-live"]  # the same reading, live


def test_a_full_disk_is_said(line: Proxy, tmp_path: Path) -> None:
    """`send` raises and keeps nothing of its call, though there is room for some; what was kept before is delivered,
    and readings are taken again once there is space."""
    with Gateway(line.address, name="full", asset_class="press", sensors=SENSORS, assets=["full"],
                 spool=tmp_path / "s", settings=Settings(**PATIENCE)) as gateway:  # fmt: skip
        gateway.send("full", T0, [1.0, 2.0, 3.0])
        database = gateway._spool._database
        pages = database.execute("PRAGMA page_count").fetchone()[0]
        database.execute(f"PRAGMA max_page_count = {pages + 8}")
        with pytest.raises(SpoolError, match="full"):
            gateway.send_columns(
                gateway.numbers(["full"] * 4000), array("q", range(T0, T0 + 4000)), array("f", [1.0] * 12_000)
            )
        assert gateway.flush(20), gateway.failure
        assert gateway.counters.answered_rows == 1
        database.execute("PRAGMA max_page_count = 1000000")
        gateway.send("full", T0 + MINUTE_US, [1.0, 2.0, 3.0])
        assert gateway.flush(20), gateway.failure
        assert gateway.counters.answered_rows == 2
