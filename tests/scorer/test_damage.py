"""A damaged journal: what is read of it goes to the assets that it is of, and what stood on the damage is left out."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random

import pytest
from drowned_disk import DrownedDisk
from seeded_time import SeededTime
from serving import opening
from simulation import SETTINGS, Threads
from sites import ASSETS, Site, blocks_of
from test_answer_memory import block_of, journal_of, raw_of
from test_session import LATER, session_of
from test_simulation import CrampedDisk, state_behind
from undisturbed import PACKS, Reference, compare_rows, state_of
from wheeltapper import warmth
from wheeltapper.live import LiveFleet
from wheeltapper_proto import scoring_pb2 as pb
from wheeltapper_scorer.counters import Counters
from wheeltapper_scorer.journal import Journal
from wheeltapper_scorer.records import Kind
from wheeltapper_scorer.recovery import Recovered, recover
from wheeltapper_scorer.segments import read_segment, segment_name, segments_of, snapshot_name, snapshots_of
from wheeltapper_scorer.service import ScoringService
from wheeltapper_scorer.settings import Settings
from wheeltapper_scorer.snapshot import SnapshotFile, head_of

ROOMY = dataclasses.replace(SETTINGS, segment_bytes_max=1 << 20)  # a segment for each life
NARROW = dataclasses.replace(SETTINGS, segment_bytes_max=4_096)  # several
BIT_FLIPS = 60


class Folder:
    """A journal without snapshots, of scorers that were killed."""

    def __init__(self, settings: Settings = ROOMY) -> None:
        self.disk, self._time, self._settings = CrampedDisk(random.Random(9)), SeededTime(9), settings

    def live(self, *sites: Site) -> None:
        """One life, in which each of these sends all that it has."""

        async def story() -> None:
            found, counters = self.comes_back(), Counters()
            journal = Journal(self.disk, found, self._settings, counters, Threads(self._time))
            points, clock = found.points, self._time.clock()
            service = ScoringService(found.fleet, self._settings, counters, points, journal, clock=clock)
            await journal.start()
            for site in sites:
                await site.converse(service)
                assert site.done
            await asyncio.sleep(1.0)
            self.disk.dead = True

        self._time.run(story())
        self.disk.power_on(keep_unsynced=True)

    def comes_back(self) -> Recovered:
        return recover(self.disk, PACKS[1], 1, lambda *_: None, self._settings)


def site_of(name: str, durable: bool, minutes: int = 8) -> Site:
    return Site(name, blocks_of(random.Random(name), minutes), [], durable)


def state_in(found: Recovered, site: Site) -> bytes:
    return state_of(found.fleet, [f"{site.name}/{i}" for i in range(ASSETS)])


def states_of(site: Site) -> list[bytes]:
    """Windows and alarms as they were: before its stream opened, and before and behind each of its blocks."""
    reference = Reference(site.name)
    states = [state_of(LiveFleet(PACKS[1], 1), reference.assets), reference.state()]
    for block in site.blocks:
        reference.take(block)
        states.append(reference.state())
    return states


def test_the_number_of_a_stream_whose_end_is_damaged_is_nobody_elses() -> None:
    """One bit of the end of north's stream; what south was acknowledged in the life after is whole, and south's."""
    folder, sites = Folder(), [site_of("north", True), site_of("south", True)]
    for site in sites:
        folder.live(site)
    content, _ = folder.disk._files[segment_name(1)]
    content[-1] ^= 1
    found = folder.comes_back()
    for site in sites:
        assert state_in(found, site) == states_of(site)[-1]
        assert found.points.resume(site.name, 1, durable=True) == len(site.blocks)
    numbers = [{one.stream for one in read_segment(folder.disk, n)} - {0} for n in segments_of(folder.disk)]
    assert numbers == [{1}, {2}]


@pytest.mark.parametrize("settings", [ROOMY, NARROW], ids=["a segment for each life", "several"])
def test_whichever_bit_turns_over_windows_are_as_they_were_once(settings: Settings) -> None:
    """At ack=SCORED: as some block left them, never without one in the middle. At ack=DURABLE what an intact segment
    holds comes back. No gateway's readings go to another one's assets."""
    folder, rng = Folder(settings), random.Random(4)
    north, west = (site_of(name, False, 24) for name in ("north", "west"))
    south, east = (site_of(name, True, 24) for name in ("south", "east"))
    folder.live(north, south)
    folder.live(west)
    folder.live(east)
    files = {name: bytes(content) for name, (content, _) in folder.disk._files.items()}
    known = {site.name: states_of(site) for site in (north, west, east)}
    lost = 0
    for _ in range(BIT_FLIPS):
        for name, raw in files.items():
            folder.disk._files[name] = bytearray(raw), len(raw)
        flipped = rng.choice(list(files))
        folder.disk.flip(flipped)
        found = folder.comes_back()
        assert found.warnings > 0
        for site in (north, west):
            assert state_in(found, site) in known[site.name], (flipped, site.name)
            lost += state_in(found, site) != known[site.name][-1]
        if flipped in (segment_name(1), segment_name(2)):
            assert state_in(found, east) == known["east"][-1], flipped
    assert lost > BIT_FLIPS / 10


def test_what_stands_on_a_segment_that_is_lost_is_left_out_unless_it_is_durable() -> None:
    folder, north, south = Folder(NARROW), site_of("north", False, 60), site_of("south", True)
    folder.live(north)
    folder.live(south)
    first, second, *others = segments_of(folder.disk)
    assert others
    found = folder.comes_back()
    assert (state_in(found, north), found.warnings) == (states_of(north)[-1], 0)
    folder.disk.remove(segment_name(second))
    found = folder.comes_back()
    kept = sum(one.kind == Kind.BLOCK for one in read_segment(folder.disk, first))
    assert 0 < kept < len(north.blocks)
    assert state_in(found, north) == state_behind(north.blocks, (0, kept))
    assert state_in(found, south) == states_of(south)[-1]
    assert found.warnings == len(others)


def test_a_scorer_that_began_behind_damage_goes_on_from_what_it_read() -> None:
    """What it takes is not left out by the next one, which reads the same."""
    folder, north, south = Folder(), site_of("north", False), site_of("south", False)
    folder.live(north)
    content, _ = folder.disk._files[segment_name(1)]
    content[len(content) // 2] ^= 1
    before = state_in(folder.comes_back(), north)
    assert before in states_of(north)[2:-1]
    folder.live(south)
    found = folder.comes_back()
    assert (state_in(found, north), state_in(found, south)) == (before, states_of(south)[-1])


def test_an_old_journal_that_gave_a_number_again_keeps_two_gateways_apart() -> None:
    """Without a basis, and the end of the first stream is lost."""
    disk, blocks = DrownedDisk(random.Random(1)), [block_of(1, 1), block_of(2, 2)]
    told = json.dumps({"release": 1, "pack": PACKS[1].sha256}).encode()
    openings = [opening("x", "y", gateway="one"), opening("z", "y", gateway="two")]
    journal_of(disk, {
        n: [(Kind.RELEASE, 0, told), (Kind.OPEN, 1, pb.StreamRequest(open=said).SerializeToString()),
            (Kind.BLOCK, 1, raw_of(block))]
        for n, said, block in zip((1, 2), openings, blocks, strict=True)
    })  # fmt: skip
    found = recover(disk, PACKS[1], 1, lambda *_: None, SETTINGS)
    assert (found.blocks, found.warnings, found.streams) == (2, 0, 1)
    expected = LiveFleet(PACKS[1], 1)
    for said, block in zip(openings, blocks, strict=True):
        session = session_of(expected)
        session.open(said)
        session.score(block, LATER)
    compare_rows(found.fleet, expected, ["x", "y", "z"])


def test_a_number_that_is_given_again_behind_a_basis_is_another_stream() -> None:
    """Even of the same gateway, whose first stream ended with a killed scorer: its assets come in another order."""
    disk, blocks = DrownedDisk(random.Random(1)), [block_of(1, 1), block_of(2, 2)]
    openings = [opening("x", "y"), opening("y", "x")]
    told = [
        [(Kind.OPEN, 1, pb.StreamRequest(open=said).SerializeToString()), (Kind.BLOCK, 1, raw_of(block))]
        for said, block in zip(openings, blocks, strict=True)
    ]
    journal_of(disk, {1: told[0], 2: [(Kind.BASIS, 0, b'{"record": 2}'), *told[1]]})
    found = recover(disk, PACKS[1], 1, lambda *_: None, SETTINGS)
    assert (found.blocks, found.warnings) == (2, 0)
    expected = LiveFleet(PACKS[1], 1)
    for said, block in zip(openings, blocks, strict=True):
        session = session_of(expected)
        session.open(said)
        session.score(block, LATER)
    compare_rows(found.fleet, expected, ["x", "y"])


def test_a_snapshot_that_is_damaged_is_not_what_the_next_one_falls_back_on() -> None:
    """It is kept no longer than the whole one before it, which the next two lives may still need."""
    site = site_of("north", True, 24)
    disk, time = DrownedDisk(random.Random(5)), SeededTime(5)

    def live(blocks: int) -> bytes:
        """One life, killed once it has a snapshot of what it found. The windows and alarms that it began with."""

        async def story() -> bytes:
            found, counters = recover(disk, PACKS[1], 1, lambda *_: None, ROOMY), Counters()
            begins = state_in(found, site)
            journal = Journal(disk, found, ROOMY, counters, Threads(time))
            service = ScoringService(found.fleet, ROOMY, counters, found.points, journal, clock=time.clock())
            await journal.start()
            settled = site.settled
            await Site(site.name, site.blocks[:blocks], [], True, settled=settled).converse(service)
            site.settled = blocks
            while found.blocks and not counters.snapshots:
                await asyncio.sleep(0.01)
            disk.dead = True
            return begins

        begins = time.run(story())
        disk.power_on(keep_unsynced=True)
        return begins

    for blocks in (4, 8, 12):
        live(blocks)
    disk.flip(snapshot_name(snapshots_of(disk)[-1]))
    live(16)  # it begins with the snapshot before, and takes one of its own
    disk.flip(snapshot_name(snapshots_of(disk)[-1]))
    assert live(20) == states_of(site)[1 + 16]


def test_a_snapshot_knows_the_numbers_of_the_segments_that_it_replaces() -> None:
    disk, fleet = DrownedDisk(random.Random(1)), LiveFleet(PACKS[1], 1)
    fleet.open_assets("press", ["x"])
    file = SnapshotFile(disk, 3, head_of(fleet, warmth.describe(fleet), 5, [], streams=7))
    (press,) = (number for number, state in enumerate(warmth.describe(fleet)) if state.assets)
    file.add_run(press, 0, 1, 6, warmth.save_rows(fleet, "press", 0, 1))
    file.finish()
    found = recover(disk, PACKS[1], 1, lambda *_: None, SETTINGS)
    assert (found.streams, found.record, found.reached, found.segment) == (7, 6, 5, 4)
    assert found.files == [snapshot_name(3)]
