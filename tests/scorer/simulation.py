"""Histories of a scorer whose process, machine, disk and lines fail between any two steps, without network or files.

The real service, sessions, journal and snapshots run on a disk in memory, in a time of their own, and talk to gateways
in memory. A history is a function of its plan: `trace` is all that happened, the same whenever it is told again.
"""

from __future__ import annotations

import asyncio
import errno
import random
from collections import Counter
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from drowned_disk import DrownedDisk, PowerCutError
from seeded_time import SeededTime
from sites import MINUTES, Caller, Site, blocks_of, sites_of
from undisturbed import PACKS, Taken, compare
from wheeltapper.live import LiveFleet
from wheeltapper_proto import scoring_pb2 as pb
from wheeltapper_scorer.counters import Counters
from wheeltapper_scorer.journal import Journal
from wheeltapper_scorer.recovery import recover
from wheeltapper_scorer.service import ScoringService
from wheeltapper_scorer.settings import Settings

SETTINGS = Settings(state=Path("in memory"), segment_bytes_max=6_000, journal_retry_s=0.001, gather_s=0.0)
LIFE_S_MAX = 60.0  # of its own time
CRASHES = 6  # of a history, at most
ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS)
TOLD_MAX = 400  # lines of a history that failed


class Threads(Executor):
    """Work of other threads, each piece done a moment later, while the event loop goes on."""

    def __init__(self, time: SeededTime) -> None:
        self._time = time

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        asyncio.get_running_loop().call_later(self._time.moment(), self.do, future, fn, *args)
        return future

    def do(self, future: Future[Any], fn: Any, *args: Any) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(fn(*args))
        except Exception as error:
            future.set_exception(error)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        pass


@dataclass
class Life:
    """One life of a scorer process: until everybody has all that they want, somebody stops it, or the lights go out."""

    disk: DrownedDisk
    time: SeededTime
    seen: Counter[str]
    swap_at: int = -1  # blocks settled until another release serves; −1: never
    stop_after_s: float = -1.0  # −1: nobody stops it
    resumed: dict[str, int] = field(default_factory=dict)  # where durable gateways were told to go on, in any life
    fleet: LiveFleet | None = None
    journal: Journal | None = None

    async def run(self, everybody: list[Site | Caller], taken: list[Taken] | None = None, whole: bool = False) -> None:
        """taken: what the life before took of sites at ack=SCORED, which is held against what comes back. Afterwards
        `fleet` is what the process held, and `journal` how it ended."""
        disk, counters = self.disk, Counters()
        recovered = recover(disk, PACKS[1], 1, lambda number, _: PACKS[number], SETTINGS)
        self.fleet = recovered.fleet
        for one in taken or []:
            one.comes_back(recovered.fleet, whole)
        for name, sequence in self.resumed.items():
            assert recovered.points.resume(name, 1, durable=True) >= sequence, f"{name} went on behind what is gone"
        journal = self.journal = Journal(disk, recovered, SETTINGS, counters, Threads(self.time))
        points, clock = recovered.points, self.time.clock()
        service = ScoringService(recovered.fleet, SETTINGS, counters, points, journal, clock=clock)
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # whatever a dying process complains of
        tasks = [asyncio.create_task(self._work(service, journal, everybody)), asyncio.create_task(self._wait())]
        swapping = asyncio.create_task(self._swap(everybody)) if self.swap_at >= 0 else None
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=LIFE_S_MAX)
        assert done, "nothing moves any more"
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, PowerCutError) and not disk.dead:
                raise result
        if swapping is not None:
            assert recovered.fleet.release == 2
        self.seen.update(lives=1, failures=counters.journal_failures, snapshots=counters.snapshots,
                         replayed=recovered.blocks)  # fmt: skip

    async def _work(self, service: ScoringService, journal: Journal, everybody: list[Site | Caller]) -> None:
        await journal.start()
        if not journal.failed:
            durable = [one.name for one in everybody if isinstance(one, Site) and one.durable]
            self.resumed.update({name: service._points.resume(name, 1, durable=True) for name in durable})
        stopped = asyncio.Event()

        async def go_on(one: Site | Caller) -> None:
            while not (one.done or self.disk.dead or stopped.is_set()):
                await one.converse(service)
                await asyncio.sleep(0.001)

        async def stop() -> None:
            await asyncio.sleep(self.stop_after_s)
            stopped.set()
            self.disk.trace.append("the scorer is told to stop")
            self.seen["stops"] += 1
            assert await service.drain("the scorer is stopping", LIFE_S_MAX / 2) == 0, "streams did not end"

        stopping = asyncio.create_task(stop()) if self.stop_after_s >= 0 else None
        await asyncio.gather(*map(go_on, everybody))
        if stopping is not None and stopped.is_set():
            await stopping
        await journal.close()

    async def _wait(self) -> None:
        while not self.disk.dead:
            await asyncio.sleep(0)

    async def _swap(self, everybody: list[Site | Caller]) -> None:
        while sum(one.settled for one in everybody) < self.swap_at:
            await asyncio.sleep(0)
        assert self.fleet is not None
        self.fleet.swap(PACKS[2], 2)


