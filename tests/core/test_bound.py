"""The table by which kernels find a class: what it names, how it grows, and that nobody else's answers live in it."""

from __future__ import annotations

import numpy as np
from packs import small_content
from wheeltapper.bound import _write
from wheeltapper.live import LiveFleet
from wheeltapper.pack import Pack, write_pack

PACK = Pack.from_bytes(write_pack(small_content()))
STEP_US, NOW_US = 600_000_000, 10**18


def test_a_table_too_small_for_its_record_is_not_written() -> None:
    bound = LiveFleet(PACK, 1).held("pump").bound
    small = np.zeros(64, np.uint8)
    assert not _write(small, bound)
    assert not small.any()


def test_a_block_larger_than_any_before_is_answered_like_small_ones() -> None:
    rng = np.random.default_rng(3)
    n, assets = 1_500, [f"new {i}" for i in range(40)]  # more than the first capacity holds, so windows grow too
    values = rng.normal(20, 5, size=(n, 3)).astype(np.float32)
    which, times = rng.integers(0, 40, n), STEP_US * (1_000 + np.arange(n, dtype=np.int64) // 40)
    whole, parts = LiveFleet(PACK, 1), LiveFleet(PACK, 1)
    rows = whole.open_assets("pump", assets)[which]
    found = whole.score("pump", rows, times, values, NOW_US, want_features=True)
    rows = parts.open_assets("pump", assets[:10])[np.minimum(which, 9)]
    rows = parts.open_assets("pump", assets)[which]
    small = [
        parts.score("pump", rows[i : i + 40], times[i : i + 40], values[i : i + 40], NOW_US, want_features=True)
        for i in range(0, n, 40)
    ]
    for name in ("values", "levels", "features", "times", "rows"):
        assert getattr(found, name).tobytes() == b"".join(getattr(part, name).tobytes() for part in small)


def test_revisions_are_the_callers_own() -> None:
    """Working memory is used again by the next call; what was handed out is not."""
    fleet, rng = LiveFleet(PACK, 1), np.random.default_rng(4)
    rows = fleet.open_assets("pump", ["pump-1", "pump-2"])

    def late(row: int) -> np.ndarray:
        kept = None
        for slot in (10, 12, 11):
            values = rng.normal(20, 5, size=(1, 3)).astype(np.float32)
            answers = fleet.score("pump", rows[row : row + 1], np.array([slot * STEP_US]), values, NOW_US)
            kept = answers.revisions
        assert kept is not None
        assert kept.times.tolist() == [12 * STEP_US]
        return kept.rows

    first = late(0)
    assert late(1).tolist() == [rows[1]]
    assert first.tolist() == [rows[0]]
