"""`wheeltapper serve --device cuda` under the CUDA simulator: answers, a swap, windows that come back after a stop."""

from __future__ import annotations

from pathlib import Path

import grpc
import numpy as np
import pytest
from serving import MINUTE_US, ask, block, now_us, opening, promote, run_server, values_of
from wheeltapper.features import KERNELS
from wheeltapper.live import LiveFleet
from wheeltapper.pack import Pack
from wheeltapper.registry import Registry


@pytest.mark.slow
def test_a_gpu_serves_what_a_cpu_would(
    registry: Registry, packs: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    assets = ("a-1", "a-2", "new")
    begin, rng = now_us() - 60 * MINUTE_US, np.random.default_rng(8)
    cpu = LiveFleet(Pack.from_bytes(packs["first"], KERNELS), 1)
    rows = cpu.open_assets("press", assets)

    def exchange(address: str, sequence: int, minute: int) -> None:
        handles = rng.integers(0, 3, 12)
        times = begin + (minute + rng.permutation(12) - 3) * MINUTE_US
        values = rng.uniform(10, 90, (12, 3)).astype(np.float32)
        expected = cpu.score("press", rows[handles], times, values, now_us())
        with grpc.insecure_channel(address) as channel:
            told = ask(channel, opening(*assets), block(sequence, handles.tolist(), times.tolist(), values))
        scores = next(one.scores for one in told if one.HasField("scores"))
        assert scores.release == cpu.release
        np.testing.assert_array_equal(values_of(scores, 2), expected.values)
        np.testing.assert_array_equal(np.frombuffer(bytes(scores.status), np.uint8), expected.status)

    state = ("--device", "cuda", "--state", str(tmp_path / "state"))
    with run_server(registry.path, *state) as server:
        exchange(server.address, 1, 0)
        exchange(server.address, 2, 6)
        promote(registry, 2)
        server.wait_for("reloaded")
        cpu.swap(Pack.from_bytes(packs["second"], KERNELS), 2)
        exchange(server.address, 3, 12)
    with run_server(registry.path, *state) as server:
        server.wait_for("recovered")
        exchange(server.address, 4, 18)
