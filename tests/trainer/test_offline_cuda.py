"""`wheeltapper score --device cuda` under Numba's simulator writes the bytes that the CPU writes; without a GPU it is
refused, as `wheeltapper serve` is."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import trips
from presses import MINUTE_US, PRESS, content
from wheeltapper.errors import UsageError
from wheeltapper.pack import write_pack
from wheeltapper_command.errors import Exit
from wheeltapper_trainer.history_writer import HistoryWriter
from wheeltapper_trainer.offline import Order
from wheeltapper_trainer.records import Asset

START = 1_700_000_000_000_000 // MINUTE_US * MINUTE_US


@pytest.fixture
def place(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    (tmp_path / "press.pack").write_bytes(write_pack(content(5)))
    with HistoryWriter(tmp_path / "history", {"press": tuple(sensor.name for sensor in PRESS.sensors)}) as writer:
        for name in ("a-1", "a-2", "new"):
            times = START + np.cumsum(rng.choice([0, MINUTE_US // 2, MINUTE_US, 5 * MINUTE_US], 60)).astype(np.int64)
            writer.add(Asset(name, "press", {"age": 2.0}), times, rng.normal(50, 20, (60, 3)).astype(np.float32))
            writer.add_events([(name, int(times[k]), "error", "e1") for k in (10, 11, 40)])
    return tmp_path


def run(place: Path, *words: str, simulated: bool) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1" if simulated else "0", "CUDA_VISIBLE_DEVICES": ""}
    line = [*trips.WHEELTAPPER, *words, "-o", "json", "--quiet"]
    return subprocess.run(line, cwd=place, env=environment, capture_output=True, text=True, timeout=280, check=False)


def test_a_gpu_writes_the_bytes_of_a_cpu(place: Path) -> None:
    found = []
    for device in ("cpu", "cuda"):
        words = ("score", "history", "--pack", "press.pack", "--out", f"{device}.parquet", "--features")
        done = run(place, *words, "--device", device, simulated=True)
        assert done.returncode == Exit.DONE, done.stderr
        assert json.loads(done.stdout)["readings_read"] == 180
        found.append((place / f"{device}.parquet").read_bytes())
    assert found[0] == found[1]


def test_without_a_gpu_both_verbs_are_refused(place: Path) -> None:
    for words in (
        ("score", "history", "--pack", "press.pack", "--out", "a.parquet", "--device", "cuda"),
        ("serve", "--pack", "press.pack", "--listen", "127.0.0.1:0", "--device", "cuda"),
    ):
        done = run(place, *words, simulated=False)
        assert done.returncode == Exit.REFUSED, (words, done.stderr)
        assert "expected an NVIDIA GPU" in done.stderr + done.stdout
    assert not (place / "a.parquet").exists()


def test_a_cluster_has_no_say_over_this_machines_gpu() -> None:
    with pytest.raises(UsageError, match="found a Ray cluster"):
        Order("history", Path("a.parquet"), address="ray://there:1", device="cuda")
