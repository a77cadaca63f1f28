"""Releases swapped while streams run: nothing fails, and every answer is that of the release it names."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest
from crowd import Crowd
from presses import content
from serving import Running, promote
from wheeltapper.features import KERNELS
from wheeltapper.live import LiveFleet
from wheeltapper.pack import AssetContent, Pack, Why, write_pack
from wheeltapper.registry import Registry
from wheeltapper_proto import scoring_pb2 as pb

STREAMS, ROWS = 16, 8


def rss_kb(server: Running) -> int:
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def swap_under_load(running: Running, registry: Registry, packs: dict[str, bytes], swaps: int) -> dict[str, float]:
    heard: dict[tuple[int, int], tuple[int, bytes]] = {}

    def note(stream: int, sequence: int, scores: pb.ScoreBlock) -> None:
        assert set(scores.status) == {pb.ROW_STATUS_OK}
        heard[stream, sequence] = (scores.release, np.array(scores.values, np.float32).tobytes())

    async def check() -> dict[str, float]:
        calm = await Crowd(running.address, STREAMS, ROWS).run(2.0)  # other assets would be kinder; these are warm
        crowd = Crowd(running.address, STREAMS, ROWS, note, first=1_000_000)
        busy = asyncio.create_task(crowd.run(3600.0))
        figures = {"rss_kb_first": 0.0}
        for done in range(swaps):
            await asyncio.to_thread(promote, registry, 2 if done % 2 == 0 else 1)
            deadline = time.monotonic() + 20
            while running.events().count("reloaded") <= done:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)
            if done == min(10, swaps // 2):
                figures["rss_kb_first"] = rss_kb(running)
        figures["rss_kb_last"] = rss_kb(running)
        crowd.stop.set()
        result = await busy
        assert not result.failures + result.refusals
        assert set(result.releases) == {1, 2}
        figures["p99_ms_calm"] = 1e3 * float(np.percentile(calm.block_s, 99))
        figures["p99_ms_swapping"] = 1e3 * float(np.percentile(result.block_s, 99))
        return figures

    figures = asyncio.run(check())
    references = {n: LiveFleet(Pack.from_bytes(packs[name], KERNELS), n) for n, name in ((1, "first"), (2, "second"))}
    crowd = Crowd("", STREAMS, ROWS, first=1_000_000)
    for stream in range(STREAMS):
        rows = {n: np.repeat(fleet.open_assets("press", [f"crowd-{stream}"]), ROWS) for n, fleet in references.items()}
        for sequence in range(1, 1 + sum(key[0] == stream for key in heard)):
            release, values = heard[stream, sequence]
            sent = pb.StreamRequest.FromString(crowd.request(stream, sequence)).readings
            expected = {}
            for n, fleet in references.items():
                told = np.array(sent.values, np.float32).reshape(ROWS, -1)
                answers = fleet.score("press", rows[n], np.array(sent.times), told, time.time_ns() // 1_000)
                expected[n] = answers.values.tobytes()
            if sequence > 1:  # before, the windows still held the calm time's readings
                assert values == expected[release], (stream, sequence, release)
            assert sequence < 3 or expected[1] != expected[2]
    return figures


def test_every_answer_is_that_of_the_release_it_names(running: Running, registry: Registry, packs) -> None:
    swap_under_load(running, registry, packs, 30)


@pytest.mark.slow
def test_a_thousand_swaps(running: Running, registry: Registry, packs, capsys: pytest.CaptureFixture[str]) -> None:
    figures = swap_under_load(running, registry, packs, 1_000)
    with capsys.disabled():
        print(f"\n1,000 swaps: {figures}")
    assert figures["rss_kb_last"] < 1.1 * figures["rss_kb_first"]
    assert figures["p99_ms_swapping"] < 1.5 * figures["p99_ms_calm"]


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