@dataclass(frozen=True, slots=True)
class End:
    """How a life ends, and how its disk fails before that."""

    cut_after: int = 0  # steps of the disk until the scorer is killed; 0: it is not
    is_power_cut: bool = True  # the machine is killed with it: what was not synced is gone
    stop_after_s: float = -1.0  # until it is told to stop; −1: nobody does
    fails_after: int = 0  # steps of the disk until it fails …
    fails_for: int = 0  # … for so many steps …
    error: int = errno.ENOSPC  # … in this way


class Gateway(NamedTuple):
    """Its ack is DURABLE, or SCORED; its line breaks now and then, or never."""

    is_durable: bool = True
    breaks: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a history follows from. One that failed fails again, and a shorter one may show why."""

    seed: int = 0  # of readings, of time, and of what a disk keeps
    minutes: int = MINUTES  # of readings
    gateways: tuple[Gateway, ...] = (Gateway(),)  # three at most
    calls: bool = True  # somebody uses single calls
    ends: tuple[End, ...] = ()  # of all lives but the last


def plan_of(seed: int) -> Plan:
    """A long history: every second one has a failing disk."""
    rng = random.Random(f"plan {seed}")
    has_failing_disk = rng.random() < 0.5
    ends = []
    for _ in range(CRASHES):
        is_stopped = rng.random() < 0.3
        ends.append(
            End(
                cut_after=0 if is_stopped else rng.randrange(1, 60),
                is_power_cut=rng.random() < 0.7,
                stop_after_s=rng.expovariate(50.0) if is_stopped else -1.0,
                fails_after=rng.randrange(60),
                fails_for=rng.randrange(1, 6) if has_failing_disk and rng.random() < 0.5 else 0,
                error=rng.choice(ERRORS),
            )
        )
    gateways = tuple(Gateway(rng.random() < 0.5, rng.random() < 0.5) for _ in range(3))
    return Plan(seed, gateways=gateways, ends=tuple(ends))


@dataclass
class History:
    """What became of a plan: how often what was seen, and all that happened, step by step."""

    seen: Counter[str]
    trace: list[str]


def history(plan: Plan, lies: bool = False) -> History:
    """Life after life until all blocks of all sites are settled; then the bytes are compared.

    Raises AssertionError where anything is not as in an undisturbed scorer; plan and trace are noted on what is raised.
    """
    disk = DrownedDisk(random.Random(plan.seed), lies)
    try:
        return History(_lives(plan, disk), disk.trace)
    except Exception as error:
        error.add_note("\n".join([f"{plan}, lies={lies}, at the end of", *disk.trace[-TOLD_MAX:]]))
        raise


def _lives(plan: Plan, disk: DrownedDisk) -> Counter[str]:
    rng, time, seen = disk.rng, SeededTime(plan.seed), Counter[str]()
    sites = sites_of(rng, disk.trace, plan.minutes)[: len(plan.gateways)]
    callers = [Caller("calls", blocks_of(rng, plan.minutes), disk.trace)] if plan.calls else []
    for site, gateway in zip(sites, plan.gateways, strict=True):
        site.durable = gateway.is_durable
        site.cuts = random.Random(f"lines of {site.name} {plan.seed}") if gateway.breaks else None
    durable, taken = [site for site in sites if site.durable], [Taken(site) for site in sites if not site.durable]
    everybody, whole, life, ends = [*sites, *callers], True, None, list(plan.ends)
    resumed = dict[str, int]()
    killed = False  # the life before, with the process alone: what it had not synced is still there
    while not all(one.done for one in everybody):
        end = ends.pop(0) if ends else End()
        life = Life(disk, time, seen, stop_after_s=end.stop_after_s, resumed=resumed)
        disk.cut_at = disk.steps + end.cut_after if end.cut_after else -1
        disk.fails = range(disk.steps + end.fails_after, disk.steps + end.fails_after + end.fails_for)
        disk.error = end.error
        time.run(life.run(everybody, taken, whole))
        assert life.journal is not None
        whole = not disk.dead and not life.journal.has_gap
        seen["cuts after kills"] += killed and disk.dead and end.is_power_cut
        killed = disk.dead and not end.is_power_cut
        disk.power_on(keep_unsynced=not end.is_power_cut)  # what was stopped in time survives a power cut as well
    again = recover(disk, PACKS[1], 1, lambda number, _: PACKS[number], SETTINGS)
    for one in taken:
        one.comes_back(again.fleet, whole)
    for fleet in (life.fleet, again.fleet) if life is not None and life.fleet is not None else ():
        compare(fleet, durable)
        compare(fleet, callers, every=False)
    for site in durable:
        assert again.points.resume(site.name, 1, durable=True) == len(site.blocks), f"{site.name} has lost blocks"
    raised = sum(pb.ALARM_STATE_RAISED in one[5] for site in sites for told in site.answers.values() for one in told)
    seen.update(
        refusals=sum(site.refusals for site in sites),
        repeated=sum(site.repeated for site in sites),
        cut=sum(site.cut for site in sites),
        lost=sum(one.lost for one in taken),
        calls=sum(len(caller.answers) for caller in callers),
        raised=raised,
    )
    return seen
