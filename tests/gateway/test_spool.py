"""The spool keeps what it accepted until it is settled: against a model, after every kill, when the disk is full."""

from __future__ import annotations

import math
import shutil
import sqlite3
from array import array
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from unwritable import full, unwritable
from wheeltapper_command.errors import Refused, UsageError
from wheeltapper_gateway.spool import MEMORY, Block, Kind, Name, Spool, SpoolError

LIVE_US = 1000


def spool_at(
    path: str | Path, bytes_max: int = 1 << 20, sensors: tuple[str, ...] = ("a", "b"), now_us: int = 1
) -> Spool:
    return Spool(path, "plant-1", "pump", sensors, bytes_max, now_us)


def keep(
    spool: Spool,
    times: list[int],
    now_us: int,
    kind: Kind = Kind.READINGS,
    historical: bool = False,
    chunk_rows: int = 4096,
) -> int:
    width = 2 if kind is Kind.READINGS else 1
    cells = array("f" if kind is Kind.READINGS else "I", [time for time in times for _ in range(width)])
    return spool.append(kind, array("I", [0] * len(times)), array("q", times), cells, now_us, historical, chunk_rows)


def times_of(block: Block | None) -> list[int] | None:
    return None if block is None else list(block.times)


class SpoolModel(RuleBasedStateMachine):
    """Accepted rows are lists of times; the model keeps what must still be there, in the order of arrival."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1
        self.spool = spool_at(MEMORY, bytes_max=4000)
        self.next_time = 0
        self.waiting: list[tuple[float, Kind, bool, list[int]]] = []  # accepted_us, kind, historical, times
        self.sealed: dict[int, list[int]] = {}
        self.sequence = 0
        self.epoch = self.spool.epoch

    @rule(rows=st.integers(1, 7), kind=st.sampled_from(Kind), historical=st.booleans(), chunk_rows=st.integers(2, 9))
    def append(self, rows: int, kind: Kind, historical: bool, chunk_rows: int) -> None:
        times = list(range(self.next_time, self.next_time + rows))
        self.next_time += rows
        dropped = keep(self.spool, times, self.now, kind, historical, chunk_rows)
        for begin in range(0, rows, chunk_rows):
            self.waiting.append((self.now, kind, historical, times[begin : begin + chunk_rows]))
        while dropped > 0:  # oldest first, whole chunks
            dropped -= len(self.waiting.pop(0)[3])
        assert dropped == 0

    @rule(microseconds=st.integers(1, 2 * LIVE_US))
    def pass_time(self, microseconds: int) -> None:
        self.now += microseconds

    @rule(clock=st.integers(0, 5 * LIVE_US))
    def restart(self, clock: int) -> None:
        """By a clock that was set to anything. Of what is from its future nobody knows the age: it is backlog."""
        self.now = clock
        self.spool._recover({}, clock)  # all that opening a file does beyond SQLite
        self.waiting = [(-math.inf if chunk[0] > clock else chunk[0], *chunk[1:]) for chunk in self.waiting]
        assert self.spool.epoch == self.epoch

    @rule(rows_max=st.integers(1, 12))
    def seal(self, rows_max: int) -> None:
        live = [chunk for chunk in self.waiting if chunk[0] >= self.now - LIVE_US]
        group = live or list(self.waiting)
        expected: list[int] = []
        for chunk in list(group):
            if chunk[1:3] != group[0][1:3] or (expected and len(expected) + len(chunk[3]) > rows_max):
                break
            place = self.waiting.index(chunk)
            expected += chunk[3][:rows_max]
            self.waiting[place : place + 1] = [(*chunk[:3], chunk[3][rows_max:])] if chunk[3][rows_max:] else []
            if len(expected) >= rows_max:
                break
        block = self.spool.seal(self.now, rows_max, LIVE_US)
        assert times_of(block) == (expected or None)
        if block is not None:
            self.sequence += 1
            assert block.sequence == self.sequence
            self.sealed[block.sequence] = expected

    @precondition(lambda self: self.sealed)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        sequence = data.draw(st.sampled_from(sorted(self.sealed)))
        self.spool.settle([sequence])
        del self.sealed[sequence]

    @precondition(lambda self: self.sealed)
    @rule(rows_max=st.integers(1, 12))
    def split(self, rows_max: int) -> None:
        parts = self.spool.split(rows_max, self.now)
        assert list(parts) == sorted(self.sealed)
        assert self.spool.epoch > self.epoch
        self.epoch, self.sequence, before, self.sealed = self.spool.epoch, 0, self.sealed, {}
        for sequence in sorted(before):
            times = before[sequence]
            for block in parts[sequence]:
                self.sequence += 1
                assert block.sequence == self.sequence
                self.sealed[block.sequence] = list(block.times)
            assert [time for block in parts[sequence] for time in block.times] == times
            assert max(map(len, parts[sequence])) <= rows_max

    @invariant()
    def nothing_is_lost(self) -> None:
        assert {block.sequence: list(block.times) for block in self.spool.sealed()} == self.sealed
        assert self.spool.waiting_rows == sum(len(chunk[3]) for chunk in self.waiting)
        assert self.spool.bytes <= 4000 or not self.waiting or self.spool.sealed()
        (payloads, chunks) = self.spool._database.execute(
            "SELECT total(length(payload)), count(*) FROM chunks"
        ).fetchone()
        assert self.spool.bytes == payloads + 64 * chunks

    def teardown(self) -> None:
        self.spool.close()


TestSpoolModel = SpoolModel.TestCase
TestSpoolModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def contents(path: Path, rows_max: int = 1) -> tuple[list[list[int]], list[list[int]]]:
    """What a spool file holds for the next process: unsettled blocks, then what waits."""
    spool = spool_at(path)
    sealed = [list(block.times) for block in spool.sealed()]
    waiting = []
    while (block := spool.seal(10**9, rows_max, 0)) is not None:
        waiting.append(list(block.times))
    spool.close()
    return sealed, waiting


def test_killed_after_any_step_and_with_any_torn_tail_of_the_log(tmp_path: Path) -> None:
    spool = spool_at(tmp_path / "live.spool")
    steps = [
        lambda: spool.numbers(Name.ASSET, ["pump-001"]),
        lambda: keep(spool, [1], 10),
        lambda: keep(spool, [2], 11),
        lambda: spool.seal(12, 1, LIVE_US),
        lambda: keep(spool, [3], 13),
        lambda: spool.seal(14, 1, LIVE_US),
        lambda: spool.settle([1]),
        lambda: keep(spool, [4], 15),
        lambda: spool.settle([2]),
    ]
    history = []
    for i, step in enumerate(steps):
        step()
        copy = tmp_path / f"{i}.spool"
        shutil.copy(tmp_path / "live.spool", copy)  # as kill -9 leaves it: nothing is closed or checkpointed
        shutil.copy(tmp_path / "live.spool-wal", f"{copy}-wal")
        history.append(contents(copy))
    assert history == [
        ([], []),
        ([], [[1]]),
        ([], [[1], [2]]),
        ([[1]], [[2]]),
        ([[1]], [[2], [3]]),
        ([[1], [2]], [[3]]),
        ([[2]], [[3]]),
        ([[2]], [[3], [4]]),
        ([], [[3], [4]]),
    ]
    log = (tmp_path / "live.spool-wal").read_bytes()
    spool.close()
    shutil.copy(tmp_path / "0.spool", tmp_path / "base")
    for size in range(len(log), len(log) - 3 * 4120, -211):  # the last write was torn: an earlier state, never another
        torn = tmp_path / "torn.spool"
        shutil.copy(tmp_path / "base", torn)
        Path(f"{torn}-wal").write_bytes(log[:size])
        assert contents(torn) in history
        Path(f"{torn}-wal").unlink(missing_ok=True)


def test_numbers_and_epoch_go_on_after_a_restart(tmp_path: Path) -> None:
    spool = spool_at(tmp_path / "s", now_us=77)
    assert list(spool.numbers(Name.ASSET, ["pump-002"])) == [0]
    keep(spool, [1], 5)
    first = spool.seal(5, 10, LIVE_US)
    spool.close()
    again = spool_at(tmp_path / "s", now_us=99)
    assert again.epoch == 77
    assert again.names(Name.ASSET) == ["pump-002"]
    assert again.sealed() == [first]
    again.settle([1])
    keep(again, [2], 6)
    block = again.seal(6, 10, LIVE_US)
    assert block is not None
    assert block.sequence == 2
    again.close()
    fresh = spool_at(tmp_path / "other", now_us=99)
    assert fresh.epoch == 99
    fresh.close()


def test_live_before_backlog_and_each_oldest_first() -> None:
    spool = spool_at(MEMORY)
    for moment, time in ((10, 1), (20, 2), (5000, 3), (5010, 4)):
        keep(spool, [time], moment)
    order = [times_of(spool.seal(5100, 1, LIVE_US)) for _ in range(4)]
    assert order == [[3], [4], [1], [2]]


def test_by_whatever_clock_it_is_opened_the_order_is_that_of_arrival_and_old_is_not_live(tmp_path: Path) -> None:
    """The clock was an hour ahead in the first run, and is right in the second."""
    hour = 3600 * 1_000_000
    spool = spool_at(tmp_path / "s", now_us=2 * hour)
    for time in (1, 2):
        keep(spool, [time], 2 * hour + time)
    spool.close()
    spool = spool_at(tmp_path / "s", now_us=hour)
    keep(spool, [3], hour)
    blocks = [spool.seal(hour, 1, LIVE_US) for _ in range(3)]
    assert [times_of(block) for block in blocks] == [[3], [1], [2]]
    assert [hour - block.accepted_us > LIVE_US for block in blocks if block] == [False, True, True]
    spool.close()


def test_what_is_found_is_live_where_the_clock_says_so_and_backlog_where_not(tmp_path: Path) -> None:
    spool = spool_at(tmp_path / "s")
    keep(spool, [1], 5000)
    keep(spool, [2], 5900)
    spool.close()
    spool = spool_at(tmp_path / "s", now_us=6500)
    assert [times_of(spool.seal(6500, 1, LIVE_US)) for _ in range(2)] == [[2], [1]]
    spool.close()


def test_a_long_backlog_is_not_sorted_for_every_block(tmp_path: Path) -> None:
    spool = spool_at(MEMORY)
    asked: list[str] = []
    spool._database.set_trace_callback(asked.append)
    keep(spool, [1], 1)
    spool.seal(5000, 1, LIVE_US)
    queries = [query for query in asked if query.startswith("SELECT place")]
    plans = [spool._database.execute(f"EXPLAIN QUERY PLAN {query}").fetchall() for query in queries]
    assert len(plans) == 2
    assert "TEMP B-TREE" not in str(plans)
    spool.close()


@pytest.mark.parametrize("step", ["INSERT", "DELETE", "UPDATE", "COMMIT"])
def test_a_split_that_is_killed_has_not_happened(tmp_path: Path, step: str) -> None:
    spool = spool_at(tmp_path / "s")
    keep(spool, [1, 2, 3], 1)
    spool.seal(1, 3, LIVE_US)
    copy = tmp_path / "copy"

    def kill(statement: str) -> None:  # before the statement is carried out
        if statement.startswith(step) and not copy.exists():
            shutil.copy(tmp_path / "s-wal", f"{copy}-wal")
            shutil.copy(tmp_path / "s", copy)

    spool._database.set_trace_callback(kill)
    spool.split(1, 50)
    spool._database.set_trace_callback(None)
    spool.close()
    for path, epoch, blocks in ((copy, 1, [[1, 2, 3]]), (tmp_path / "s", 50, [[1], [2], [3]])):
        found = spool_at(path)
        assert (found.epoch, [list(block.times) for block in found.sealed()]) == (epoch, blocks)
        assert found.seal(1, 1, LIVE_US) is None
        found.close()


BAD_ASSETS = ["", "x" * 257, "é" * 129, "\ud800", None]
BAD_CODES = ["", "maintenance", ":bearing", "maintenance:", "error:" + "x" * 251]


@pytest.mark.parametrize(
    ("kind", "name"), [*((Name.ASSET, name) for name in BAD_ASSETS), *((Name.CODE, code) for code in BAD_CODES)]
)
def test_a_name_that_no_scorer_takes_is_not_kept_nor_those_beside_it(kind: Name, name: str) -> None:
    spool = spool_at(MEMORY)
    with pytest.raises(UsageError, match="expected"):
        spool.numbers(kind, ["a:b", name])
    assert spool.names(kind) == []
    assert list(spool.numbers(kind, ["a:b", "x:" + "y" * 254])) == [0, 1]


def test_more_codes_than_an_open_has_are_not_kept() -> None:
    spool = spool_at(MEMORY)
    spool.numbers(Name.CODE, [f"error:{i}" for i in range(4096)])
    with pytest.raises(UsageError, match="at most 4,096"):
        spool.numbers(Name.CODE, ["error:0", "error:more"])
    assert len(spool.names(Name.CODE)) == 4096


def test_a_bad_name_of_an_older_release_is_read_and_not_taken_again(tmp_path: Path) -> None:
    spool = spool_at(tmp_path / "s")
    keep(spool, [1], 1)
    spool._database.execute("INSERT INTO names VALUES (0, 0, '')")
    spool.close()
    spool = spool_at(tmp_path / "s")
    with pytest.raises(UsageError, match="found one of 0 bytes"):
        spool.numbers(Name.ASSET, [""])
    assert list(spool.numbers(Name.ASSET, ["good"])) == [1]
    assert spool.names(Name.ASSET) == ["", "good"]
    spool.close()


def test_a_small_block_lingers_for_company() -> None:
    spool = spool_at(MEMORY)
    keep(spool, [1], 100)
    assert spool.seal(149, 2, LIVE_US, linger_us=50) is None
    assert times_of(spool.seal(150, 2, LIVE_US, linger_us=50)) == [1]
    keep(spool, [2], 200)
    keep(spool, [3], 201)
    assert times_of(spool.seal(202, 2, LIVE_US, linger_us=50)) == [2, 3]


def test_the_byte_budget_drops_the_oldest_and_counts_them(tmp_path: Path) -> None:
    spool = spool_at(tmp_path / "s", bytes_max=10 * (20 + 64))
    for time in range(25):
        keep(spool, [time], time)
    assert spool.dropped_rows == 15
    assert spool.bytes <= 10 * (20 + 64)
    spool.close()
    assert contents(tmp_path / "s")[1] == [[time] for time in range(15, 25)]
    again = spool_at(tmp_path / "s")
    assert again.dropped_rows == 15
    with pytest.raises(UsageError, match="spool_bytes_max"):
        keep(again, list(range(1 << 16)), 1)
    again.close()


def test_a_full_disk_refuses_the_reading_and_loses_none(tmp_path: Path) -> None:
    spool = spool_at(tmp_path / "s")
    spool._database.execute("PRAGMA max_page_count=24")  # a real SQLITE_FULL, without filling the disk
    accepted: list[list[int]] = []

    def fill() -> None:
        for time in range(10_000):
            keep(spool, [time] * 50, time)
            accepted.append([time] * 50)

    with pytest.raises(SpoolError, match="full") as caught:
        fill()
    assert "space" in caught.value.hint
    assert spool.waiting_rows == 50 * len(accepted)
    spool._database.execute("PRAGMA max_page_count=100000")
    keep(spool, [-1] * 50, 20_000)
    spool.close()
    assert contents(tmp_path / "s", rows_max=50)[1] == [*accepted, [-1] * 50]


def test_a_broken_disk_refuses_the_reading_and_loses_none(tmp_path: Path) -> None:
    """The system itself refuses every write that would make a file grow, in the middle of a transaction."""
    spool = spool_at(tmp_path / "s")
    keep(spool, [1], 1)
    with full(), pytest.raises(SpoolError, match="could not keep readings: disk I/O error") as caught:
        keep(spool, [2], 2)
    assert "system's log" in caught.value.hint
    assert spool.waiting_rows == 1
    keep(spool, [3], 3)
    spool.close()
    assert contents(tmp_path / "s")[1] == [[1], [3]]


def test_a_disk_that_became_read_only_refuses_the_reading_and_loses_none(tmp_path: Path) -> None:
    spool = spool_at(tmp_path / "s")
    keep(spool, [1], 1)
    spool._database.execute("PRAGMA query_only=ON")  # SQLite's own SQLITE_READONLY, as after a remount
    with pytest.raises(SpoolError, match="readonly") as caught:
        keep(spool, [2], 2)
    assert "write to that disk" in caught.value.hint
    spool._database.execute("PRAGMA query_only=OFF")
    keep(spool, [3], 3)
    spool.close()
    assert contents(tmp_path / "s")[1] == [[1], [3]]


def test_a_spool_that_cannot_be_written_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    spool_at(tmp_path / "s").close()
    with unwritable() as folder:
        with pytest.raises(SpoolError, match="could not open: unable to open") as caught:
            spool_at(folder / "new")
        assert "may write to" in caught.value.hint


def test_one_owner_and_one_meaning(tmp_path: Path) -> None:
    spool = spool_at(tmp_path / "s")
    with pytest.raises(SpoolError, match="locked") as caught:
        spool_at(tmp_path / "s")
    assert "own file" in caught.value.hint
    keep(spool, [1], 1)
    spool.close()
    with pytest.raises(Refused, match="sensors"):
        spool_at(tmp_path / "s", sensors=("a", "c"))
    spool = spool_at(tmp_path / "s")
    block = spool.seal(1, 1, LIVE_US)
    assert block is not None
    spool.settle([block.sequence])
    spool.close()
    changed = spool_at(tmp_path / "s", sensors=("a", "c"), now_us=50)
    assert changed.epoch == 50
    changed.close()


def test_not_a_spool_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(SpoolError, match="could not open"):
        spool_at(tmp_path / "s")
    with pytest.raises(SpoolError, match="could not open"):
        spool_at(tmp_path / "no" / "folder")


def test_every_commit_reaches_the_disk(tmp_path: Path) -> None:
    spool = spool_at(tmp_path / "s")
    (synchronous,) = spool._database.execute("PRAGMA synchronous").fetchone()
    (journal,) = spool._database.execute("PRAGMA journal_mode").fetchone()
    spool.close()
    assert (synchronous, journal) == (2, "wal")
    assert sqlite3.sqlite_version_info >= (3, 7)
