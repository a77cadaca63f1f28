"""A whole fleet resident: how long it takes to start, what an asset costs, and whether a reading costs more in a crowd.

`make bench NAME=fleet`. One class head and a head of its own for every asset, in one pack: opened, verified and seated
as a scorer does it. Then blocks of readings, every one of another asset in turn, so that windows and trees come from
memory once there are many.
"""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from wheeltapper.features import KERNELS
from wheeltapper.forest import NODE, Trees
from wheeltapper.live import LiveFleet
from wheeltapper.pack import AssetContent, ClassContent, HeadContent, Output, PackContent, Why, open_pack, save_pack
from wheeltapper.spec import ClassSpec, Sensor, Target, features_of

from benchmarks.harness import Row, alternate, compared, cpu_seconds, main, require

SENSORS, WINDOWS, CADENCE_US = 8, (10, 60), 1_000_000
CLASS_TREES, OWN_TREES, CLASS_DEPTH, OWN_DEPTH = 100, 10, 6, 4
BLOCK, ROUND = 256, 102_400  # rows of a block; readings of a timed round
BLOCKS = (256, 1_024, 8_192)  # that several threads share
_START_S_MAX = 10.0
_NOW_US = 2**60


def spec() -> ClassSpec:
    sensors = tuple(Sensor(f"s{i}") for i in range(SENSORS))
    statistics = ("mean", "std", "min", "max", "range", "slope")
    return ClassSpec("pump", sensors, CADENCE_US, WINDOWS, statistics, 0, 0, (Target("rul", "rul", cap=1e9),))


def complete_trees(rng: np.random.Generator, features: int, count: int, depth: int) -> Trees:
    """Trees without a missing node, the most that a walk of their depth can touch."""
    inner, nodes = 2**depth - 1, 2 ** (depth + 1) - 1
    made = np.zeros((count, nodes), NODE)
    made["value"] = rng.normal(size=made.shape)
    made["feature"][:, :inner] = rng.integers(0, 2 * features, (count, inner))
    made["feature"][:, inner:] = 2 * features
    made["left"] = np.where(np.arange(nodes) < inner, 2 * np.arange(nodes) + 1, np.arange(nodes))
    cover = np.tile(np.float32(2.0) ** -np.floor(np.log2(np.arange(nodes) + 1)).astype(np.float32), count)
    begin = np.arange(count + 1, dtype=np.int64) * nodes
    return Trees(made.ravel(), begin, np.full(count, depth, np.uint8), cover)


def write(path: Path, assets: int) -> None:
    known, rng = spec(), np.random.default_rng(1)
    features = len(features_of(known))
    own = [complete_trees(rng, features, OWN_TREES, OWN_DEPTH) for _ in range(50)]
    heads = [HeadContent(0, 0, 2, complete_trees(rng, features, CLASS_TREES, CLASS_DEPTH), base=100.0)]
    heads += [HeadContent(0, 0, 3, own[i % len(own)], parent=0) for i in range(assets)]
    fleet = [AssetContent(name(i), 0, (i + 1,), (Why.OWN_HEAD_KEPT,)) for i in range(assets)]
    classes = (ClassContent(known, (Output("rul", "rul", 0, 1, cap=1e9),), (0,)),)
    save_pack(PackContent("bench", 1, KERNELS, classes, heads, fleet), path)


def name(i: int) -> str:
    return f"pump-{i:06}"


