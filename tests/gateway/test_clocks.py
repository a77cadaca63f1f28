"""The wall clock is set while readings wait: live still goes before backlog, and only what is old counts as old."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from test_gateway import HandClock, gateway_to, send

HOUR_US = 3_600_000_000
SETTINGS = {"live_seconds": 60, "batch_rows": 1, "in_flight_blocks_max": 1}


class Line:
    """Down until it is released."""

    def __init__(self, scorer: Any) -> None:
        self._address, self._released = scorer.address, threading.Event()
        self.release = self._released.set

    def __call__(self) -> grpc.Channel:
        return grpc.insecure_channel(self._address if self._released.is_set() else "127.0.0.1:1")


def heard(scorer: Any) -> list[tuple[int, bool]]:
    return [(when, historical) for _, when, historical in scorer.rows]


def test_a_clock_that_was_an_hour_ahead_when_the_outage_began(scorer: Any) -> None:
    clock, line = HandClock(), Line(scorer)
    with gateway_to(scorer.address, SETTINGS, clock=clock, connect=line) as gateway:
        clock.wall_us += HOUR_US
        send(gateway, range(1))
        clock.wall_us -= HOUR_US  # set right
        for time in range(1, 4):
            clock.pass_seconds(600)
            send(gateway, range(time, time + 1))
        line.release()
        assert gateway.flush(20)
    assert heard(scorer) == [(3, False), (0, True), (1, True), (2, True)]


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_jump_makes_nothing_old_and_nothing_young(scorer: Any, hours: int) -> None:
    """While something waits that is young, and something that is old."""
    clock, line = HandClock(), Line(scorer)
    with gateway_to(scorer.address, SETTINGS, clock=clock, connect=line) as gateway:
        send(gateway, range(1))
        clock.pass_seconds(61)
        send(gateway, range(1, 2))
        clock.wall_us += hours * HOUR_US
        line.release()
        assert gateway.flush(20)
        send(gateway, range(2, 3))
        assert gateway.flush(20)
    assert heard(scorer) == [(1, False), (0, True), (2, False)]


def test_a_clock_that_is_set_back_between_two_runs(scorer: Any, tmp_path: Path) -> None:
    """What is found is from the future: nobody knows how old it is, so it raises no alarm. Blocks of it were sealed."""
    clock, line = HandClock(), Line(scorer)
    scorer.silent = True
    clock.wall_us += HOUR_US
    with gateway_to(scorer.address, SETTINGS, spool=tmp_path / "s", clock=clock) as gateway:
        send(gateway, range(3))
    scorer.silent = False
    scorer.rows.clear()
    scorer.seen.clear()
    clock.wall_us -= HOUR_US
    with gateway_to(scorer.address, SETTINGS, spool=tmp_path / "s", clock=clock, connect=line) as gateway:
        sealed = len(gateway._spool.sealed())
        send(gateway, range(100, 102))
        line.release()
        assert gateway.flush(20)
    again = [(when, True) for when in range(sealed)]
    assert heard(scorer) == [*again, (100, False), (101, False), *[(when, True) for when in range(sealed, 3)]]


@pytest.mark.parametrize(("seconds", "historical"), [(10, False), (100, True)])
def test_what_a_restart_finds_is_as_old_as_the_clock_says(
    scorer: Any, tmp_path: Path, seconds: int, historical: bool
) -> None:
    clock = HandClock()
    with gateway_to("127.0.0.1:1", SETTINGS, spool=tmp_path / "s", clock=clock) as gateway:
        send(gateway, range(1))
    clock.pass_seconds(seconds)
    with gateway_to(scorer.address, SETTINGS, spool=tmp_path / "s", clock=clock) as gateway:
        assert gateway.flush(20)
    assert heard(scorer) == [(0, historical)]
