"""A training run whose driver and workers are killed by real signals goes on where it stopped, to the same bytes."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
import trips
from processes import Marked

SHARES = (0.1, 0.5, 0.9)  # of the finished work, at which the driver is killed


def finished(run: Path) -> dict[str, int]:
    """The entries of the run folder's memory, and which file each is: written again, it is another one."""
    return {str(path.relative_to(run)): path.stat().st_ino for path in (run / "done").rglob("*.json")}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_driver_costs_only_what_was_in_flight(tmp_path: Path) -> None:
    history, run = tmp_path / "history", tmp_path / "run"
    trips.wheeltapper("simulate", history, "--assets", 12, "--days", 100, "--seed", 5)
    trips.lighter(history / "fleet.toml", rounds=30)
    words = ("train", history / "fleet.toml", "--history", history, "--cpus", 2)
    undisturbed = trips.wheeltapper(
        *words, "--registry", tmp_path / "undisturbed", "--run-dir", tmp_path / "calm", seconds=300
    )
    total = len(finished(tmp_path / "calm"))

    known: dict[str, int] = {}
    for number, share in enumerate(SHARES):
        killed = Marked(
            f"{tmp_path.name}-{number}", *words, "--registry", tmp_path / "registry", "--run-dir", run, "--resume"
        )
        try:
            entries = max(len(known) + 1, share * total)
            killed.wait_until(lambda least=entries: len(finished(run)) >= least)
            killed.kill()
        finally:
            killed.sweep()
        now = finished(run)
        assert known.items() <= now.items(), "finished work was done again"
        assert len(now) < total
        known = now
    assert not (tmp_path / "registry" / "releases").exists()

    last = Marked(f"{tmp_path.name}-last", *words, "--registry", tmp_path / "registry", "--run-dir", run, "--resume")
    try:
        said, log = last.process.communicate(timeout=300)
        assert last.process.returncode == 0, log
        time.sleep(1)
        assert not last.alive()
    finally:
        last.sweep()
    result = json.loads(said)
    assert known.items() <= finished(run).items()
    assert result["work_reused"] == len(known)
    assert result["pack"] == undisturbed["pack"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_worker_leaves_no_trace(tmp_path: Path) -> None:
    history = tmp_path / "history"
    trips.wheeltapper("simulate", history, "--assets", 10, "--days", 100, "--seed", 5)
    trips.lighter(history / "fleet.toml", rounds=30)
    words = ("train", history / "fleet.toml", "--history", history, "--cpus", 2)
    calm = trips.wheeltapper(*words, "--registry", tmp_path / "calm", seconds=300)
    hit = Marked(tmp_path.name, *words, "--registry", tmp_path / "registry")
    killed: list[int] = []
    try:
        for stage in ("ray::sample_chunk", "ray::train_chunk"):
            hit.wait_until(lambda said=stage: bool(hit.alive(said)))
            for pid in hit.alive(stage)[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
        said, log = hit.process.communicate(timeout=300)
        assert hit.process.returncode == 0, log
    finally:
        hit.sweep()
    assert len(killed) == 2
    assert json.loads(said)["assets_failed"] == 0
    assert json.loads(said)["pack"] == calm["pack"]
