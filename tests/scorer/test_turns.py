"""Turns: blocks in their order, slices in between, newcomers and bytes refused in time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from wheeltapper_scorer.counters import Counters
from wheeltapper_scorer.faults import CallError, Reason
from wheeltapper_scorer.loop import Loop
from wheeltapper_scorer.service import ScoringService
from wheeltapper_scorer.settings import Settings
from wheeltapper_scorer.turns import SLICE_S, Turns


def run(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(work)


class Watch:
    """Time that passes with blocks, and a little with each look at it, however crowded the machine is."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        self.now_s += 0.000_01
        return self.now_s


async def block(
    turns: Turns, watch: Watch, done: list[int], number: int, seconds: float, size: int = 1, is_new: bool = False
) -> None:
    await turns.take(size, is_new)
    watch.now_s += seconds
    done.append(number)
    turns.done(seconds)


def test_blocks_keep_their_order_and_the_loop_turns_between_slices() -> None:
    async def check() -> None:
        watch, done = Watch(), list[int]()
        turns = Turns(10.0, 1 << 30, watch)
        work = [asyncio.create_task(block(turns, watch, done, i, SLICE_S / 2)) for i in range(40)]
        rounds = 0
        while len(done) < 40:
            before = len(done)
            await asyncio.sleep(0)
            rounds += 1
            assert len(done) - before <= 4, "a round of the loop is a slice, not everything that waits"
        assert done == list(range(40))
        assert rounds >= 10
        await asyncio.gather(*work)
        assert turns.waiting == 0

    run(check())


def test_newcomers_go_first_and_nobody_stands_still() -> None:
    async def check() -> None:
        watch, done = Watch(), list[int]()
        turns = Turns(10.0, 1 << 30, watch)
        busy = [asyncio.create_task(block(turns, watch, done, i, SLICE_S / 2)) for i in range(200)]
        await asyncio.sleep(0)
        before = len(done)
        new = [asyncio.create_task(block(turns, watch, done, 1000 + i, SLICE_S / 2, is_new=True)) for i in range(80)]
        await asyncio.gather(*new)
        others = [number for number in done[before:] if number < 1000]
        assert 1 <= len(others) <= 40, "in a rush of newcomers the others go slowly, and go on"
        await asyncio.gather(*busy)
        assert [number for number in done if number < 1000] == list(range(200))
        assert [number for number in done if number >= 1000] == list(range(1000, 1080))

    run(check())


def test_newcomers_and_bytes_are_refused_while_blocks_wait() -> None:
    async def check() -> None:
        watch, done = Watch(), list[int]()
        turns = Turns(0.02, 100, watch)
        turns.admit()
        work = [asyncio.create_task(block(turns, watch, done, i, 0.01, 30)) for i in range(8)]
        await asyncio.sleep(0)
        with pytest.raises(CallError) as refused:
            await turns.take(30)  # 30 more would be too many
        assert refused.value.reason is Reason.OVERLOADED
        assert refused.value.retry_s > 0
        results = await asyncio.gather(*work, return_exceptions=True)
        assert [type(result) for result in results].count(CallError) == 8 - len(done) > 0
        with pytest.raises(CallError) as refused:
            turns.admit()
        assert refused.value.retry_s > 0
        watch.now_s += 1.1
        turns.admit()  # it is over
        assert turns.waited_s == 0

    run(check())


def test_a_cancelled_stream_gives_its_turn_away() -> None:
    async def check() -> None:
        watch, done = Watch(), list[int]()
        turns = Turns(10.0, 1 << 30, watch)
        work = [asyncio.create_task(block(turns, watch, done, i, SLICE_S)) for i in range(6)]
        await asyncio.sleep(0)
        for task in work[2:4]:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        assert done == [0, 1, 4, 5]

    run(check())


def test_an_expired_block_does_not_reach_the_kernel() -> None:
    class Late:
        def time_remaining(self) -> float:
            return 0.0

    counters = Counters()
    service = ScoringService(None, Settings(), counters)  # type: ignore[arg-type]  # no fleet: it must not be asked
    with pytest.raises(CallError) as refused:
        service._check_in_time(Late())  # type: ignore[arg-type]
    assert (refused.value.reason, counters.expired) == (Reason.EXPIRED, 1)
