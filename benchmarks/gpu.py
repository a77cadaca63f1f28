"""What a GPU is worth: readings per second with windows and forests resident, by heads and by rows of a block.

The CPU is the judge: both fleets must give the same bits before anything is timed. Peers are one core, and two floors:
what a reading touches in the card's memory at the bandwidth of a copy there, and what it sends and gets over the bus at
the bandwidth of a pinned copy. Under Numba's simulator the same runs at a size that says nothing about speed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from wheeltapper import cuda
from wheeltapper.cuda_fleet import CudaFleet
from wheeltapper.errors import Refused
from wheeltapper.features import KERNELS
from wheeltapper.forest import Trees, plant
from wheeltapper.live import LiveFleet
from wheeltapper.pack import AssetContent, ClassContent, HeadContent, Output, Pack, PackContent, Why, write_pack
from wheeltapper.spec import ClassSpec, Sensor, Target, features_of
from wheeltapper.windows import EMPTY, GROUP

from benchmarks.harness import Row, compared, main, require

MINUTE_US = 60_000_000
START_US = 1_700_000_000_000_000 // MINUTE_US * MINUTE_US
NOW_US = START_US + 10**15
SENSORS, WINDOWS = 16, (10, 60)
SECTOR = 32  # bytes that a card reads at once
CPU_ROWS_MAX = 32_768  # a core's rate does not change beyond
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    heads: tuple[int, ...]
    blocks: tuple[int, ...]
    trees: int
    own_trees: int
    depth: int
    rounds: int
    copy_bytes: int


TINY = Size((4,), (3, 8), 8, 2, 2, 1, 1 << 12)
SHORT = Size((1_000, 10_000), (256, 4_096, 65_536), 100, 10, 6, 3, 1 << 28)
FULL = Size((1_000, 10_000, 100_000), (256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576), 100, 10, 6, 5, 1 << 30)


def spec() -> ClassSpec:
    sensors = tuple(Sensor(f"s{i}") for i in range(SENSORS))
    statistics = ("mean", "std", "min", "max", "range", "slope")
    return ClassSpec("bench", sensors, MINUTE_US, WINDOWS, statistics, 3, 0, (Target("rul", "rul", cap=1e9),))


def complete_trees(rng: np.random.Generator, trees: int, depth: int, features: int) -> Trees:
    """Complete trees with random splits."""
    inner, size = 2**depth - 1, 2 ** (depth + 1) - 1
    node = np.arange(size)
    left = np.where(node < inner, 2 * node + 1, -1).astype(np.int32)
    right = np.where(node < inner, 2 * node + 2, -1).astype(np.int32)
    return plant(
        np.arange(trees + 1, dtype=np.int64) * size, np.tile(left, trees), np.tile(right, trees),
        rng.integers(0, features, trees * size).astype(np.int32), rng.normal(size=trees * size).astype(np.float32),
        rng.random(trees * size) < 0.5, np.ones(trees * size, np.float32), features,
    )  # fmt: skip


def pack_of(heads: int, size: Size) -> Pack:
    """One class whose assets each continue its forest with trees of their own."""
    rng, one = np.random.default_rng(heads), spec()
    width = len(features_of(one))
    own = [complete_trees(rng, size.own_trees, size.depth, width) for _ in range(16)]
    known = HeadContent(0, 0, 2, complete_trees(rng, size.trees, size.depth, width))
    heads_of = [known, *(HeadContent(0, 0, 3, own[k % 16], parent=0) for k in range(heads))]
    assets = [AssetContent(f"m{k:07d}", 0, (k + 1,), (Why.OWN_HEAD_KEPT,)) for k in range(heads)]
    classes = (ClassContent(one, (Output("rul", "rul", 0, 1, cap=1e9),), (0,)),)
    return Pack.from_bytes(write_pack(PackContent("gpu", 1, KERNELS, classes, tuple(heads_of), tuple(assets), {})))


class Streams:
    """Readings of every asset, one a minute: each block goes on where the one before it ended."""

    def __init__(self, heads: int) -> None:
        self.clock, self.next = np.full(heads, START_US, np.int64), 0
        self.values = np.random.default_rng(1).normal(50, 20, (4_096, SENSORS)).astype(np.float32)

    def block(self, rows: int) -> tuple[Array, Array, Array]:
        which = (self.next + np.arange(rows)) % len(self.clock)
        times = self.clock[which] + (np.arange(rows) // len(self.clock) + 1) * MINUTE_US
        np.maximum.at(self.clock, which, times)
        self.next = int(self.next + rows) % len(self.clock)
        return which, times, self.values[np.arange(rows) % len(self.values)]


def filled(pack: Pack, heads: int) -> tuple[LiveFleet, CudaFleet, Streams, Streams]:
    """Both fleets with full windows, having answered the same on the way."""
    cpu, gpu = LiveFleet(pack, 1), CudaFleet(pack, 1)
    names = [f"m{k:07d}" for k in range(heads)]
    for fleet in (cpu, gpu):
        fleet.open_assets("bench", names)
    streams = Streams(heads)
    for _ in range(WINDOWS[-1]):
        cpu.score("bench", *streams.block(heads), NOW_US, historical=True)
    here, there = cpu.held("bench"), gpu.held("bench")
    sources: list[Array] = [*here.windows, here.assets.alarm, here.assets.run]
    targets: list[Array] = [*there.windows, there.assets.alarm, there.assets.run]
    for source, target in zip(sources, targets, strict=True):
        target[...] = source
    other = Streams(heads)
    other.clock[:], other.next = streams.clock, streams.next
    for rows in (heads, 2 * heads + 1):
        one = cpu.score("bench", *streams.block(rows), NOW_US, want_features=True)
        two = gpu.score("bench", *other.block(rows), NOW_US, want_features=True)
        for name in ("status", "values", "levels", "alarms", "health", "features"):
            require(getattr(one, name).tobytes() == getattr(two, name).tobytes(), f"CPU and GPU give the same {name}")
    require(int((here.windows.newest != EMPTY).sum()) == heads, "every window is in use")
    return cpu, gpu, streams, other


def rates(fleet: LiveFleet, streams: Streams, rows: int, rounds: int) -> list[float]:
    """Readings per second of blocks of so many rows."""
    fleet.score("bench", *streams.block(rows), NOW_US)
    found = []
    for _ in range(rounds):
        block = streams.block(rows)
        begin = time.perf_counter()
        fleet.score("bench", *block, NOW_US)
        found.append(rows / (time.perf_counter() - begin))
    return found


def copy_rates(size: Size) -> tuple[float, float]:
    """Bytes per second of a copy within the card (read and write counted) and of a pinned copy to it."""
    here = cuda.staged((size.copy_bytes,), np.uint8)
    here[...] = 1
    there, other = cuda.empty(here.shape, np.uint8), cuda.empty(here.shape, np.uint8)
    queue = cuda.stream()

    def fastest(work: Callable[[], object]) -> float:
        seconds = []
        for _ in range(5):
            begin = time.perf_counter()
            work()
            cuda.finish(queue)
            seconds.append(time.perf_counter() - begin)
        return min(seconds)

    def within() -> None:
        if cuda.SIMULATED:
            other[...] = there
        else:
            other.copy_to_device(there, stream=queue)

    return 2 * size.copy_bytes / fastest(within), size.copy_bytes / fastest(lambda: cuda.send(here, there, queue))


def touched_bytes(size: Size) -> int:
    """What a reading touches on the card: two groups of slots, the kept sums, and a sector a tree and level."""
    groups = -(-WINDOWS[-1] // GROUP) + 1
    window = 2 * GROUP * SENSORS * 4 + groups * SENSORS * (3 * 8 + 2 * 4 + 2)
    return window + (size.trees + size.own_trees) * (size.depth + 1) * SECTOR


def measure(short: bool) -> list[Row]:
    try:
        cuda.require_device()
    except Refused as refusal:
        raise SystemExit(f"benchmarks.gpu: {refusal}; {refusal.hint}") from None
    size = TINY if cuda.SIMULATED else SHORT if short else FULL
    within, bus = copy_rates(size)
    wire = 8 + 8 + 8 + SENSORS * 4 + 8 + 8 + 1 + 4 + 1 + 1 + 1
    floors = {
        "a copy's bandwidth within the card: floor": within / touched_bytes(size),
        "a pinned copy's bandwidth over the bus: floor": bus / wire,
    }
    rows = []
    for heads in size.heads:
        cpu, gpu, streams, other = filled(pack_of(heads, size), heads)
        winning = []
        for block in size.blocks:
            one = rates(cpu, streams, min(block, CPU_ROWS_MAX), size.rounds)
            found = rates(gpu, other, block, size.rounds)
            case = f"{heads:,} heads of {size.trees} + {size.own_trees} trees, blocks of {block:,}"
            rows.append(compared(case, "readings/s", found, "one CPU core", one, more_is_better=True))
            for name, floor in floors.items():
                rows.append(compared(case, "readings/s", found, name, [floor], more_is_better=True))
            if np.median(found) > np.median(one):
                winning.append(block)
        which = "the smallest block" if winning else "no block"
        rows.append(Row(f"{heads:,} heads: {which} in which the GPU beats one core", min(winning, default=0), "rows"))
    return rows


if __name__ == "__main__":
    main("gpu", "What a GPU is worth, by resident heads and rows of a block.", measure)
