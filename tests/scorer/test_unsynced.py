"""What a killed scorer had written and not synced is still there for the next one, and nowhere else: nobody may hear of
it before it is on disk."""

from __future__ import annotations

import random

import pytest
from drowned_disk import DrownedDisk
from seeded_time import SeededTime
from simulation import SETTINGS
from sites import Site, blocks_of
from test_snapshot_order import HeldThreads, until, whole
from undisturbed import PACKS, compare
from wheeltapper_scorer.counters import Counters
from wheeltapper_scorer.journal import Journal
from wheeltapper_scorer.records import Kind, Record
from wheeltapper_scorer.recovery import Recovered, recover
from wheeltapper_scorer.segments import Segments, read_segment, segment_name, snapshots_of
from wheeltapper_scorer.service import ScoringService


class Orphan:
    """A folder whose scorer was killed with six blocks of a gateway written and none synced; and the next scorer, whose
    snapshot waits."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        self.disk, self.time, self.blocks = DrownedDisk(rng), SeededTime(seed), blocks_of(rng)
        self.threads = HeldThreads(self.time, "SnapshotFile")
        site = Site("north", self.blocks, [])
        told = [(Kind.OPEN, site.opening()), *((Kind.BLOCK, site.block(place)) for place in range(6))]
        records = [Record(i, kind, 1, 10**18, raw.SerializeToString()) for i, (kind, raw) in enumerate(told, start=1)]
        segments = Segments(self.disk, 1)
        segments.begin()
        segments.append(records)
        self.disk.power_on(keep_unsynced=True)

    def begin(self) -> tuple[Recovered, Journal, ScoringService]:
        recovered, counters = self.recovered(), Counters()
        journal = Journal(self.disk, recovered, SETTINGS, counters, self.threads)
        points, clock = recovered.points, self.time.clock()
        return recovered, journal, ScoringService(recovered.fleet, SETTINGS, counters, points, journal, clock=clock)

    def recovered(self) -> Recovered:
        return recover(self.disk, PACKS[1], 1, lambda *_: None, SETTINGS)


@pytest.mark.parametrize("seed", range(5))
def test_what_a_killed_scorer_left_is_on_disk_before_anybody_hears_of_it(seed: int) -> None:
    orphan = Orphan(seed)

    async def story() -> int:
        recovered, journal, _ = orphan.begin()
        await journal.start()
        return recovered.points.resume("north", 1, durable=True)

    assert orphan.time.run(story()) == 6
    orphan.disk.power_on(keep_unsynced=False)
    assert snapshots_of(orphan.disk) == []
    assert orphan.recovered().points.resume("north", 1, durable=True) == 6


@pytest.mark.parametrize("is_cut_before_the_snapshot", [True, False])
def test_where_it_cannot_be_synced_nothing_is_durable_until_a_snapshot_holds_it(
    is_cut_before_the_snapshot: bool,
) -> None:
    """The scorer starts and scores; a gateway at ack=DURABLE is refused before it is told where to go on."""
    orphan = Orphan(1)
    north = Site("north", orphan.blocks, [])
    west = Site("west", blocks_of(random.Random(2)), [], durable=False)

    async def story() -> None:
        _, journal, service = orphan.begin()
        orphan.disk.fails = range(orphan.disk.steps + 1, orphan.disk.steps + 2)  # the sync of segment 1
        await journal.start()
        await until(lambda: bool(orphan.threads.waiting))  # it has begun another segment, and asked for a snapshot
        await north.converse(service)
        await west.converse(service)
        assert (north.refusals, north.answers, west.done, journal.failed) == (1, {}, True, True)
        if not is_cut_before_the_snapshot:
            orphan.threads.held = set()
            await orphan.threads.let_one_go()
            await until(lambda: not journal.failed)
            await whole(journal, north.converse(service))

    orphan.time.run(story())
    orphan.disk.power_on(keep_unsynced=False)
    again = orphan.recovered()
    if is_cut_before_the_snapshot:
        assert snapshots_of(orphan.disk) == []
    else:
        assert north.done
        assert again.points.resume("north", 1, durable=True) == len(north.blocks)
        compare(again.fleet, [north, west])


def test_bytes_whose_sync_failed_are_not_read_by_the_next_process() -> None:
    """The system holds them for written, says so to whoever syncs them again, and never writes them."""
    disk = DrownedDisk(random.Random(3))
    segments = Segments(disk, 1)
    segments.begin()
    segments.append([Record(1, Kind.CALL, 0, 0, b"safe")])
    segments.sync()
    segments.append([Record(2, Kind.CALL, 0, 0, b"refused")])
    disk.fails = range(disk.steps + 1, disk.steps + 2)
    with pytest.raises(OSError, match="Input/output error"):
        segments.sync()
    disk.power_on(keep_unsynced=True)
    assert [record.number for record in read_segment(disk, 1)] == [1]
    disk.sync(segment_name(1))
    disk.power_on(keep_unsynced=False)
    assert [record.number for record in read_segment(disk, 1)] == [1]
