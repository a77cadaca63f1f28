"""A writer killed at any step leaves the old or the new state and the next one goes on; of two at once one wins."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import wheeltapper.registry
from killing import killed_at
from wheeltapper.errors import NotFound, Refused
from wheeltapper.registry import Registry

WORDS: dict[str, Any] = {"who": "eve", "why": "a reason"}
FORK = multiprocessing.get_context("fork")


def prepared(path: Path) -> Registry:
    """Release 1 in production, release 2 in qa."""
    registry = Registry(path)
    registry.publish(b"pack 1", **WORDS)
    registry.publish(b"pack 2", **WORDS)
    registry.promote(1, "qa", **WORDS)
    registry.promote(1, "production", **WORDS)
    registry.promote(2, "qa", **WORDS)
    return registry


def seen(path: Path) -> tuple[tuple[str, int, bytes], ...]:
    """What a reader finds in every stage, pack and all."""
    found = []
    for stage in ("candidate", "qa", "production"):
        try:
            release = Registry(path).resolve(stage)
            found.append((stage, release.number, release.pack_path.read_bytes()))
        except NotFound:
            found.append((stage, 0, b""))
    return tuple(found)


ACTIONS: dict[str, Callable[[Registry], object]] = {
    "publish": lambda registry: registry.publish(b"pack 3", **WORDS),
    "promote": lambda registry: registry.promote(2, "production", **WORDS),
    "rollback": lambda registry: registry.rollback("qa", **WORDS),
    "gc": lambda registry: registry.gc(),
}


@pytest.mark.parametrize("torn", [False, True], ids=["before", "within"])
@pytest.mark.parametrize("action", list(ACTIONS))
def test_killed_at_every_step_it_is_old_or_new(tmp_path: Path, action: str, torn: bool) -> None:
    work = ACTIONS[action]
    prepared(tmp_path / "done")
    old = seen(tmp_path / "done")
    work(Registry(tmp_path / "done"))
    new = seen(tmp_path / "done")
    assert (old == new) == (action == "gc")
    states: list[bool] = []
    for step in range(1, 200):
        path = tmp_path / str(step)
        prepared(path)
        (path / "packs" / ("0" * 64)).write_bytes(b"of no release")
        if killed_at(step, torn, lambda path=path: work(Registry(path))) == 0:  # type: ignore[misc]
            break
        found = seen(path)
        assert found in (old, new), f"step {step}"
        assert Registry(path).verify().findings == [], f"step {step}"
        states.append(found == new)
        if found == old:
            work(Registry(path))
        else:
            Registry(path).promote(found[0][1], "candidate", **WORDS)  # any writer puts the pointers right
        assert seen(path) == new, f"step {step}"
        recovered = Registry(path)
        recovered.gc()
        assert list((path / "tmp").iterdir()) == []
        assert {p.name for p in (path / "packs").iterdir()} == {e.pack for e in recovered.history()}
        for stage, state in recovered.stages().items():
            assert f'"release":{state.release},' in (path / "stages" / stage).read_text()
    else:
        pytest.fail("the work never came to its end")
    assert len(states) > (2 if action == "gc" else 10)
    assert states == sorted(states), "new, then old again"


def test_killed_while_it_makes_the_registry(tmp_path: Path) -> None:
    for step in range(1, 200):
        path = tmp_path / str(step)
        if killed_at(step, True, lambda path=path: Registry(path).publish(b"pack 1", **WORDS)) == 0:  # type: ignore[misc]
            break
        assert seen(path)[0] in (("candidate", 0, b""), ("candidate", 1, b"pack 1")), f"step {step}"
        release = Registry(path).publish(b"pack again", **WORDS)
        assert Registry(path).resolve("candidate").number == release.number
        assert Registry(path).verify().findings == []
    assert step > 20


def in_processes(count: int, work: Callable[[int], object]) -> list[int]:
    """Exit codes of `count` processes that did `work` at once: 0 done, 5 refused."""

    def run(position: int) -> None:
        start.wait()
        try:
            work(position)
        except Refused:
            os._exit(5)
        os._exit(0)

    start = FORK.Barrier(count)
    processes = [FORK.Process(target=run, args=(position,)) for position in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode or 0 for process in processes]


@pytest.mark.parametrize("attempt", range(10))
def test_of_two_promotions_at_once_one_wins(tmp_path: Path, attempt: int) -> None:
    registry = prepared(tmp_path / "registry")
    registry.publish(b"pack 3", **WORDS)
    newest = registry.resolve("candidate").number
    registry.promote(newest, "qa", **WORDS)
    targets = (2, newest)
    codes = in_processes(
        2, lambda position: Registry(registry.path).promote(targets[position], "production", expect=1, **WORDS)
    )
    assert sorted(codes) == [0, 5]
    assert registry.resolve("production").number == targets[codes.index(0)]
    assert registry.verify().findings == []


@pytest.mark.parametrize("lock", [True, False], ids=["locked", "lock lost"])
def test_every_publication_at_once_gets_its_own_number(
    tmp_path: Path, lock: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the lock, as between machines that share a folder but no locks, the link alone decides."""
    if not lock:
        monkeypatch.setattr(wheeltapper.registry, "locked", lambda path: nullcontext())
    path = tmp_path / "registry"

    def publish(position: int) -> None:
        for turn in range(8):
            Registry(path).publish(f"pack {position} {turn}".encode(), **WORDS)

    assert in_processes(3, publish) == [0, 0, 0]
    entries = Registry(path).history()
    assert [entry.number for entry in entries] == list(range(1, 25))
    assert len({entry.pack for entry in entries}) == 24
    assert Registry(path).verify().findings == []
    assert Registry(path).resolve("candidate").number == 24
