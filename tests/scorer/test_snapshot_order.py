"""A snapshot that is finished holds no answer without the reading behind it, whatever the disk did meanwhile.

Windows are copied before answers, and blocks are scored in between. Each test holds a snapshot there.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, Future
from typing import Any

from drowned_disk import DrownedDisk
from packs import lone_content, small_content
from seeded_time import SeededTime
from simulation import SETTINGS, Threads
from sites import sites_of
from undisturbed import PACKS, compare
from wheeltapper.live import LiveFleet
from wheeltapper.pack import Pack, write_pack
from wheeltapper_scorer.copying import copied
from wheeltapper_scorer.counters import Counters
from wheeltapper_scorer.journal import Journal
from wheeltapper_scorer.recovery import recover
from wheeltapper_scorer.resume import points_of
from wheeltapper_scorer.segments import snapshots_of
from wheeltapper_scorer.service import ScoringService

BEFORE = 5  # blocks that are safe before the snapshot


class HeldThreads(Threads):
    """Threads whose work of the names in `held` waits until it is let go."""

    def __init__(self, time: SeededTime, *held: str) -> None:
        super().__init__(time)
        self.held = set(held)
        self.waiting: deque[tuple[Any, ...]] = deque()

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        if fn.__name__ not in self.held:
            return super().submit(fn, *args, **kwargs)
        future: Future[Any] = Future()
        self.waiting.append((future, fn, *args))
        return future

    async def let_one_go(self) -> None:
        await until(lambda: bool(self.waiting))
        self.do(*self.waiting.popleft())


class Plant:
    """One gateway, and a scorer on a disk that may lose power."""

    def __init__(self) -> None:
        rng = random.Random(7)
        self.time, self.disk = SeededTime(7), DrownedDisk(rng)
        self.site = sites_of(rng)[0]

    def live(self, blocks: int, threads: Threads, story: Callable[[Journal, Awaitable[None]], Awaitable[None]]) -> None:
        """One life of the scorer, in which the gateway has so many blocks and may go on whenever the story lets it."""
        all_blocks, self.site.blocks = self.site.blocks, self.site.blocks[:blocks]

        async def life() -> None:
            recovered, counters = recover(self.disk, PACKS[1], 1, lambda *_: None, SETTINGS), Counters()
            journal = Journal(self.disk, recovered, SETTINGS, counters, threads)
            points, clock = recovered.points, self.time.clock()
            service = ScoringService(recovered.fleet, SETTINGS, counters, points, journal, clock=clock)
            await journal.start()
            await story(journal, self.site.converse(service))
            self.fleet = recovered.fleet

        self.time.run(life())
        self.site.blocks = all_blocks

    def begins(self) -> None:
        """Some blocks are safe, so that the next life begins with a snapshot."""
        self.live(BEFORE, Threads(self.time), whole)
        assert self.site.settled == BEFORE
        assert snapshots_of(self.disk) == []

    def comes_back(self) -> None:
        """Power goes and returns; all that the gateway has is scored as if nothing had happened."""
        self.disk.power_on(keep_unsynced=False)
        self.live(len(self.site.blocks), Threads(self.time), whole)
        assert self.site.done
        compare(self.fleet, [self.site])


async def whole(journal: Journal, converse: Awaitable[None]) -> None:
    await converse
    await journal.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.001)


def test_a_snapshot_waits_for_the_journal_behind_its_answers() -> None:
    plant = Plant()
    plant.begins()
    threads = HeldThreads(plant.time, "add_run")

    async def story(journal: Journal, converse: Awaitable[None]) -> None:
        await until(lambda: bool(threads.waiting))  # the windows are copied
        threads.held = {"_put"}  # a sync that takes long
        gateway = asyncio.ensure_future(converse)
        await until(lambda: BEFORE + 1 in plant.site.answers)
        await threads.let_one_go()
        await asyncio.sleep(1.0)
        gateway.cancel()

    plant.live(BEFORE + 1, threads, story)
    assert plant.site.settled == BEFORE
    assert snapshots_of(plant.disk) == []
    plant.comes_back()


def test_a_snapshot_during_which_the_journal_failed_is_given_up() -> None:
    plant = Plant()
    plant.begins()
    threads = HeldThreads(plant.time, "add_run")

    async def story(journal: Journal, converse: Awaitable[None]) -> None:
        await until(lambda: bool(threads.waiting))  # the windows are copied
        plant.disk.fails = range(plant.disk.steps, plant.disk.steps + 3)
        await converse  # until it is refused: the block was answered, and its record is forgotten
        assert BEFORE + 1 in plant.site.answers
        await until(lambda: not journal.failed)
        await threads.let_one_go()
        await until(lambda: bool(threads.waiting))  # the next snapshot does not get further than this

    plant.live(BEFORE + 1, threads, story)
    assert plant.site.refusals == 1
    assert snapshots_of(plant.disk) == []
    plant.comes_back()


class SwappingThread(Executor):
    """Works at once; once rows of a class have been copied, another release is swapped in."""

    def __init__(self, fleet: LiveFleet, pack: Pack) -> None:
        self._fleet, self._pack = fleet, pack

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        if fn.__name__ == "add_run" and self._fleet.release == 1:
            self._fleet.swap(self._pack, 2)
        return future


def test_a_class_without_assets_may_leave_during_a_snapshot() -> None:
    fleet = LiveFleet(Pack.from_bytes(write_pack(small_content())), 1)
    fleet.open_assets("pump", ["p"])
    disk, thread = DrownedDisk(random.Random(1)), SwappingThread(fleet, Pack.from_bytes(write_pack(lone_content())))

    async def is_kept() -> bool:
        return True

    async def story() -> None:
        for number in (1, 2):
            assert await copied(disk, thread, number, fleet, points_of(SETTINGS), 0, lambda: 1, is_kept)

    asyncio.run(story())
    assert (fleet.release, snapshots_of(disk)) == (2, [1, 2])
