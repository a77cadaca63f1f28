"""Seeded histories of a scorer whose process, machine and disk fail between any two steps, without network or files.

The real service, sessions, journal and snapshots run on a disk in memory and talk to gateways in memory, at both levels
of acknowledgement, and to a client of single calls. After each history the windows and alarms are, byte for byte, those
of a scorer that nothing ever happened to; and every answer that was ever given, also to a block that was sent again, is
the one that scorer gives. At ack=SCORED a crash may take away the end of what was taken, and nothing else.
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import random
from collections import Counter

import pytest
from drowned_disk import DrownedDisk, _DrownedFile
from hypothesis import find, given, settings
from hypothesis import strategies as st
from seeded_time import SeededTime
from simulation import CRASHES, ERRORS, SETTINGS, End, Gateway, Life, Plan, Threads, history, plan_of
from sites import ASSETS, MINUTES, Site, blocks_of, sites_of
from undisturbed import PACKS, Reference, compare, compare_rows, state_of
from wheeltapper import warmth
from wheeltapper.live import LiveFleet
from wheeltapper_proto import scoring_pb2 as pb
from wheeltapper_scorer.counters import Counters
from wheeltapper_scorer.journal import Journal
from wheeltapper_scorer.recovery import recover
from wheeltapper_scorer.segments import segments_of, snapshot_name, snapshots_of
from wheeltapper_scorer.service import ScoringService


def test_histories() -> None:
    seen: Counter[str] = Counter()
    for seed in range(40):
        seen += history(plan_of(seed)).seen
    assert min(seen[name] for name in ("lives", "replayed", "repeated", "raised", "calls")) > 80, seen
    assert min(seen[name] for name in ("snapshots", "cut", "stops", "lost", "cuts after kills")) > 8, seen


def plans(minutes_max: int = MINUTES) -> st.SearchStrategy[Plan]:
    """Histories of any length. Of one that fails Hypothesis finds a shorter one that fails."""
    ends = st.builds(
        End,
        cut_after=st.integers(0, 60),
        is_power_cut=st.booleans(),
        stop_after_s=st.just(-1.0) | st.floats(0.0, 0.1),
        fails_after=st.integers(0, 60),
        fails_for=st.integers(0, 5),
        error=st.sampled_from(ERRORS),
    )
    return st.builds(
        Plan,
        seed=st.integers(0, 2**32),
        minutes=st.integers(1, minutes_max),
        gateways=st.lists(st.builds(Gateway, st.booleans(), st.booleans()), min_size=1, max_size=3).map(tuple),
        calls=st.booleans(),
        ends=st.lists(ends, max_size=CRASHES).map(tuple),
    )


@settings(max_examples=150, deadline=None)
@given(plans())
def test_any_history(plan: Plan) -> None:
    history(plan)


def test_of_a_history_that_fails_a_short_one_is_told() -> None:
    """On a disk that lies what was stopped in time is gone: one gateway and one minute show it."""

    def fails(plan: Plan) -> bool:
        try:
            history(plan, lies=True)
        except AssertionError:
            return True
        return False

    found = find(plans(8), fails, settings=settings(max_examples=100, database=None), random=random.Random(1))
    assert (found.minutes, len(found.gateways), found.calls, found.ends) == (1, 1, False, ())


@pytest.mark.slow
@pytest.mark.timeout(900)
@settings(max_examples=2_000, deadline=None)
@given(plans())
def test_two_thousand_histories_of_which_a_short_one_is_told(plan: Plan) -> None:
    history(plan)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_thousand_histories() -> None:
    for seed in range(1_000, 2_000):
        history(plan_of(seed))


def test_a_history_is_a_function_of_its_plan() -> None:
    assert history(plan_of(17)).trace == history(plan_of(17)).trace


def test_a_snapshot_holds_nothing_of_memory_that_nobody_wrote() -> None:
    """The windows of an asset that is open and has had no reading."""
    fleet = LiveFleet(PACKS[1], 1)
    begin = int(fleet.open_assets("press", ["silent"])[0])
    saved = []
    for garbage in (1, 2):
        windows = fleet.held("press").windows
        for column in (windows.values, windows.times, windows.regime, windows.sums, windows.bounds, windows.presence):
            column[begin] = garbage
        saved.append(warmth.save_rows(fleet, "press", begin, begin + 1))
    assert saved[0] == saved[1]


def test_a_release_in_the_middle_and_damaged_snapshots() -> None:
    """What comes back was scored by the release of then, from whichever snapshot is whole or the whole journal."""
    fallbacks = 0
    for seed in range(12):
        rng = random.Random(seed)
        sites, disk = sites_of(rng), DrownedDisk(rng)
        swap_at = sum(len(site.blocks) for site in sites) - rng.randrange(3, 12)
        time = SeededTime(seed)
        life = Life(disk, time, Counter(), swap_at)
        time.run(life.run(sites))
        fleet = life.fleet
        assert fleet is not None
        assert fleet.release == 2
        while True:
            again = recover(disk, PACKS[2], 2, lambda number, _: PACKS[number], SETTINGS)
            for site in sites:
                compare_rows(again.fleet, fleet, list(site.opening().open.asset_ids))
                assert again.points.resume(site.name, 1, durable=True) == len(site.blocks)
            whole = [name for name in disk.names() if name.startswith("snapshot") and name not in disk.flipped]
            if not whole or (len(whole) == 1 and segments_of(disk)[0] != 1):
                break  # nothing would be left that reaches back to the beginning
            disk.flip(whole[-1])
            fallbacks += 1
    assert fallbacks >= 12


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_failing_disk_ends_durable_streams_only_and_is_taken_up_again(error: int) -> None:
    rng = random.Random(3)
    north, south, west = sites_of(rng)
    west.durable = False
    disk, time = DrownedDisk(rng), SeededTime(3)

    async def story() -> Counters:
        recovered, counters = recover(disk, PACKS[1], 1, lambda *_: None, SETTINGS), Counters()
        journal = Journal(disk, recovered, SETTINGS, counters, Threads(time))
        service = ScoringService(recovered.fleet, SETTINGS, counters, recovered.points, journal, clock=time.clock())
        await journal.start()
        await north.converse(service)
        disk.fails, disk.error = range(disk.steps, disk.steps + 1_000_000), error
        before = disk.steps
        await south.converse(service)
        assert south.refusals == 1
        assert south.settled < len(south.blocks)
        assert journal.failed
        await west.converse(service)
        assert west.done
        assert counters.journal_skipped > 0
        while disk.steps < before + 20:  # it keeps on trying
            await asyncio.sleep(0.001)
        disk.fails, before = range(0), counters.snapshots
        while journal.failed or counters.snapshots == before:
            await asyncio.sleep(0.001)
        await south.converse(service)
        await journal.close()
        return counters

    time.run(story())
    again = recover(disk, PACKS[1], 1, lambda *_: None, SETTINGS)
    compare(
        again.fleet, [north, south, west]
    )  # what was not kept came with the snapshot that took the journal up again


class CrampedDisk(DrownedDisk):
    """It has room for a journal, and none for more than so many snapshots."""

    snapshots_max = 0

    def create(self, name: str) -> _DrownedFile:
        if name.startswith("snapshot") and len(snapshots_of(self)) >= self.snapshots_max:
            raise OSError(errno.ENOSPC, "no space for a snapshot")
        return super().create(name)


SMALL = dataclasses.replace(SETTINGS, segment_bytes_max=4_096)


async def life(
    disk: DrownedDisk, time: SeededTime, blocks: list[pb.StreamRequest], parts: list[tuple[int, int, bool]]
) -> bytes:
    """Of a scorer: it takes blocks from … to … of a gateway at ack=SCORED, while the disk fails or not, and is killed.
    The windows and alarms that it began with."""
    recovered, counters = recover(disk, PACKS[1], 1, lambda *_: None, SMALL), Counters()
    begins = state_of(recovered.fleet, [f"north/{i}" for i in range(ASSETS)])
    journal = Journal(disk, recovered, SMALL, counters, Threads(time))
    service = ScoringService(recovered.fleet, SMALL, counters, recovered.points, journal, clock=time.clock())
    is_first = not recovered.files  # later ones begin on a disk that works: without a snapshot they could not go on
    disk.fails = range(1_000_000) if is_first and parts and parts[0][2] else range(0)
    await journal.start()
    for begin, end, fails in parts:
        disk.fails = range(1_000_000) if fails else range(0)
        while journal.failed and not fails:
            await asyncio.sleep(0.001)
        await Site("north", blocks[:end], disk.trace, durable=False, settled=begin).converse(service)
        await asyncio.sleep(0.1)
        assert journal.failed == fails
    disk.dead = True
    return begins


def state_behind(blocks: list[pb.StreamRequest], *parts: tuple[int, int]) -> bytes:
    """Windows and alarms of a scorer that took these blocks alone."""
    reference = Reference("north")
    for begin, end in parts:
        for block in blocks[begin:end]:
            reference.take(block)
    return reference.state()


@pytest.mark.parametrize(
    ("lives", "found"),
    [
        (
            [[(0, 8, False), (8, 12, True), (12, 80, False)], [(80, 84, False)], [(84, 86, True), (86, 88, False)]],
            [[(0, 8)], [(0, 8), (80, 84)], [(0, 8), (80, 84)]],
        ),
        ([[(0, 4, True), (4, 8, False)], [(8, 12, False)]], [[], [(8, 12)]]),
    ],
    ids=["later", "from the beginning"],
)
def test_without_a_snapshot_every_life_goes_on_from_before_the_gap(
    lives: list[list[tuple[int, int, bool]]], found: list[list[tuple[int, int]]]
) -> None:
    """Of a gateway at ack=SCORED: what was answered while the disk failed is lost and what came behind it left out, in
    the next life and in the one after, which has what the next one took."""
    rng = random.Random(6)
    disk, time = CrampedDisk(rng), SeededTime(6)
    blocks = blocks_of(rng, minutes=100)

    begins = []
    for parts in [*lives, []]:
        begins.append(time.run(life(disk, time, blocks, parts)))
        disk.power_on(keep_unsynced=True)
    assert begins[1:] == [state_behind(blocks, *parts) for parts in found]


def test_where_the_snapshot_over_a_gap_is_damaged_what_stood_on_it_is_left_out() -> None:
    rng = random.Random(8)
    disk, time, blocks = CrampedDisk(rng), SeededTime(8), blocks_of(rng)
    disk.snapshots_max = 1
    for parts in ([(0, 8, False), (8, 12, True), (12, 16, False)], [(16, 20, False)]):
        time.run(life(disk, time, blocks, parts))
        disk.power_on(keep_unsynced=True)
    assert time.run(life(disk, time, blocks, [])) == state_behind(blocks, (0, 20))
    disk.power_on(keep_unsynced=True)
    disk.flip(snapshot_name(snapshots_of(disk)[0]))
    assert time.run(life(disk, time, blocks, [])) == state_behind(blocks, (0, 8))


@pytest.mark.parametrize("snapshot_s", [60.0, 0.0])
def test_a_disk_that_works_again_when_the_scorer_stops_loses_nothing(snapshot_s: float) -> None:
    """It was full for a while and nobody has looked since: a last try and a snapshot keep what was answered meanwhile,
    at ack=SCORED too. Where a scorer has no time for it, what was before the gap comes back, and the log says so."""
    rng = random.Random(4)
    sites, disk, time = sites_of(rng), DrownedDisk(rng), SeededTime(4)
    settings = dataclasses.replace(SETTINGS, journal_retry_s=1_000.0)

    async def story() -> Journal:
        recovered, counters = recover(disk, PACKS[1], 1, lambda *_: None, settings), Counters()
        journal = Journal(disk, recovered, settings, counters, Threads(time))
        service = ScoringService(recovered.fleet, settings, counters, recovered.points, journal, clock=time.clock())
        await journal.start()
        for site in sites:
            site.durable = False
        await sites[0].converse(service)
        disk.fails = range(disk.steps, disk.steps + 1_000_000)
        await asyncio.gather(*[site.converse(service) for site in sites[1:]])
        assert journal.failed
        assert all(site.done for site in sites)
        disk.fails = range(0)
        await journal.close(snapshot_s)
        return journal

    kept = not time.run(story()).has_gap
    disk.power_on(keep_unsynced=False)
    again = recover(disk, PACKS[1], 1, lambda *_: None, settings)
    assert kept == (snapshot_s > 0)
    if kept:
        compare(again.fleet, sites)
    else:
        compare_rows(again.fleet, LiveFleet(PACKS[1], 1), [f"{site.name}/0" for site in sites[1:]])


def test_a_disk_that_does_not_sync_is_found_out() -> None:
    """The sync is real: without it, what was acknowledged is lost."""
    lost = 0
    for seed in range(10):
        try:
            history(plan_of(seed), lies=True)
        except AssertionError:
            lost += 1
    assert lost > 0


def test_blocks_in_flight_share_a_sync() -> None:
    """Eight in flight: fewer syncs where they may wait for each other."""

    async def syncs(gather_s: float, time: SeededTime) -> int:
        rng = random.Random(5)
        north, disk = sites_of(rng)[0], DrownedDisk(rng)
        settings = dataclasses.replace(SETTINGS, gather_s=gather_s)
        recovered, counters = recover(disk, PACKS[1], 1, lambda *_: None, settings), Counters()
        journal = Journal(disk, recovered, settings, counters, Threads(time))
        service = ScoringService(recovered.fleet, settings, counters, recovered.points, journal, clock=time.clock())
        await journal.start()
        await north.converse(service, in_flight=8)
        assert north.done
        found = sum(step.startswith("sync") for step in disk.trace)
        await journal.close()
        return found

    at_once, gathered = (
        time.run(syncs(gather_s, time)) for time, gather_s in ((SeededTime(5), 0.0), (SeededTime(5), 0.05))
    )
    assert gathered < 0.7 * at_once, (gathered, at_once)
