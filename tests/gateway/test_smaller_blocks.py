"""A scorer that takes fewer rows at once than a gateway sends, or than it has sealed: nothing to set, nothing stuck."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from test_gateway import gateway_to, until


def sequences(scorer: Any) -> dict[int, list[int]]:
    """By epoch, in the order in which they came."""
    found: dict[int, list[int]] = {}
    for opened, block in scorer.said:
        found.setdefault(opened.epoch, []).append(block.sequence)
    return found


def test_blocks_are_as_small_as_the_scorer_says(scorer: Any) -> None:
    scorer.rows_max = 100
    with gateway_to(scorer.address) as gateway:
        gateway.send_many(["p"] * 1000, range(1000), [[1.0, 2.0]] * 1000)
        assert gateway.flush(10)
        assert gateway.counters.reconnects == 0
        assert gateway.failure is None
    assert [when for _, when, _ in scorer.rows] == list(range(1000))
    assert max(len(block.times) for block in scorer.blocks) == 100


@pytest.mark.parametrize("durable", [False, True])
def test_sealed_blocks_are_cut_for_a_scorer_that_takes_fewer_rows(scorer: Any, tmp_path: Path, durable: bool) -> None:
    """Two were scored and their answers lost, one small enough to be asked for again; the gateway began anew too."""
    settings = {"batch_rows": 8, "durable": durable}
    scorer.silent = True
    with gateway_to(scorer.address, settings, spool=tmp_path / "s") as gateway:
        for times in (range(3), range(10, 18), range(20, 22), range(30, 38)):
            gateway.send_many(["p"] * len(times), times, [[float(time), 0.0] for time in times])
            until(lambda: gateway._spool.waiting_rows == 0)
        until(lambda: len(scorer.blocks) > 0)
    scorer.silent, scorer.rows_max = False, 3
    with gateway_to(scorer.address, settings, spool=tmp_path / "s") as gateway:
        gateway.send_many(["p"] * 7, range(40, 47), [[float(time), 0.0] for time in range(40, 47)])
        assert gateway.flush(10), gateway.failure
        answers = list(gateway.answers(timeout=0.05))
        assert gateway.counters.reconnects == 1
    sent = [*range(3), *range(10, 18), *range(20, 22), *range(30, 38), *range(40, 47)]
    assert [answer.time_us for answer in answers] == sent
    assert all(answer.scores["rul"] == answer.time_us for answer in answers)
    assert [when for _, when, _ in scorer.rows] == sent
    (first, second), numbers = sorted(sequences(scorer)), sequences(scorer)
    assert numbers[first] == [1, 1]  # the first block goes under its own number: it is small enough
    assert numbers[second] == list(range(1, len(numbers[second]) + 1))
    assert next(block.settled_sequence for opened, block in scorer.said if opened.epoch == second) == 0


def test_answers_that_wait_for_their_ack_are_not_told_again_in_pieces(scorer: Any, tmp_path: Path) -> None:
    scorer.acks = False
    with gateway_to(scorer.address, {"durable": True, "batch_rows": 8}, spool=tmp_path / "s") as gateway:
        gateway.send_many(["p"] * 8, range(8), [[float(time), 0.0] for time in range(8)])
        assert len(list(islice(gateway.answers(timeout=10), 8))) == 8
        scorer.safe.clear()  # the scorer lost what it had not made durable …
        scorer.rows_max, scorer.acks = 3, True  # … and came back as another
        gateway._link.hang_up()
        assert gateway.flush(10)
        assert list(gateway.answers(timeout=0.05)) == []
        assert (gateway.counters.answered_rows, gateway.counters.sent_rows) == (8, 8)
    assert [len(block.times) for block in scorer.blocks] == [8, 3, 3, 2]


def test_a_release_with_wider_answers_in_the_middle_of_a_stream(scorer: Any) -> None:
    """What is on its way in blocks too large for it is refused; the program does not hear of it, and it comes cut."""
    scorer.delay_seconds = 0.02
    with gateway_to(scorer.address, {"batch_rows": 8}) as gateway:
        gateway.send_many(["p"] * 400, range(400), [[float(time), 0.0] for time in range(400)])
        until(lambda: len(scorer.blocks) > 3)
        scorer.rows_max = 3
        assert gateway.flush(20)
        answers = list(gateway.answers(timeout=0.05))
    assert [answer.time_us for answer in answers] == list(range(400))
    assert {answer.status for answer in answers} == {"OK"}
    assert [when for _, when, _ in scorer.rows] == list(range(400))
    for numbers in sequences(scorer).values():
        assert numbers == list(range(1, len(numbers) + 1))


def test_many_pieces_keep_to_the_credit(scorer: Any, tmp_path: Path) -> None:
    scorer.silent = True
    with gateway_to(scorer.address, {"batch_rows": 64}, spool=tmp_path / "s") as gateway:
        gateway.send_many(["p"] * 64, range(64), [[0.0, 0.0]] * 64)
        until(lambda: gateway._spool.waiting_rows == 0)
    scorer.rows_max = 1
    with gateway_to(scorer.address, {"in_flight_blocks_max": 4}, spool=tmp_path / "s") as gateway:
        until(
            lambda: gateway.counters.reconnects == 1 and gateway.counters.resent_rows + gateway.counters.sent_rows == 4
        )
        scorer.silent = False
        assert gateway.flush(10)
    assert [when for _, when, _ in scorer.rows] == list(range(64))
