"""What a GPU answers is what the CPU answers, bit for bit: run under Numba's CUDA simulator by test_cuda.py."""

from __future__ import annotations

import numpy as np
import pytest
from presses import MINUTE_US, PRESS, content
from wheeltapper import cuda, cuda_fleet, warmth
from wheeltapper.answers import Answers
from wheeltapper.cuda_fleet import CudaFleet
from wheeltapper.live import LiveFleet
from wheeltapper.pack import Pack, write_pack
from wheeltapper.windows import RowStatus

START = 1_700_000_000_000_000 // MINUTE_US * MINUTE_US
NOW = START + 500 * MINUTE_US
NAMES = ("a-1", "a-2", "new-1", "new-2", "new-3")
COLUMNS = ("rows", "times", "status", "values", "levels", "alarms", "health", "features")


def pack(seed: int) -> Pack:
    return Pack.from_bytes(write_pack(content(seed)))


def same(one: Answers | None, other: Answers | None) -> None:
    assert (one is None) == (other is None)
    if one is None or other is None:
        return
    for name in COLUMNS:
        left, right = getattr(one, name), getattr(other, name)
        assert (left is None) == (right is None), name
        if left is not None:
            assert left.shape == right.shape, name
            assert left.dtype == right.dtype, name
            if left.dtype == np.float32:
                alike = (left.view(np.uint32) == right.view(np.uint32)) | (np.isnan(left) & np.isnan(right))
                assert alike.all(), name
            else:
                np.testing.assert_array_equal(left, right, name)
    same(one.revisions, other.revisions)


class Both:
    """The same calls for both fleets, their answers held against each other."""

    def __init__(self) -> None:
        self.cpu, self.gpu = LiveFleet(pack(5), 1), CudaFleet(pack(5), 1)
        self.seen: set[int] = set()
        self.revised = 0

    def open(self, *names: str) -> np.ndarray:
        statics = np.full((len(names), 1), 4.0, np.float32)
        rows = self.cpu.open_assets("press", names, statics)
        np.testing.assert_array_equal(rows, self.gpu.open_assets("press", names, statics))
        return rows

    def score(self, *block: np.ndarray, **how: bool) -> None:
        one, other = (fleet.score("press", *block, NOW, **how) for fleet in (self.cpu, self.gpu))
        same(one, other)
        self.seen |= set(one.status.tolist())
        self.revised += 0 if one.revisions is None else len(one.revisions.rows)
        self.level()

    def events(self, rows: np.ndarray, times: np.ndarray) -> None:
        codes = np.full(len(rows), self.cpu.event_code("press", "error:e1"))
        one, other = (fleet.take_events("press", rows, times, codes, NOW, True) for fleet in (self.cpu, self.gpu))
        np.testing.assert_array_equal(one.status, other.status)
        same(one.revisions, other.revisions)

    def level(self) -> None:
        np.testing.assert_array_equal(self.cpu.newest_times("press"), self.gpu.newest_times("press"))
        assert self.cpu.newest_time("press", "a-2") == self.gpu.newest_time("press", "a-2")


def block(rng: np.random.Generator, rows: np.ndarray, minute: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Readings of some assets around a minute: late, twice, in no order, missing, infinite, out of range, unknown."""
    which = rng.choice([*rows.tolist(), -1], n)
    times = START + (minute + rng.integers(-6, 4, n)) * MINUTE_US + rng.integers(0, 3, n) * 1_000_000
    times[rng.random(n) < 0.03] = NOW + 10**9
    values = rng.normal(50, 30, (n, len(PRESS.sensors))).astype(np.float32)
    values[rng.random(values.shape) < 0.1] = np.nan
    values[rng.random(values.shape) < 0.03] = np.inf
    twice = rng.integers(0, n, n // 5)
    return (
        np.concatenate([which, which[twice]]),
        np.concatenate([times, times[twice]]),
        np.concatenate([values, values[twice]]),
    )


@pytest.fixture(params=[7, 10_000])
def both(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Both:
    assert cuda.SIMULATED
    monkeypatch.setattr(cuda_fleet, "SLICE_ROWS", request.param)  # many slices on both queues, and one
    return Both()


def test_every_answer_has_the_same_bits(both: Both) -> None:
    rng = np.random.default_rng(2)
    rows = both.open(*NAMES[:2])
    for step in range(12):
        if step == 5:
            rows = both.open(*NAMES)
        both.score(*block(rng, rows, 5 * step, 25), want_features=step % 3 == 0)
        if step % 4 == 1:
            both.events(rng.choice(rows, 4), START + (5 * step - rng.integers(0, 4, 4)) * MINUTE_US)
    names = {RowStatus(status).name for status in both.seen}
    assert names >= {"OK", "DUPLICATE", "SUPERSEDED", "TOO_LATE", "FUTURE", "UNKNOWN_HANDLE"}
    assert both.revised > 10
    repeated = block(rng, rows, 55, 12)
    both.score(*repeated)
    both.score(*repeated, repeated=True)
    both.score(*block(rng, rows, 60, 12), historical=True)
    empty = np.empty(0, np.int64)
    both.score(empty, empty, np.empty((0, 3), np.float32))


def test_windows_come_home_for_a_snapshot_a_swap_and_more_assets(both: Both) -> None:
    rng = np.random.default_rng(3)
    rows = both.open(*NAMES)
    both.score(*block(rng, rows, 0, 30))
    saved = [warmth.save_rows(fleet, "press", 0, len(NAMES)) for fleet in (both.cpu, both.gpu)]
    assert saved[0] == saved[1]
    both.score(*block(rng, rows, 5, 30))
    for fleet in (both.cpu, both.gpu):
        fleet.swap(pack(6), 2)
    both.score(*block(rng, rows, 8, 30))
    rows = both.open(*NAMES, *(f"later-{i}" for i in range(40)))  # more than there was room for
    both.score(*block(rng, rows, 12, 60))


def test_a_restored_fleet_goes_on_alike(both: Both) -> None:
    rng = np.random.default_rng(4)
    rows = both.open(*NAMES)
    both.score(*block(rng, rows, 0, 40))
    [state] = warmth.describe(both.cpu)
    data = memoryview(warmth.save_rows(both.cpu, "press", 0, len(NAMES)))
    both.gpu = CudaFleet(pack(5), 1)
    warmth.restore(both.gpu, state, 0, len(NAMES), data)
    both.gpu.open_assets("press", NAMES, np.full((len(NAMES), 1), 4.0, np.float32))
    both.score(*block(rng, rows, 5, 40), want_features=True)
