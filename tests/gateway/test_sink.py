"""A program's own code in the gateway's thread: it may take its time, call back and raise, and the line goes on."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from test_gateway import HandClock, gateway_to, send, until
from wheeltapper_command.errors import UsageError
from wheeltapper_gateway import Gateway
from wheeltapper_gateway.delivery import Delivery


class Slow:
    """Takes an answer, and returns when it may."""

    def __init__(self) -> None:
        self.begun: list[tuple[bool, int]] = []  # whether it is a revision, and the time of its first row
        self.may_return = threading.Event()

    def __call__(self, delivery: Delivery) -> None:
        self.begun.append((delivery.revision, delivery.scores.times[0]))
        assert self.may_return.wait(30)


@contextmanager
def gateway_with(sink: Slow, address: str, settings: dict[str, Any] | None = None, **named: Any) -> Iterator[Gateway]:
    with gateway_to(address, settings, sink=sink, **named) as gateway:
        try:
            yield gateway
        finally:
            sink.may_return.set()


def in_time(call: Any) -> threading.Thread:
    """Call it in a thread that does not hold up the test where it never returns."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(5)
    return thread


def test_a_sink_that_takes_its_time_holds_up_nobody(scorer: Any) -> None:
    sink = Slow()
    with gateway_with(sink, scorer.address) as gateway:
        send(gateway, range(1))
        until(lambda: sink.begun)
        for call in (
            lambda: send(gateway, range(1, 3)),
            lambda: gateway.counters,
            lambda: gateway.failure,
            lambda: gateway.outputs,
        ):
            assert not in_time(call).is_alive()
        assert not gateway.flush(0.1)
        assert gateway.counters.answered_rows == 0  # what is not handed over does not count
        sink.may_return.set()
        assert gateway.flush(10)
        assert (gateway.counters.answered_rows, gateway.counters.reconnects) == (3, 0)


def test_a_sink_may_wait_for_a_thread_that_sends(scorer: Any) -> None:
    heard: queue.Queue[Delivery] = queue.Queue(1)
    times: list[int] = []
    with gateway_to(scorer.address, {"batch_rows": 1}, sink=heard.put) as gateway:

        def echo() -> None:
            while len(times) < 50:
                times.extend(heard.get(timeout=10).scores.times)
                send(gateway, range(len(times) + 10, len(times) + 11))

        send(gateway, range(10))
        thread = threading.Thread(target=echo, daemon=True)
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
        while not gateway.flush(0.01):
            while not heard.empty():
                heard.get()


def test_a_sink_that_sends(scorer: Any) -> None:
    links: list[Gateway] = []
    heard: list[int] = []

    def sink(delivery: Delivery) -> None:
        for when in delivery.scores.times:
            heard.append(when)
            if when < 5:
                send(links[0], range(when + 1, when + 2))

    with gateway_to(scorer.address, sink=sink) as gateway:
        links.append(gateway)
        send(gateway, range(1))
        until(lambda: len(heard) == 6)
        assert gateway.flush(10)
    assert heard == list(range(6))


@pytest.mark.parametrize("name", ["close", "flush", "wait", "answers"])
def test_a_sink_that_would_wait_for_itself_is_told_so(scorer: Any, name: str) -> None:
    gateways: list[Gateway] = []
    raised: list[UsageError] = []

    def sink(_: Delivery) -> None:
        calls = {
            "close": lambda: gateways[0].close(timeout=0.1),
            "flush": lambda: gateways[0].flush(0.1),
            "wait": lambda: gateways[0].wait(0, 0.1),
            "answers": lambda: list(gateways[0].answers(0.1)),
        }
        try:
            calls[name]()
        except UsageError as error:
            raised.append(error)

    with gateway_to(scorer.address, sink=sink) as gateway:
        gateways.append(gateway)
        in_time(lambda: send(gateway, range(1)))
        until(lambda: raised)
        assert gateway.flush(10)
    assert "expected another thread than the sink's" in str(raised[0])


