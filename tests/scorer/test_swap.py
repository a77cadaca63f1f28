"""Releases swapped while streams run: nothing fails, and every answer is that of the release it names."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from pacing import Answer, Pace, check, references
from presses import content
from serving import Running
from wheeltapper.chain import sealed
from wheeltapper.features import KERNELS
from wheeltapper.live import LiveFleet
from wheeltapper.pack import AssetContent, Pack, Why, write_pack
from wheeltapper.registry import Registry

STREAMS, ASSETS = 16, 64
SWAPS = 20  # of a round
LOAD = 0.8  # of what the scorer sustains just then


class Releases:
    """Promotions as a scorer sees them, one linked entry each. A registry's own writer reads its whole chain again each
    time, which is another machine's work and would be felt here."""

    def __init__(self, registry: Registry, server: Running) -> None:
        self._folder, self._document, self._last = registry.path / "releases", {}, registry.history()[-1]
        self._log = server.log.open()
        self._log.read()

    async def swap(self) -> None:
        """Move production to the other one of releases 1 and 2, and wait until the scorer has."""
        before = self._last.document
        document = {**before, "number": self._last.number + 1, "previous": self._last.sha256, "from": before["to"]}
        document["to"] = document["release"] = 3 - before["to"]
        document["pack"] = json.loads((self._folder / f"{document['to']}.json").read_bytes())["pack"]
        raw = sealed(document, None)
        temporary = self._folder.parent / "tmp" / "next"
        temporary.write_bytes(raw)
        temporary.rename(self._folder / f"{document['number']}.json")
        self._last = dataclasses.replace(self._last, document=document, sha256=hashlib.sha256(raw).hexdigest())
        deadline = time.monotonic() + 20
        while not any('"reloaded"' in line for line in self._log.readlines()):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)


def rss_kb(server: Running) -> int:
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


@dataclasses.dataclass
class Round:
    """The same load without swaps and with them."""

    per_s: float
    calm_s: list[float]  # from when a block should have left to its answer
    swapping_s: list[float]
    rss_kb: int

    def p99_ms(self) -> tuple[float, float]:
        return 1e3 * float(np.percentile(self.calm_s, 99)), 1e3 * float(np.percentile(self.swapping_s, 99))


async def swap_under_load(
    server: Running, registry: Registry, packs: dict[str, bytes], rounds: int, every_s: float
) -> list[Round]:
    """Rounds of SWAPS swaps each; in every second one they come before the calm. Every answer is checked.

    every_s: from one swap to the next; 0: as fast as the scorer follows, about eight a second.
    """
    fleets = {n: LiveFleet(Pack.from_bytes(packs[name], KERNELS), n) for n, name in ((1, "first"), (2, "second"))}
    expected = references(fleets, STREAMS, ASSETS)
    assert len(set(expected.values())) == len(expected), "each release says something else of every block"
    pace, releases, found = Pace(server.address, STREAMS, ASSETS), Releases(registry, server), []
    await pace.open()

    async def steady(seconds: float) -> list[Answer]:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(seconds, stop.set)
        return await pace.steady(per_s, stop)

    async def swapping() -> list[Answer]:
        stop = asyncio.Event()
        pacing = asyncio.create_task(pace.steady(per_s, stop))
        for _ in range(SWAPS):
            began = time.monotonic()
            await releases.swap()
            await asyncio.sleep(max(0.0, began + every_s - time.monotonic()))
        stop.set()
        return await pacing

    for number in range(rounds):
        per_s = LOAD * await pace.saturate(0.5)
        if number % 2 == 0:
            calm, busy = await steady(SWAPS * max(every_s, 0.1)), await swapping()
        else:
            busy, calm = await swapping(), await steady(SWAPS * max(every_s, 0.1))
        check(calm, expected)
        assert check(busy, expected) == {1, 2}
        found.append(Round(per_s, [one.late_s for one in calm], [one.late_s for one in busy], rss_kb(server)))
    await pace.close()
    return found


def test_every_answer_is_that_of_the_release_it_names(running: Running, registry: Registry, packs) -> None:
    asyncio.run(swap_under_load(running, registry, packs, 1, every_s=0.0))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_thousand_swaps(running: Running, registry: Registry, packs, capsys: pytest.CaptureFixture[str]) -> None:
    """ROUNDS=10 for fewer; EVERY_S=0 for as fast as the scorer follows."""
    rounds = int(os.environ.get("ROUNDS", "50"))
    every_s = float(os.environ.get("EVERY_S", "0.25"))
    found = asyncio.run(swap_under_load(running, registry, packs, rounds, every_s))
    p99_ms = np.array([one.p99_ms() for one in found])
    ratio = p99_ms[:, 1] / p99_ms[:, 0]
    answers = sum(len(one.calm_s) + len(one.swapping_s) for one in found)
    per_s = np.median([one.per_s for one in found])
    with capsys.disabled():
        print(
            f"\n{SWAPS * rounds:,} swaps under {per_s:,.0f} blocks/s of {4 * ASSETS} rows, {LOAD:.0%} of what was "
            f"sustained: {answers:,} answers, each that of the release it names; p99 without and with swaps "
            f"{np.median(p99_ms[:, 0]):.1f} and {np.median(p99_ms[:, 1]):.1f} ms, in pairs × {np.median(ratio):.2f} "
            f"({np.quantile(ratio, 0.25):.2f} to {np.quantile(ratio, 0.75):.2f}); "
            f"{found[0].rss_kb / 1024:.0f} to {found[-1].rss_kb / 1024:.0f} MB"
        )
    assert found[-1].rss_kb < 1.1 * found[0].rss_kb
    assert np.median(ratio) < 1.5  # single pairs stray threefold, also without swaps


def test_a_prepared_swap_of_many_assets_does_not_hold_the_loop() -> None:
    """100,000 open assets that the pack knows: what happens between two blocks is a copy, not 100,000 look-ups."""
    ids = [f"m-{i:06}" for i in range(100_000)]
    known = tuple(AssetContent(asset, 0, (0, 1, 2), (Why.TOO_LITTLE_HISTORY,) * 3, (1.0,)) for asset in ids)
    packs = [Pack.from_bytes(write_pack(dataclasses.replace(content(n), assets=known)), KERNELS) for n in (1, 2)]
    fleet = LiveFleet(packs[0], 1)
    rows = fleet.open_assets("press", ids)
    began = time.process_time()
    prepared = fleet.prepare(packs[1], 2)
    fleet.open_assets("press", ["late-comer"])  # while the swap was prepared
    ready = time.process_time()
    fleet.swap(prepared)
    took_s, prepared_s = time.process_time() - ready, ready - began
    assert took_s < 0.05, (took_s, prepared_s)
    assert fleet.release == 2
    assert (fleet.open_assets("press", ids) == rows).all()
    assert fleet.levels("press", fleet.open_assets("press", ["late-comer", ids[-1]])).tolist() == [2, 2]
