"""One conversation ends and the next begins: the dead one takes nothing of it. Whatever raises, the line comes back."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from test_gateway import HandClock, gateway_to, send, until
from wheeltapper_command.errors import NotFound, Refused
from wheeltapper_gateway.channel import Tls
from wheeltapper_gateway.settings import Clock

PATIENT = {"answer_timeout_seconds": 3_600}


class Latecomers(Clock):
    """gRPC's threads that wait for something to send wake up late: when they are told to."""

    def __init__(self, count: int) -> None:
        self._left = count
        self.held: list[tuple[threading.Thread, threading.Event]] = []

    def wait(self, changed: threading.Condition, seconds: float) -> None:
        super().wait(changed, seconds)
        thread = threading.current_thread()
        of_grpc = not thread.name.startswith(("wheeltapper", "MainThread"))
        if of_grpc and self._left and thread not in [held for held, _ in self.held]:
            self._left -= 1
            released = threading.Event()
            self.held.append((thread, released))
            changed.release()
            released.wait(30)
            changed.acquire()

    def release(self, place: int) -> None:
        """Let one go, and wait until it has ended."""
        thread, released = self.held[place]
        released.set()
        thread.join(10)
        assert not thread.is_alive()


def test_a_dead_conversation_takes_no_open_of_the_next(scorer: Any) -> None:
    clock, connections = Latecomers(1), 0

    def connect() -> grpc.Channel:
        nonlocal connections
        connections += 1
        if connections == 2:
            clock.release(0)  # the second has begun and has no thread yet
        return grpc.insecure_channel(scorer.address)

    with gateway_to(scorer.address, PATIENT, clock=clock, connect=connect) as gateway:
        until(lambda: clock.held)
        gateway._link.hang_up()
        until(lambda: connections == 2)
        send(gateway, range(1))
        assert gateway.flush(10)
    assert [row[1] for row in scorer.rows] == [0]


def test_a_dead_conversation_takes_no_block_of_the_next(scorer: Any) -> None:
    clock = Latecomers(2)
    with gateway_to(scorer.address, PATIENT, clock=clock) as gateway:
        until(lambda: len(clock.held) == 1)
        gateway._link.hang_up()
        until(lambda: len(clock.held) == 2)
        until(lambda: gateway.outputs and gateway.failure is None)
        send(gateway, range(1))
        clock.release(0)
        clock.held[1][1].set()
        assert gateway.flush(10)
        assert gateway.counters.resent_rows == 0
    assert [row[1] for row in scorer.rows] == [0]


def test_one_lost_block_is_sent_again_while_others_are_answered(scorer: Any) -> None:
    scorer.lose = 1
    with gateway_to(scorer.address, {"answer_timeout_seconds": 0.5}) as gateway:
        end, moment = time.monotonic() + 20, 0
        while 0 not in [when for _, when, _ in scorer.rows]:
            assert time.monotonic() < end, "never sent again"
            send(gateway, range(moment, moment + 1))
            moment += 1
            time.sleep(0.02)  # others go on being answered, block by block
        assert gateway.flush(10)
        answers = list(gateway.answers(timeout=0.05))
        assert gateway.counters.resent_rows > 0
    assert sorted(answer.time_us for answer in answers) == list(range(moment))


def test_a_slow_scorer_is_not_silent(scorer: Any) -> None:
    """Each answer takes 40 seconds of the 60 allowed, so that of eight blocks in flight the last waits for five
    minutes."""
    clock, blocks = HandClock(), 8
    with gateway_to(scorer.address, {"batch_rows": 1}, clock=clock) as gateway:

        def be_slow() -> None:
            answered = len(scorer.blocks) - 1
            until(lambda: gateway.counters.answered_rows == answered)
            clock.pass_seconds(40)
            time.sleep(0.3)  # the gateway looks every quarter of a second

        scorer.before_answer = be_slow
        send(gateway, range(blocks))
        assert gateway.flush(3_600)
        assert (gateway.counters.reconnects, gateway.counters.resent_rows) == (0, 0)


@pytest.mark.parametrize("cause", [OSError("too many open files"), RuntimeError("of a kind that nobody knows")])
def test_a_channel_that_cannot_be_made_is_said_and_made_again(scorer: Any, cause: Exception) -> None:
    is_broken, tries = True, 0

    def connect() -> grpc.Channel:
        nonlocal tries
        tries += 1
        if is_broken:
            raise cause
        return grpc.insecure_channel(scorer.address)

    with gateway_to(scorer.address, connect=connect) as gateway:
        send(gateway, range(1))
        until(lambda: tries > 3 and gateway.failure is not None)
        assert f"connecting to the scorer raised {cause!r}" in str(gateway.failure)
        is_broken = False
        assert gateway.flush(10)
        assert gateway.failure is None


def test_a_gateway_that_cannot_begin_leaves_its_spool_free(scorer: Any, tmp_path: Path) -> None:
    with (
        pytest.raises(NotFound, match="PEM") as raised,
        gateway_to(scorer.address, spool=tmp_path / "s", tls=Tls(tmp_path / "none.pem")),
    ):
        pass
    with gateway_to(scorer.address, spool=tmp_path / "s") as gateway:
        send(gateway, range(1))
        assert gateway.flush(10)
    assert raised.tb is not None  # nothing of the first was swept away


def test_a_machine_without_a_thread_left_is_said_and_tried_again(scorer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    is_full, start = True, threading.Thread.start

    def start_if_there_is_room(thread: threading.Thread) -> None:
        if is_full and thread.name.endswith("reader"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_if_there_is_room)
    with gateway_to(scorer.address) as gateway:
        send(gateway, range(1))
        until(lambda: gateway.failure is not None)
        assert "can't start new thread" in str(gateway.failure)
        is_full = False
        assert gateway.flush(10)


def test_a_request_that_cannot_be_made_is_said_and_made_again(scorer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module, broken = "wheeltapper_gateway.conversation.encode_readings", MemoryError("no room")

    def encode(*_: Any) -> bytes:
        raise broken

    with gateway_to(scorer.address) as gateway:
        with monkeypatch.context() as patch:
            patch.setattr(module, encode)
            send(gateway, range(1))
            until(lambda: f"making a request raised {broken!r}" in str(gateway.failure))
        assert gateway.flush(10)


class SlowToClose:
    """A channel; whoever looks between the end of its call and its own sees what is said of it by then."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def close(self) -> None:
        time.sleep(0.3)  # for whoever looks in between
        self._channel.close()


def test_a_refusal_is_raised_and_not_what_was_wrong_before(scorer: Any) -> None:
    released = threading.Event()

    def connect() -> Any:
        return SlowToClose(scorer.address if released.is_set() else "127.0.0.1:1")

    scorer.refuse = (grpc.StatusCode.NOT_FOUND, "unknown class")
    with gateway_to(scorer.address, connect=connect) as gateway:
        send(gateway, range(1))
        until(lambda: gateway.failure is not None)
        assert "no connection" in str(gateway.failure)
        released.set()
        with pytest.raises(Refused, match="unknown class"):
            gateway.flush(10)