class Raises:
    def __init__(self, cause: BaseException, times: int) -> None:
        self.told: list[tuple[bool, int]] = []
        self.left, self._cause = times, cause

    def __call__(self, delivery: Delivery) -> None:
        if not delivery.revision and self.left:
            self.left -= 1
            raise self._cause
        self.told.append((delivery.revision, delivery.scores.times[0]))


@pytest.mark.parametrize("cause", [KeyError("a bug of the program"), SystemExit(3), grpc.RpcError("not the line's")])
@pytest.mark.parametrize("durable", [False, True])
def test_a_sink_that_raises_is_said_and_told_again(scorer: Any, cause: BaseException, durable: bool) -> None:
    sink = Raises(cause, times=1_000_000)
    with gateway_to(scorer.address, {"durable": durable}, sink=sink) as gateway:
        send(gateway, range(1))
        until(lambda: gateway.failure is not None and gateway.counters.reconnects > 2)
        until(lambda: f"the sink raised {cause!r}" in str(gateway.failure))
        assert not gateway.flush(0.1)
        assert gateway.counters.answered_rows == 0
        sink.left = 0
        assert gateway.flush(10)
        assert gateway.failure is None
        assert gateway.counters.answered_rows == 1
    assert sink.told == [(False, 0)]


def test_a_block_whose_answer_made_the_sink_raise_is_told_with_its_revisions(scorer: Any) -> None:
    """All of it again, in the order of its first time, and nothing of the block before."""
    scorer.revise, sink = True, Raises(ValueError("once"), times=0)
    with gateway_to(scorer.address, sink=sink) as gateway:
        send(gateway, range(7, 8))
        assert gateway.flush(10)
        sink.left = 1
        send(gateway, range(8, 9))
        assert gateway.flush(10)
        assert (gateway.counters.answered_rows, gateway.counters.revised_rows) == (2, 1)
    assert sink.told == [(False, 7), (True, 7), (True, 7), (False, 8)]


@pytest.mark.parametrize("durable", [False, True])
def test_a_line_that_breaks_while_the_sink_is_at_work_tells_nothing_twice(scorer: Any, durable: bool) -> None:
    """The next conversation waits for it: what it had in hand then counts as told."""
    scorer.revise, sink = True, Slow()
    with gateway_with(sink, scorer.address, {"batch_rows": 1, "durable": durable}) as gateway:
        send(gateway, range(5))
        until(lambda: sink.begun and len(scorer.blocks) == 5)  # it has a revision for each but the first
        gateway._link.hang_up()
        time.sleep(0.5)  # a hundred times the back-off
        assert (gateway.counters.reconnects, len(sink.begun)) == (0, 1)
        sink.may_return.set()
        assert gateway.flush(10)
        assert (gateway.counters.answered_rows, gateway.counters.revised_rows) == (5, 4)
    assert sink.begun == [(False, 0), *[told for when in range(4) for told in ((True, when), (False, when + 1))]]


def test_a_sink_that_takes_its_time_makes_no_scorer_silent(scorer: Any) -> None:
    clock, sink = HandClock(), Slow()
    with gateway_with(sink, scorer.address, {"batch_rows": 1}, clock=clock) as gateway:
        send(gateway, range(8))
        until(lambda: sink.begun)
        clock.pass_seconds(1_000)
        time.sleep(0.6)  # the gateway looks every quarter of a second
        sink.may_return.set()
        assert gateway.flush(3_600)
        assert (gateway.counters.reconnects, gateway.counters.resent_rows) == (0, 0)


def test_when_close_has_returned_the_sink_is_at_rest(scorer: Any) -> None:
    sink = Slow()
    with gateway_with(sink, scorer.address, {"batch_rows": 1}) as gateway:
        send(gateway, range(8))
        until(lambda: sink.begun)
        closing = threading.Thread(target=gateway.close, args=(0.0,))
        closing.start()
        closing.join(0.3)
        assert closing.is_alive()  # it waits
        sink.may_return.set()
        closing.join(10)
        assert not closing.is_alive()
        told = len(sink.begun)
        time.sleep(0.2)
        assert len(sink.begun) == told
