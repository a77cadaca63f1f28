"""A block that comes again is answered word for word, whatever has happened since; and what is kept is bounded."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from drowned_disk import DrownedDisk
from hypothesis import given
from hypothesis import strategies as st
from presses import PRESS, content
from serving import opening
from simulation import SETTINGS
from sites import sites_of
from test_session import LATER, readings, rows_of, session_of
from undisturbed import PACKS, compare_rows
from undisturbed import undisturbed as undisturbed_sites
from wheeltapper.features import KERNELS
from wheeltapper.kill_switch import Blocked
from wheeltapper.live import LiveFleet
from wheeltapper.pack import Pack, write_pack
from wheeltapper_proto import scoring_pb2 as pb
from wheeltapper_scorer import kept_answers, wire
from wheeltapper_scorer.answer_memory import AnswerMemory, Body, Named, Told
from wheeltapper_scorer.records import Kind, Record, Writer
from wheeltapper_scorer.recovery import recover
from wheeltapper_scorer.resume import ResumePoints
from wheeltapper_scorer.segments import segment_name
from wheeltapper_scorer.session import Answered, Session
from wheeltapper_scorer.settings import Settings
from wheeltapper_scorer.switch import Switch

GOLDEN = Path(__file__).parent.parent / "golden" / "journal-v1"
PATIENT = Pack.from_bytes(write_pack(content(2, dataclasses.replace(PRESS, lateness=6))), KERNELS)


def told_before_a_cut(fleet: LiveFleet, points: ResumePoints, **options: object) -> list[Answered]:
    """Twelve minutes of two assets, some late, in blocks of two rows."""
    session = session_of(fleet, points=points)
    session.open(opening("x", "y", **options))
    minutes = (0, 1, 3, 2, 4, 6, 5, 7, 8, 9, 11, 10)
    return [session.score(block_of(i + 1, minute), LATER) for i, minute in enumerate(minutes)]


def block_of(sequence: int, minute: int, handles: tuple[int, int] = (0, 1)) -> wire.Readings:
    return readings(sequence, handles, [minute, minute], rows_of(2, seed=sequence))


def test_the_same_words_to_other_handles(fleet):
    points = ResumePoints(10)
    fleet.open_assets("press", ["another's"])  # so that rows of the fleet are not the handles
    first = told_before_a_cut(fleet, points, want_features=True, reasons_top=2)
    again = session_of(fleet, points=points)
    again.open(opening("other", "y", "x", want_features=True, reasons_top=2))
    for i, minute in enumerate((0, 1, 3, 2)):
        answered = again.score(block_of(i + 1, minute, handles=(2, 1)), LATER + i)
        assert (answered.again, answered.clock_us) == (True, LATER)
        before, after = ((*told.revisions, told.scores) for told in (first[i], answered))
        for one, other in zip(before, after, strict=True):
            np.testing.assert_array_equal(other.handles, 2 - one.handles)
            assert wire.encode_scores(other._replace(handles=one.handles)) == wire.encode_scores(one)


def test_another_block_under_the_same_number_is_scored(fleet):
    points = ResumePoints(10)
    told_before_a_cut(fleet, points)
    again = session_of(fleet, points=points)
    again.open(opening("x", "y"))
    other = again.score(readings(1, [0, 1], [12, 12], rows_of(2)), LATER)
    assert not other.again
    assert other.scores.status.tolist() == [pb.ROW_STATUS_OK] * 2
    wider = session_of(fleet, points=points)
    wider.open(opening("x", "y", want_features=True))
    assert not wider.score(block_of(11, 11), LATER).again  # other columns are wanted than were kept


def test_answers_of_another_release_come_in_its_columns():
    fleet, points = LiveFleet(PACKS[1], 1), ResumePoints(10)
    first = told_before_a_cut(fleet, points)
    one_output = content(3, dataclasses.replace(PRESS, targets=PRESS.targets[:1]))
    fleet.swap(Pack.from_bytes(write_pack(one_output), KERNELS), 2)
    again = session_of(fleet, points=points)
    assert list(again.open(opening("x", "y")).outputs) == ["failure"]
    answered = again.score(block_of(12, 10), LATER)
    assert answered.reopened is not None
    assert (answered.reopened.release, list(answered.reopened.outputs)) == (1, ["failure", "anomaly"])
    assert answered.messages == first[11].messages
    fresh = again.score(block_of(13, 12), LATER)
    assert fresh.reopened is not None
    assert (fresh.reopened.release, list(fresh.reopened.outputs)) == (2, ["failure"])
    assert fresh.scores.values.shape == (2, 1)


def test_an_asset_that_was_switched_off_since_is_silent(fleet):
    points, switch = ResumePoints(10), Switch()
    first = told_before_a_cut(fleet, points)
    again = Session(fleet, Settings(), points, switch)
    again.open(opening("x", "y"))
    switch.turn(Blocked(assets=frozenset({"y"})))
    answered = again.score(block_of(1, 0), LATER)
    assert answered.scores.status.tolist() == [pb.ROW_STATUS_OK, pb.ROW_STATUS_BLOCKED]
    assert np.isnan(answered.scores.values[1]).all()
    assert first[0].scores.status.tolist() == [pb.ROW_STATUS_OK] * 2
    np.testing.assert_array_equal(answered.scores.values[0], first[0].scores.values[0])


def test_what_is_settled_is_forgotten_and_the_rest_is_bounded(fleet):
    points = ResumePoints(10)
    told_before_a_cut(fleet, points)
    before = points.answers.bytes
    session = session_of(fleet, points=points)
    session.open(opening("x", "y"))
    session.score(block_of(13, 13)._replace(settled=12), LATER)
    assert points.answers.bytes < before / 6
    assert not session.score(block_of(12, 10), LATER).again
    small = AnswerMemory(gateways_max=2, bytes_max=6_000, bytes_total_max=9_000)
    for gateway in ("one", "two", "three"):
        bounded = ResumePoints(10, small)
        talk = session_of(fleet, points=bounded)
        talk.open(opening("x", "y", gateway=gateway))
        for minute in range(20):
            talk.score(block_of(minute + 1, 20 + minute), LATER)
        assert small.bytes <= 9_000
        assert talk.score(block_of(20, 39), LATER).again
        assert not talk.score(block_of(1, 20), LATER).again
    assert "one" not in [gateway for gateway, *_ in small.state()]


def test_the_memory_comes_back_from_bytes(fleet):
    points = ResumePoints(10)
    told_before_a_cut(fleet, points, want_features=True, reasons_top=3, reasons_always=True)
    other = AnswerMemory()
    for one in points.answers.state():
        kept_answers.unpack(memoryview(kept_answers.pack(*one)), other)
    assert other.bytes == points.answers.bytes
    pairs = zip(points.answers.state(), other.state(), strict=True)
    for found, restored in pairs:
        assert kept_answers.pack(*found) == kept_answers.pack(*restored)
    for damaged in (b"", b"\0\0\0\0", kept_answers.pack(*next(iter(points.answers.state())))[:-9]):
        with pytest.raises((ValueError, struct.error)):
            kept_answers.unpack(memoryview(damaged), AnswerMemory())


def test_a_replay_says_again_what_was_refused_at_first():
    """Too late for the release of then; asked again of one that would take it, it is still too late, and not taken."""
    disk, blocks = DrownedDisk(random.Random(1)), (block_of(1, 10), block_of(2, 5))
    releases = [f'{{"release": {n}, "pack": "{one.sha256}"}}'.encode() for n, one in ((1, PACKS[1]), (2, PATIENT))]
    records = [
        (Kind.RELEASE, 0, releases[0]),
        (Kind.OPEN, 1, pb.StreamRequest(open=opening("x", "y")).SerializeToString()),
        *((Kind.BLOCK, 1, raw_of(block)) for block in blocks),
        (Kind.RELEASE, 0, releases[1]),
        (Kind.AGAIN, 1, raw_of(blocks[1])),
    ]
    journal_of(disk, {1: records})
    found = recover(disk, PACKS[1], 1, lambda number, _: PATIENT if number == 2 else PACKS[1], SETTINGS)
    expected = LiveFleet(PACKS[1], 1)
    session = session_of(expected)
    session.open(opening("x", "y"))
    for block in blocks:
        answered = session.score(block, LATER)
    assert answered.scores.status.tolist() == [pb.ROW_STATUS_TOO_LATE] * 2
    expected.swap(PATIENT, 2)
    expected.swap(PACKS[1], 1)
    compare_rows(found.fleet, expected, ["x", "y"])


def test_a_journal_of_before_the_basis_goes_on_over_numbers_that_are_not_there():
    """Where a disk failed, its scorer of then passed over segment 2: nothing says that anything is missing."""
    disk, blocks = DrownedDisk(random.Random(1)), [block_of(1, 1), block_of(2, 2)]
    told = json.dumps({"release": 1, "pack": PACKS[1].sha256}).encode()
    begins = [(Kind.RELEASE, 0, told), (Kind.OPEN, 1, pb.StreamRequest(open=opening("x", "y")).SerializeToString())]
    journal_of(disk, {n: [*begins, (Kind.BLOCK, 1, raw_of(one))] for n, one in zip((1, 3), blocks, strict=True)})
    found = recover(disk, PACKS[1], 1, lambda *_: None, SETTINGS)
    assert (found.blocks, found.warnings) == (2, 0)
    expected = LiveFleet(PACKS[1], 1)
    session = session_of(expected)
    session.open(opening("x", "y"))
    for block in blocks:
        session.score(block, LATER)
    compare_rows(found.fleet, expected, ["x", "y"])


def journal_of(disk: DrownedDisk, segments: dict[int, list[tuple[int, int, bytes]]]) -> None:
    """Write records (kind, stream, payload) of segments by number as a scorer would."""
    number = itertools.count(1)
    for segment, records in segments.items():
        writer, file = Writer(segment), disk.create(segment_name(segment))
        told = [Record(next(number), kind, stream, LATER, raw) for kind, stream, raw in records]
        file.append([writer.opening, *(part for one in told for part in writer.encode(one))])


def raw_of(block: wire.Readings) -> bytes:
    fields = {"handles": block.handles.tolist(), "times": block.times.tolist(), "values": block.values.tolist()}
    return pb.StreamRequest(readings=pb.ReadingBlock(sequence=block.sequence, **fields)).SerializeToString()


def test_a_journal_of_before_the_memory_still_reads():
    """Frozen files of version 1, without answers: windows and alarms come back, and blocks sent again are scored."""
    sites = sites_of(random.Random(77))
    disk = DrownedDisk(random.Random(77))
    for path in sorted(GOLDEN.iterdir()):
        disk.create(path.name).append([path.read_bytes()])
    found = recover(disk, PACKS[1], 1, lambda number, _: PACKS[number], SETTINGS)
    assert (found.warnings, found.unread_bytes) == (0, 0)
    expected, _ = undisturbed_sites(sites)
    for site in sites:
        compare_rows(found.fleet, expected, list(site.opening().open.asset_ids))
        assert found.points.resume(site.name, 1, durable=True) == len(site.blocks)
    told = [one for *_, answers in found.points.answers.state() for one in answers]
    assert told
    for one in told:  # of blocks that the snapshot holds in part there is no whole answer
        assert (kept_answers.scores_of(one.scores, one.named).status != pb.ROW_STATUS_UNKNOWN_HANDLE).all()


def test_answers_of_an_older_snapshot_are_given_again(fleet):
    """A frozen payload of version 1, whose answers the twelve blocks of `told_before_a_cut` were given."""
    payload = (GOLDEN.parent / "kept-answers-v1.bin").read_bytes()
    points, wanted = ResumePoints(10), {"want_features": True, "reasons_top": 2}
    kept_answers.unpack(memoryview(payload), points.answers)
    ((*_, kept),) = points.answers.state()
    assert payload.endswith(b"".join(message for told in kept for message in (*told.revisions, told.scores)))
    answers = told_before_a_cut(fleet, points, **wanted)
    assert [(one.again, one.clock_us, len(one.revisions)) for one in answers] == [
        (True, told.clock_us, len(told.revisions)) for told in kept
    ]
    assert [one.messages[-1] for one in answers] == [told.scores for told in kept]
    assert sum(len(one.revisions) for one in answers) == 3


def test_an_answer_takes_what_it_is_counted_as():
    """Or the limits in bytes would not bound the memory."""
    named = Named(1, "ab" * 32, ("a",), (), (False, 0, False))
    for size, revisions in ((41, 0), (41, 2), (5_000, 1)):
        memory = AnswerMemory()
        memory.settle("a gateway", 1, 1)
        tracemalloc.start()
        for i in range(1_000, 3_000):
            late = tuple(bytes([number] * 60) for number in range(revisions))
            memory.keep("a gateway", 1, Told(Body.READINGS, i, 2**31 + i, LATER + i, named, late, bytes(size)))
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert 0.8 * memory.bytes < taken < 1.1 * memory.bytes


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 12)), max_size=40))
def test_nothing_is_left_of_what_is_settled(steps):
    """Whatever the order in which blocks come: live data goes before backlog."""
    memory, named = AnswerMemory(bytes_max=4_000), Named(1, "", ("a",), (), (False, 0, False))
    kept, settled = dict[int, Told](), 0
    for settles, sequence in steps:
        if settles:
            settled = max(settled, sequence)
            memory.settle("g", 1, sequence)
            kept = {one: told for one, told in kept.items() if one > settled}
        else:
            told = Told(Body.READINGS, sequence, len(kept), LATER, named, (), bytes(1_000))
            memory.keep("g", 1, told)
            if sequence > settled and (sequence not in kept or kept[sequence].check != told.check):
                kept.pop(sequence, None)
                kept[sequence] = told
                kept = dict(list(kept.items())[-2:])
        found = [answers for *_, answers in memory.state()]
        assert found in ([tuple(kept.values())], [])
        assert memory.bytes == sum(told.bytes for told in kept.values())
