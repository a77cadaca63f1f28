"""Whatever a task does to its worker, every task ends as Done or Failed, and nothing is left running."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from wheeltapper.errors import CommandError, UsageError
from wheeltapper_trainer.cluster import Cluster, Done, Failed, Limits, Task


def act(folder: str, names: tuple[str, ...]) -> int:
    """A stage function: each name says what happens to it; a line in a file counts the attempt."""
    for name in names:
        with Path(folder, name).open("a") as file:
            file.write("x")
        if name.startswith("raise"):
            raise ValueError(f"{name} cannot be trained")
        if name.startswith("crash"):
            os.kill(os.getpid(), signal.SIGKILL)
        if name.startswith("hang"):
            time.sleep(120)
        if name.startswith("twice") and Path(folder, name).stat().st_size < 2:
            os.kill(os.getpid(), signal.SIGSEGV)
    return len(names)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(cpus=2, preload=["wave"]) as found:
        yield found


def tasks_of(folder: Path, chunks: list[tuple[str, ...]]) -> list[Task]:
    def single(name: str) -> Task:
        return Task(name, (str(folder), (name,)))

    return [Task("+".join(c), (str(folder), c), tuple(single(n) for n in c) if len(c) > 1 else ()) for c in chunks]


def test_every_task_ends_and_a_bad_asset_is_found_alone(
    cluster: Cluster, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    chunks = [("a", "b"), ("c", "raise1", "d"), ("e",), ("crash1", "f"), ("twice1",), ("g", "hang1")]
    ended = list(cluster.run(act, tasks_of(tmp_path, chunks), Limits(task_seconds_max=5, attempts_max=2)))
    done = {e.task.name for e in ended if isinstance(e, Done)}
    failed = {e.task.name: e for e in ended if isinstance(e, Failed)}
    assert done == {"a+b", "c", "d", "e", "f", "twice1", "g"}
    assert failed.keys() == {"raise1", "crash1", "hang1"}
    assert failed["raise1"].reason == "ValueError: raise1 cannot be trained"
    assert "died" in failed["crash1"].reason
    assert failed["hang1"].reason == "no answer within 5 s"
    assert {f.attempts for f in failed.values()} == {2}
    # Once in its chunk, then the bounded attempts alone; a healthy neighbour never more than twice.
    assert {n: (tmp_path / n).stat().st_size for n in ("raise1", "crash1", "hang1")} == {
        "raise1": 3,
        "crash1": 3,
        "hang1": 3,
    }
    assert (tmp_path / "a").stat().st_size == 1
    assert (tmp_path / "g").stat().st_size == 2
    time.sleep(0.5)
    assert capfd.readouterr().out == ""  # `-o json` owns stdout


def test_a_worker_may_take_longer_to_start_than_its_task_may(cluster: Cluster, tmp_path: Path) -> None:
    chunks = [("crash2",), ("crash3",), ("h",), ("i",)]  # those behind the crashes wait for new workers
    ended = list(cluster.run(act, tasks_of(tmp_path, chunks), Limits(task_seconds_max=2, attempts_max=1)))
    assert {e.task.name for e in ended if isinstance(e, Done)} == {"h", "i"}
    assert {e.task.name for e in ended if isinstance(e, Failed)} == {"crash2", "crash3"}


def environment(name: str) -> str | None:
    return os.environ.get(name)


def test_workers_use_one_thread_and_the_driver_keeps_its_environment(cluster: Cluster) -> None:
    [ended] = cluster.run(environment, [Task("threads", ("OMP_NUM_THREADS",))])
    assert isinstance(ended, Done)
    assert ended.result == "1"
    assert "NUMBA_NUM_THREADS" not in os.environ


def imported(name: str) -> list[str]:
    importlib.import_module(name)
    return [giant for giant in ("sklearn", "pandas", "scipy.stats", "matplotlib") if sys.modules.get(giant)]


def test_a_worker_imports_nothing_that_it_does_not_use(cluster: Cluster) -> None:
    pytest.importorskip("sklearn")  # XGBoost takes it in wherever it is installed
    [ended] = cluster.run(imported, [Task("imports", ("wheeltapper_trainer.chunk",))])
    assert isinstance(ended, Done)
    assert ended.result == []


def loaded(name: str) -> bool:
    return name in sys.modules


def test_a_start_brings_what_is_needed_and_no_more(cluster: Cluster) -> None:
    ended = cluster.run(loaded, [Task(name, (name,)) for name in ("wave", "aifc")])
    assert {one.task.name: one.result for one in ended if isinstance(one, Done)} == {"wave": True, "aifc": False}
    worker: Any = importlib.import_module("ray._private.worker")  # not before Ray's environment is set
    started = set(worker._global_node.all_processes)
    assert {"gcs_server", "raylet"} <= started
    assert not started & {"dashboard", "monitor", "log_monitor"}


def test_order_is_kept_and_no_more_tasks_fly_than_cpus(cluster: Cluster, tmp_path: Path) -> None:
    ended = list(cluster.run(act, tasks_of(tmp_path, [(f"t{i}",) for i in range(20)])))
    assert len(ended) == 20
    assert all(isinstance(e, Done) and e.result == 1 for e in ended)


def test_workers_go_on_while_the_caller_is_busy_with_a_result(cluster: Cluster, tmp_path: Path) -> None:
    ended = cluster.run(act, tasks_of(tmp_path, [(f"t{i}",) for i in range(8)]))
    next(ended)
    deadline = time.monotonic() + 20
    while len(list(tmp_path.iterdir())) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(list(tmp_path.iterdir())) == 4  # those that ran at first, and as many that waited with Ray
    assert len(list(ended)) == 7


def test_a_start_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's start is made to fail; that it works at last is every other test's business."""
    starts: list[str] = []

    def fail(**_: object) -> None:
        starts.append(threading.current_thread().name)
        raise RuntimeError("timed out during startup")

    monkeypatch.setattr("ray.init", fail)
    with Cluster(cpus=1) as other, pytest.raises(CommandError, match="Ray did not start on this machine: timed out"):
        other.wait_ready()
    assert len(starts) == 3
    with Cluster(cpus=1, address="127.0.0.1:1") as far, pytest.raises(CommandError, match="Ray did not start at"):
        far.wait_ready()
    assert len(starts) == 4


def test_limits_and_cpus_are_checked() -> None:
    for wrong in ((0.0, 1), (1.0, 0)):
        with pytest.raises(UsageError):
            Limits(*wrong)
    with pytest.raises(UsageError):
        Cluster(cpus=0)


def hold(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@pytest.mark.slow
def test_a_machine_short_of_memory_ends_its_tasks_a_bounded_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own monitor, told that a hundredth of the machine's memory is too much, stops whatever runs."""
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.01")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    with Cluster(cpus=1) as tight:
        began = time.monotonic()
        [ended] = tight.run(hold, [Task("hold", (120.0,))], Limits(task_seconds_max=200, attempts_max=2))
    assert isinstance(ended, Failed)
    assert ended.reason == "out of memory: stopped before it took the machine with it"
    assert ended.attempts == 2
    assert time.monotonic() - began < 240
