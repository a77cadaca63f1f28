"""A block on several threads gives what it gives on one: answers, revisions and windows, bit for bit."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import packs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wheeltapper import crew
from wheeltapper.answers import Answers
from wheeltapper.live import LiveFleet
from wheeltapper.live_class import LiveClass
from wheeltapper.pack import Pack, write_pack
from wheeltapper.warmth import save_rows

CADENCE_US = 600_000_000
NOW_US = 10**15
PACK = Pack.from_bytes(write_pack(packs.small_content()))


@pytest.fixture(scope="module", autouse=True)
def _every_block_is_worth_it() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crew, "_ROWS_MIN", 1)
        patch.setattr(crew, "_HAND_OVER_S", 1e-15)
        yield


def flat(answers: Answers | None) -> list[bytes]:
    if answers is None:
        return [b"none"]
    own = [b"" if column is None else column.tobytes() for column in answers[:-1]]
    return own + flat(answers.revisions)


@given(seed=st.integers(0, 2**32 - 1), threads=st.integers(2, 5))
@settings(max_examples=40, deadline=None)
def test_threads_change_no_bit(seed: int, threads: int) -> None:
    """Late, doubled and unknown rows, blocks of any size and order, machines that come later."""
    rng = np.random.default_rng(seed)
    alone, crowd = LiveFleet(PACK, 1), LiveFleet(PACK, 1, threads=threads)
    names, clock = ["pump-1", "pump-2"], 10
    for _ in range(int(rng.integers(2, 9))):
        names += [f"new-{len(names) + i}" for i in range(int(rng.integers(0, 12)))]
        rows = alone.open_assets("pump", names)
        assert crowd.open_assets("pump", names).tolist() == rows.tolist()
        n = int(rng.integers(1, 120))
        which = np.append(rows, -1)[rng.integers(0, len(rows) + 1, n)]
        times = (clock + rng.integers(-5, 4, n)) * CADENCE_US + rng.integers(0, CADENCE_US, n)
        values = rng.uniform(0, 60, (n, 3)).astype(np.float32)
        values[rng.random(values.shape) < 0.1] = np.nan
        block = times, values, NOW_US, bool(rng.random() < 0.2), bool(rng.random() < 0.8), bool(rng.random() < 0.2)
        # the answers keep the columns of rows and times: each fleet gets its own
        told = [fleet.score("pump", which.copy(), times.copy(), *block[1:]) for fleet in (alone, crowd)]
        assert flat(told[0]) == flat(told[1])
        clock += int(rng.integers(1, 4))
    kept = [save_rows(fleet, "pump", 0, len(names)) for fleet in (alone, crowd)]
    assert kept[0] == kept[1]


@given(rows=st.lists(st.integers(-1, 6), min_size=1, max_size=60), parts=st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_no_asset_is_in_two_parts(rows: list[int], parts: int) -> None:
    live = LiveFleet(PACK, 1).held("pump")
    column, times = np.array(rows), np.zeros(len(rows), np.int64)
    cuts = live.cut(len(rows), (column, times, np.zeros((0, 3), np.float32), 0, False, False, ()), parts)  # type: ignore[arg-type]
    assert cuts[0] == 0
    assert cuts[-1] == len(rows)
    assert 2 <= len(cuts) <= max(parts, 1) + 1
    assert cuts == sorted(set(cuts))
    in_order = sorted(rows)
    assert all(in_order[at - 1] != in_order[at] for at in cuts[1:-1])


def test_parts_are_scored_by_threads_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int, int]] = []
    together, score = threading.Barrier(3), LiveClass.score

    def noted(self: LiveClass, begin: int, end: int, *others: object) -> object:
        asked.append((threading.current_thread().name, begin, end))
        if len(asked) > 1:
            together.wait(30)  # no part begins to be scored before all have a thread
        return score(self, begin, end, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(LiveClass, "score", noted)
    fleet = LiveFleet(PACK, 1, threads=3)
    rows = fleet.open_assets("pump", [f"pump-{i}" for i in range(30)])
    for slot in (1, 2):
        fleet.score("pump", rows.copy(), np.full(30, slot * CADENCE_US), np.ones((30, 3), np.float32), NOW_US)
    assert asked[0][1:] == (0, 30), "what a row takes is not known before the first block"
    assert sorted(part[1:] for part in asked[1:]) == [(0, 10), (10, 20), (20, 30)]
    assert len({name for name, _, _ in asked[1:]}) == 3
    assert threading.current_thread().name in {name for name, begin, _ in asked[1:] if begin == 0}


def test_a_part_that_no_thread_was_free_for_is_scored_by_who_waits() -> None:
    alone, crowd = LiveFleet(PACK, 1), LiveFleet(PACK, 1, threads=2)
    rows = [fleet.open_assets("pump", [f"pump-{i}" for i in range(30)]) for fleet in (alone, crowd)]
    pool, free = crowd._crew._others, threading.Event()
    assert pool is not None
    busy = pool.submit(free.wait, 30)
    try:
        for slot in (1, 2, 3):
            times, values = np.full(30, slot * CADENCE_US), np.full((30, 3), slot, np.float32)
            told = [
                fleet.score("pump", own.copy(), times.copy(), values, NOW_US)
                for fleet, own in zip((alone, crowd), rows, strict=True)
            ]
            assert flat(told[0]) == flat(told[1])
        assert not busy.done()
    finally:
        free.set()
