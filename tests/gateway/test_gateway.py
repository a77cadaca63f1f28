"""A gateway against a scorer over real gRPC: every reading answered, through cuts, drains, silence and refusals."""

from __future__ import annotations

import math
import random
import threading
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import grpc
import pytest
from wheeltapper_command.errors import Refused, UsageError
from wheeltapper_gateway import Gateway, Settings
from wheeltapper_gateway.answer import Reason
from wheeltapper_gateway.settings import Clock
from wheeltapper_gateway.spool import SpoolError

SENSORS = ("vibration", "temperature")
DEFAULTS = {"backoff_seconds": 0.01, "backoff_seconds_max": 0.05}


@contextmanager
def gateway_to(address: str, settings: dict[str, Any] | None = None, **named: Any) -> Iterator[Gateway]:
    merged = Settings(**{**DEFAULTS, **(settings or {})})
    arguments = {"name": "plant-1", "asset_class": "pump", "sensors": SENSORS, "jitter": random.Random(1), **named}
    gateway = Gateway(address, settings=merged, **arguments)
    try:
        yield gateway
    finally:
        gateway.close(timeout=0.0)


def send(gateway: Gateway, times: range, asset: str = "pump-001") -> None:
    for moment in times:
        gateway.send(asset, moment, [float(moment), None])