class Crowd:
    """A fleet with some of its assets open, windows full, and readings that go on from there."""

    def __init__(self, path: Path, assets: int, threads: int = 1) -> None:
        self.fleet = LiveFleet(open_pack(path, KERNELS), 1, threads=threads)
        self.rows = self.fleet.open_assets("pump", [name(i) for i in range(assets)])
        self.values = np.random.default_rng(2).normal(size=(BLOCKS[-1], SENSORS)).astype(np.float32)
        self.slot, self.at = 1_000, 0
        self.read((WINDOWS[-1] + 1) * assets)

    def read(self, count: int, block: int = BLOCK) -> None:
        """So many readings, every asset in turn; no block has an asset twice."""
        size = min(block, len(self.rows))
        for _ in range(-(-count // size)):
            rows = self.rows[self.at : self.at + size]
            times = np.full(len(rows), self.slot * CADENCE_US)
            self.last = self.fleet.score("pump", rows, times, self.values[: len(rows)], _NOW_US)
            self.at += size
            if self.at >= len(self.rows):
                self.slot, self.at = self.slot + 1, 0

    def timed(self, block: int = BLOCK) -> float:
        """µs of CPU time per reading."""
        count = ROUND if block > 1 else ROUND // 10
        return cpu_seconds(lambda: self.read(count, block)) / count * 1e6

    def wall(self, block: int) -> float:
        """µs of wall time per reading."""
        began = time.perf_counter()
        self.read(ROUND, block)
        return (time.perf_counter() - began) / ROUND * 1e6

    def bytes_per_asset(self) -> int:
        held = self.fleet.held("pump")
        return sum(column[:1].nbytes for column in (*held.windows, *held.assets))


def start(path: Path, assets: int) -> float:
    """CPU seconds until a scorer with every asset open could answer: map, verify, seat."""
    names = [name(i) for i in range(assets)]

    def work() -> None:
        LiveFleet(open_pack(path, KERNELS), 1).open_assets("pump", names)

    return cpu_seconds(work)


def agree(few: Crowd, many: Crowd) -> None:
    """The same readings of the same assets have the same scores, whoever else is resident."""
    rng, count = np.random.default_rng(3), len(few.rows)
    for slot in range(WINDOWS[-1]):
        values = rng.normal(size=(count, SENSORS)).astype(np.float32)
        times = np.full(count, (10**9 + slot) * CADENCE_US)
        one, other = (c.fleet.score("pump", c.rows[:count], times, values, _NOW_US) for c in (few, many))
        require(one.values.tobytes() == other.values.tobytes(), "a crowd changes no bit of a score")
    require(bool((one.levels == 3).all()) and not np.isnan(one.values).any(), "every asset's own head answers")
    few.slot = many.slot = 10**9 + WINDOWS[-1]
    few.at = many.at = 0


def _threads(path: Path, assets: int, cores: int, rounds: int) -> list[Row]:
    """Large blocks on one core and on all of them: the same bits, less time."""
    one, all_cores = Crowd(path, assets), Crowd(path, assets, threads=cores)
    agree(one, all_cores)
    works = {(n, crowd): partial(crowd.wall, n) for n in BLOCKS for crowd in (one, all_cores)}
    found = alternate({f"{n} {crowd is one}": work for (n, crowd), work in works.items()}, rounds)
    return [
        compared(
            f"a reading in blocks of {n:,} of {assets:,} assets, {cores} threads: wall time", "µs", found[f"{n} False"],
            "one thread", found[f"{n} True"],
        )
        for n in BLOCKS
    ]  # fmt: skip


def measure(short: bool) -> list[Row]:
    sizes = (100, 1_000, 10_000) if short else (100, 1_000, 10_000, 100_000)
    most = sizes[-1]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fleet.pack"
        write(path, most)
        gc.collect()
        small = Crowd(path, sizes[0])  # compiles; what it verifies is not timed
        starts = [start(path, most) for _ in range(1 if short else 3)]
        crowds = {size: small if size == sizes[0] else Crowd(path, size) for size in sizes}
        agree(small, crowds[most])
        works: dict[str, Callable[[], float]] = {f"{size:,}": crowd.timed for size, crowd in crowds.items()}
        blocks = {f"blocks of {block}": partial(small.timed, block) for block in (1, 16)}
        found = alternate(works | blocks, 3 if short else 7)
        cores = len(os.sched_getaffinity(0))
        apart = _threads(path, min(most, 10_000), cores, 3 if short else 7) if cores > 1 else []
        own = (
            f"{most:,} assets with {OWN_TREES} own trees × depth {OWN_DEPTH} on a class's {CLASS_TREES} × {CLASS_DEPTH}"
        )
        limit = _START_S_MAX * most / 100_000
        rows = [
            compared(f"start: open, verify, seat {own}", "CPU s", starts, f"goal of {limit:g} s", [limit]),
            Row(f"{own}: file", path.stat().st_size / most, "bytes an asset"),
            Row(f"windows and alarms, {SENSORS} sensors, windows {WINDOWS}", small.bytes_per_asset(), "bytes an asset"),
        ]
        case = f"a reading in blocks of up to {BLOCK}, every one another asset's, resident"
        hot = found[f"{sizes[0]:,}"]
        rows += [compared(f"{case}: {size}", "µs", found[size], f"{sizes[0]} resident: floor", hot) for size in works]
        rows += apart
        return rows + [
            compared(
                f"a reading in {block}, the whole call from Python", "µs", found[block], "blocks of 100: floor", hot
            )
            for block in blocks
        ]


if __name__ == "__main__":
    main("fleet", "Start, memory and cost of a reading with a whole fleet resident.", measure)
