"""Seeded histories of a scorer whose process, machine and disk fail between any two steps, without network or files.

The real service, sessions, journal and snapshots run on a disk in memory and talk to gateways in memory. After each
history the windows and alarms are, byte for byte, those of a scorer that nothing ever happened to; and every answer
that a gateway was ever given, also to a block that it sent again, is the one that scorer gives.
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import random
from collections import Counter

import grpc
import pytest
from drowned_disk import DrownedDisk
from seeded_time import SeededTime
from simulation import PACKS, SETTINGS, Answer, Line, Site, Threads, compare, compare_rows, history, live, sites_of
from wheeltapper import warmth
from wheeltapper.live import LiveFleet
from wheeltapper_proto import scoring_pb2 as pb
from wheeltapper_scorer.counters import Counters
from wheeltapper_scorer.journal import Journal
from wheeltapper_scorer.recovery import recover
from wheeltapper_scorer.segments import segments_of
from wheeltapper_scorer.service import ScoringService


@pytest.mark.parametrize("begin", range(0, 40, 10))
def test_histories(begin: int) -> None:
    seen: Counter[str] = Counter()
    for seed in range(begin, begin + 10):
        seen += history(seed).seen
    assert min(seen["lives"], seen["replayed"], seen["repeated"], seen["raised"]) > 20, seen
    assert seen["snapshots"] > 10, seen


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_thousand_histories() -> None:
    for seed in range(1_000, 2_000):
        history(seed)


def test_a_history_is_a_function_of_its_seed() -> None:
    assert history(17).trace == history(17).trace


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
        fleet = time.run(live(disk, sites, time, Counter(), swap_at))
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
        assert south.acked < len(south.blocks)
        assert journal.failed
        await scored(service, west)
        assert counters.journal_skipped > 0
        while disk.steps < before + 20:  # it keeps on trying
            await asyncio.sleep(0.001)
        disk.fails, before = range(0), counters.snapshots
        while journal.failed or counters.snapshots == before:
            await asyncio.sleep(0.001)
        await south.converse(service)
        await journal.close()
        return counters

    async def scored(service: ScoringService, site: Site) -> None:
        """Every block answered at `ack=SCORED`."""
        opened, line = site.opening(), Line()
        opened.open.ack = pb.ACK_LEVEL_SCORED
        for request in (opened, *site.blocks):
            line.requests.put_nowait(request.SerializeToString())
        line.requests.put_nowait(grpc.aio.EOF)
        await service._stream_scores(None, line)
        heard: list[Answer] = []
        while not line.responses.empty():
            response = line.responses.get_nowait()
            if response.HasField("scores") or response.HasField("revisions"):
                heard = site.keep(heard, response)

    time.run(story())
    again = recover(disk, PACKS[1], 1, lambda *_: None, SETTINGS)
    compare(
        again.fleet, [north, south, west]
    )  # what was not kept came with the snapshot that took the journal up again


def test_a_disk_that_does_not_sync_is_found_out() -> None:
    """The sync is real: without it, what was acknowledged is lost."""
    lost = 0
    for seed in range(10):
        try:
            history(seed, lies=True)
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