def until(condition: Any, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


class HandClock(Clock):
    """Time passes by hand too, and the wall clock may be set to anything."""

    def __init__(self) -> None:
        self.wall_us = 1_000_000_000_000
        self.passed_seconds = 0.0

    def time_us(self) -> int:
        return self.wall_us

    def monotonic(self) -> float:
        return time.monotonic() + self.passed_seconds

    def pass_seconds(self, seconds: float) -> None:
        self.wall_us += int(seconds * 1e6)
        self.passed_seconds += seconds


def test_the_ten_lines(scorer: Any) -> None:
    moment = datetime(2026, 1, 31, 9, tzinfo=timezone(timedelta(hours=1)))
    with Gateway(scorer.address, name="plant-1", asset_class="pump", sensors=SENSORS, assets=["pump-001"]) as gateway:
        gateway.send("pump-001", time=moment, values=[2.5, 64.0])
        answer = next(gateway.answers(timeout=10))
        assert list(gateway.answers(timeout=0.1)) == []
    assert (answer.asset, answer.time, answer.status) == ("pump-001", moment.astimezone(UTC), "OK")
    assert answer.scores == {"rul": 2.5, "failure": -2.5}
    assert (answer.level, answer.alarm, answer.revision, answer.release) == ("asset", True, False, 7)
    assert answer.levels == {"rul": "class", "failure": "asset"}
    assert answer.alarms == {"rul": "none", "failure": "raised"}
    assert answer.health == ("missing", "late")


def test_assets_events_features_and_attributes(scorer: Any) -> None:
    statics = {"pump-001": {"age": 3.0}, "pump-002": {}}
    with gateway_to(scorer.address, {"want_features": True}, assets=statics, events=["failure:seal"]) as gateway:
        gateway.send_events(["pump-002"], [4], ["failure:seal"])
        send(gateway, range(5, 6), "pump-002")
        assert gateway.flush(10)
        send(gateway, range(6, 7), "pump-003")  # not declared: opened on the same stream
        assert gateway.flush(10)
        gateway.send_events(["pump-003"], [7], ["maintenance:seal"])  # not declared: needs a new stream
        assert gateway.flush(10)
        answers = list(gateway.answers(timeout=0.05))
        counters = gateway.counters
    assert [(answer.asset, answer.time_us) for answer in answers] == [("pump-002", 5), ("pump-003", 6)]
    assert answers[0].features == {"vibration mean": 5.0}
    assert scorer.events == [("pump-002", 4, "failure:seal"), ("pump-003", 7, "maintenance:seal")]
    first = scorer.opens[0]
    assert (list(first.attributes), first.attribute_values[0]) == (["age"], 3.0)
    assert len(first.attribute_values) == 2
    assert math.isnan(first.attribute_values[1])  # unknown
    assert [len(opened.asset_ids) for opened in scorer.opens] == [2, 1, 3]
    assert (counters.answered_rows, counters.refused_events, counters.reconnects) == (4, 0, 1)


@pytest.mark.parametrize("features", [False, True])
def test_reasons_come_with_the_names_of_outputs_and_features(scorer: Any, features: bool) -> None:
    settings = {"reasons": 3, "reasons_always": True, "want_features": features}
    with gateway_to(scorer.address, settings) as gateway:
        send(gateway, range(5, 8))
        answers = [answer for _, answer in zip(range(3), gateway.answers(timeout=5), strict=False)]
    assert (scorer.opens[0].reasons_top, scorer.opens[0].reasons_always) == (3, True)
    for answer in answers:
        value = float(answer.time_us)
        name = "vibration mean"
        assert answer.reasons == (Reason("rul", name, value), Reason("failure", name, -value))
        assert answer.features == ({name: value} if features else {})


def test_nobody_is_asked_for_more_reasons_than_a_scorer_gives() -> None:
    with pytest.raises(UsageError, match="reasons: expected 0 to 64, found 65"):
        Settings(reasons=65)


@pytest.mark.parametrize("durable", [False, True])
def test_every_reading_is_answered_once_through_cuts(scorer: Any, tmp_path: Path, durable: bool) -> None:
    settings = {"batch_rows": 3, "in_flight_blocks_max": 4, "durable": durable}
    with gateway_to(scorer.address, settings, spool=tmp_path / "s") as gateway:
        send(gateway, range(30))
        for cut in range(6):
            scorer.break_after = 2
            scorer.swallow = cut % 2
            send(gateway, range(30 + cut * 20, 50 + cut * 20))
        assert gateway.flush(20)
        answers = list(gateway.answers(timeout=0.05))
        counters = gateway.counters
    assert sorted(answer.time_us for answer in answers) == list(range(150))
    assert {answer.status for answer in answers} <= {"OK", "DUPLICATE"}
    assert all(answer.scores["rul"] == answer.time_us for answer in answers)
    assert [when for _, when, _ in scorer.rows] == list(range(150))  # in order, nothing overtaken
    content: dict[int, list[int]] = {}
    for block in scorer.blocks:  # one sequence number always means the same rows
        assert content.setdefault(block.sequence, list(block.times)) == list(block.times)
    assert sorted(content) == list(range(1, len(content) + 1))
    assert counters.resent_rows > 0
    assert counters.sent_rows == counters.answered_rows == 150


def test_durable_settles_on_the_ack_only(scorer: Any, tmp_path: Path) -> None:
    scorer.acks = False
    with gateway_to(scorer.address, {"durable": True}, spool=tmp_path / "s") as gateway:
        send(gateway, range(1))
        answer = next(gateway.answers(timeout=10))
        assert answer.status == "OK"
        assert not gateway.flush(0.2)
    scorer.acks = True
    scorer.safe.clear()  # the scorer lost what it had not made durable
    with gateway_to(scorer.address, {"durable": True}, spool=tmp_path / "s") as gateway:
        assert gateway.flush(10)
    assert [list(block.times) for block in scorer.blocks] == [[0], [0]]


def test_resume_point_settles_what_was_answered(scorer: Any) -> None:
    scorer.acks = False
    with gateway_to(scorer.address, {"durable": True}) as gateway:
        send(gateway, range(1))
        assert next(gateway.answers(timeout=10))
        gateway._link.hang_up()  # the Ack is lost with the connection, the resume point says the same
        assert gateway.flush(10)
        assert gateway.counters.resent_rows == 0


def test_an_answer_given_twice_is_told_once(scorer: Any) -> None:
    scorer.acks = False
    with gateway_to(scorer.address, {"durable": True}) as gateway:
        send(gateway, range(1))
        assert next(gateway.answers(timeout=10))
        scorer.safe.clear()  # the scorer lost what it had not made durable
        scorer.acks = True
        gateway._link.hang_up()
        assert gateway.flush(10)
        assert len(scorer.blocks) == 2
        assert list(gateway.answers(timeout=0.1)) == []
        assert gateway.counters.answered_rows == 1


def test_an_answer_is_told_before_its_block_is_forgotten(scorer: Any) -> None:
    """Killed in between, a gateway asks again. And each block says that those before are settled."""
    kept: list[list[int]] = []

    def sink(_: Any) -> None:
        with gateway._changed:
            kept.append([block.sequence for block in gateway._spool.sealed()])

    with gateway_to(scorer.address, {"in_flight_blocks_max": 1}, sink=sink) as gateway:
        for moment in range(5):
            send(gateway, range(moment, moment + 1))
            assert gateway.flush(10)
    assert kept == [[1], [2], [3], [4], [5]]
    assert [block.settled_sequence for block in scorer.blocks] == [0, 1, 2, 3, 4]


def test_restart_sends_what_the_spool_holds(scorer: Any, tmp_path: Path) -> None:
    with gateway_to("127.0.0.1:1", spool=tmp_path / "s") as gateway:
        send(gateway, range(5))
        until(lambda: "no connection" in str(gateway.failure))
        assert not gateway.flush(0.01)
    with gateway_to(scorer.address, spool=tmp_path / "s") as gateway:
        assert gateway.flush(10)
    assert [row[1] for row in scorer.rows] == list(range(5))


def test_live_before_backlog(scorer: Any) -> None:
    clock = HandClock()
    address = scorer.address
    scorer.delay_seconds = 0.2
    settings = {"live_seconds": 60, "batch_rows": 2, "in_flight_blocks_max": 1}
    released = threading.Event()

    def connect() -> grpc.Channel:
        return grpc.insecure_channel(address if released.is_set() else "127.0.0.1:1")

    with gateway_to(address, settings, clock=clock, connect=connect) as gateway:
        send(gateway, range(4))
        clock.pass_seconds(3_600)  # an outage
        send(gateway, range(100, 104))
        released.set()
        assert gateway.flush(20)
    assert [when for _, when, _ in scorer.rows] == [100, 101, 102, 103, 0, 1, 2, 3]
    assert [historical for _, _, historical in scorer.rows] == [False] * 4 + [True] * 4


def test_drain_finishes_and_reconnects(scorer: Any) -> None:
    scorer.drain_after = 1
    with gateway_to(scorer.address, {"batch_rows": 1}) as gateway:
        send(gateway, range(40))
        assert gateway.flush(10)
        assert [answer.time_us for answer in gateway.answers(timeout=0.05)] == list(range(40))
        counters = gateway.counters
    assert counters.reconnects >= 1
    assert len(scorer.rows) == 40


def test_a_silent_scorer_is_left(scorer: Any) -> None:
    scorer.silent = True
    with gateway_to(scorer.address, {"answer_timeout_seconds": 0.3}) as gateway:
        send(gateway, range(3))
        until(lambda: gateway.failure is not None and "silent" in str(gateway.failure))
        scorer.silent = False
        assert gateway.flush(10)
        until(lambda: gateway.failure is None)


def test_credit_bounds_what_is_in_flight(scorer: Any) -> None:
    scorer.silent = True
    with gateway_to(scorer.address, {"batch_rows": 1, "in_flight_blocks_max": 3}) as gateway:
        send(gateway, range(10))
        until(lambda: gateway.counters.sent_rows == 3)
        time.sleep(0.1)
        assert gateway.counters.sent_rows == 3
        scorer.silent = False
        assert gateway.flush(10)


def test_a_refusal_is_told_once_and_nothing_is_lost(scorer: Any) -> None:
    scorer.refuse = (grpc.StatusCode.INVALID_ARGUMENT, "class 'pump' is unknown")
    with gateway_to(scorer.address) as gateway:
        send(gateway, range(2))
        with pytest.raises(Refused, match="class 'pump' is unknown"):
            gateway.flush(10)
        scorer.refuse = None
        until(lambda: gateway.failure is None)
        assert gateway.flush(10)
    assert len(scorer.rows) == 2


def test_revisions_come_as_answers(scorer: Any) -> None:
    scorer.revise = True
    with gateway_to(scorer.address) as gateway:
        send(gateway, range(7, 8))
        assert gateway.flush(10)
        send(gateway, range(8, 9))
        assert gateway.flush(10)
        first, second, _ = gateway.answers(timeout=0.3)
        assert gateway.counters.revised_rows == 1
    assert (first.revision, second.revision) == (False, True)
    assert (second.asset, second.time_us, second.scores["rul"]) == ("pump-001", 7, 70.0)


def test_revisions_are_told_once_where_the_line_breaks_before_their_scores(scorer: Any) -> None:
    scorer.revise, scorer.cut_revisions = True, 3
    with gateway_to(scorer.address) as gateway:
        send(gateway, range(7, 8))
        assert gateway.flush(10)
        send(gateway, range(8, 9))
        assert gateway.flush(10)
        told = [(answer.revision, answer.time_us) for answer in gateway.answers(timeout=0.3)]
        assert (gateway.counters.revised_rows, scorer.cut_revisions) == (1, 0)
    assert told == [(False, 7), (True, 7), (False, 8)]


def test_revisions_without_an_answer_are_bounded_and_counted(scorer: Any) -> None:
    """As of a scorer that revises without end: the newest are kept, and the answer is told behind them."""
    scorer.revise, scorer.times_revised, told = True, 1000, []
    with gateway_to(scorer.address, {"batch_rows": 1, "answers_rows_max": 10}, sink=told.append) as gateway:
        for moment in (7, 8, 9):
            send(gateway, range(moment, moment + 1))
            assert gateway.flush(10)
        assert (gateway.counters.revised_rows, gateway.counters.dropped_answers) == (20, 1980)
    rows = [(delivery.revision, delivery.scores.times[0]) for delivery in told]
    assert rows == [(False, 7), *[(True, 7)] * 10, (False, 8), *[(True, 8)] * 10, (False, 9)]


def test_unfetched_answers_are_bounded_and_counted(scorer: Any) -> None:
    with gateway_to(scorer.address, {"batch_rows": 1, "answers_rows_max": 10}) as gateway:
        send(gateway, range(30))
        assert gateway.flush(10)
        assert gateway.counters.dropped_answers == 20
        assert [answer.time_us for answer in gateway.answers(timeout=0.05)] == list(range(20, 30))


def test_the_byte_budget_is_counted(tmp_path: Path) -> None:
    with gateway_to("127.0.0.1:1", {"spool_bytes_max": 1 << 16}, spool=tmp_path / "s") as gateway:
        send(gateway, range(1000))
        counters = gateway.counters
        assert counters.dropped_rows == 1000 - (1 << 16) // (20 + 64)


def test_a_full_disk_is_told_to_the_sender_who_may_send_all_of_it_again(scorer: Any, tmp_path: Path) -> None:
    """Room for some of the call, not for all of it: none is kept."""
    with gateway_to("127.0.0.1:1", spool=tmp_path / "s") as gateway:
        send(gateway, range(1))
        database = gateway._spool._database
        pages = database.execute("PRAGMA page_count").fetchone()[0]
        database.execute(f"PRAGMA max_page_count={pages + 8}")
        with pytest.raises(SpoolError, match="full"):
            gateway.send_many(["p"] * 4096, range(10, 4106), [[1.0, 2.0]] * 4096)
        assert gateway._ledger.unsettled_rows == 1
        database.execute("PRAGMA max_page_count=1000000")
        gateway.send_many(["p"] * 4096, range(10, 4106), [[1.0, 2.0]] * 4096)
    with gateway_to(scorer.address, spool=tmp_path / "s") as gateway:
        assert gateway.flush(10)
    assert sorted(when for _, when, _ in scorer.rows) == [0, *range(10, 4106)]


def test_columns_of_other_lengths_are_refused_whole(scorer: Any) -> None:
    with gateway_to(scorer.address, {"batch_rows": 8}) as gateway:
        numbers = gateway.numbers(["p"] * 12)
        for times, values in ((20, 40), (12, 23), (12, 26)):
            with pytest.raises(UsageError, match="values"):
                gateway.send_columns(numbers, array("q", range(times)), array("f", [0.0] * values))
        with pytest.raises(UsageError, match="4, 8 and 4 bytes"):
            gateway.send_columns(numbers, array("q", range(12)), array("d", [0.0] * 24))
        with pytest.raises(UsageError, match="numbers of 0 to 0, found 1"):
            gateway.send_columns(array("I", [1]), array("q", [0]), array("f", [0.0, 0.0]))
        assert gateway._ledger.unsettled_rows == 0
        send(gateway, range(3))
        assert gateway.flush(10)


def test_many_threads_send_at_once(scorer: Any) -> None:
    with gateway_to(scorer.address) as gateway:
        threads = [threading.Thread(target=send, args=(gateway, range(100), f"pump-{number}")) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert gateway.flush(20)
        answers = list(gateway.answers(timeout=0.05))
    assert len({(answer.asset, answer.time_us) for answer in answers}) == 400
    assert all(answer.scores["rul"] == answer.time_us for answer in answers)


def test_what_a_caller_gets_wrong(scorer: Any, tmp_path: Path) -> None:
    with gateway_to(scorer.address) as gateway:
        with pytest.raises(UsageError, match="2 values per reading"):
            gateway.send("pump-001", 1, [1.0])
        with pytest.raises(UsageError, match="time zone"):
            gateway.send("pump-001", datetime(2026, 1, 1), [1.0, 2.0])
        with pytest.raises(UsageError, match="rows"):
            gateway.send_events(["pump-001"], [1, 2], ["failure:seal"])
        gateway.close()
        with pytest.raises(UsageError, match="closed"):
            gateway.send("pump-001", 1, [1.0, 2.0])
        assert gateway.close()
    assert scorer.rows == []
    with pytest.raises(UsageError, match="sensors that all differ"):
        Gateway(scorer.address, name="g", asset_class="pump", sensors=["a", "a"])
    with pytest.raises(UsageError, match="batch_rows"):
        Settings(batch_rows=0)
    with pytest.raises(UsageError, match="backoff_seconds_max"):
        Settings(backoff_seconds=2, backoff_seconds_max=1)
