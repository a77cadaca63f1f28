"""Power goes at any moment: whatever the disk had not yet been told to keep, a reader finds the old or the new state,
and the new one once the call has returned."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from powercut import Recording, lay, record
from unwritable import full
from wheeltapper.chain import STAGES
from wheeltapper.durable import make_folder, place_new, replace, sync_folder, write_temporary
from wheeltapper.errors import NotFound, Refused
from wheeltapper.registry import Registry

WORDS: dict[str, Any] = {"who": "eve", "why": "a reason"}
State = tuple[object, ...]


def prepared(path: Path) -> Registry:
    """Release 1 in production, release 2 in qa, and what killed writers left."""
    registry = Registry(path)
    registry.publish(b"pack 1", **WORDS)
    registry.publish(b"pack 2", **WORDS)
    registry.promote(1, "qa", **WORDS)
    registry.promote(1, "production", **WORDS)
    registry.promote(2, "qa", **WORDS)
    (path / "packs" / ("0" * 64)).write_bytes(b"of no release")
    (path / "tmp" / "6.json.0123.tmp").write_bytes(b"half")
    return registry


def state(path: Path) -> State:
    """What a reader finds: the chain, every stage with its pack, what is switched off. Nothing where there is none."""
    registry = Registry(path)
    try:
        entries = len(registry.history())
    except NotFound:
        return ()
    found: list[object] = [entries, registry.blocked()]
    for stage in STAGES:
        try:
            release = registry.resolve(stage)
            found.append((stage, release.number, release.pack_path.read_bytes()))
        except NotFound:
            found.append(stage)
    return tuple(found)


ACTIONS: dict[str, Callable[[Registry], object]] = {
    "publish": lambda registry: registry.publish(b"pack 3", **WORDS),
    "publish what was published": lambda registry: registry.publish(b"pack 1", **WORDS),
    "promote": lambda registry: registry.promote(2, "production", **WORDS),
    "rollback": lambda registry: registry.rollback("qa", **WORDS),
    "switch": lambda registry: registry.switch("asset", "a-1", on=False, **WORDS),
    "gc": lambda registry: registry.gc(),
}


def check(
    recording: Recording, path: Path, below: str, states: tuple[State, ...], work: Callable[[Registry], object]
) -> int:
    """Of each disk: a reader finds one of the states, after the end of the work the last; nothing is damaged; the next
    writer goes on. How many disks there were."""
    found, count = {}, 0
    for count, (where, said, tree) in enumerate(recording.disks(), start=1):
        disk = lay(tree, path / f"cut {count}") / below
        found[where] = state(disk)
        assert found[where] in (states[-1:] if "returned" in said else states), where
        if found[where]:
            assert Registry(disk).verify().findings == [], where
        if found[where] != states[-1]:
            work(Registry(disk))
        else:
            Registry(disk).repair()
        assert state(disk) == states[-1], where
    assert set(found.values()) == set(states), "the recording was not of this work"
    return count


@pytest.mark.parametrize("action", list(ACTIONS))
def test_a_change_of_a_registry_is_old_or_new_and_stays(tmp_path: Path, action: str) -> None:
    work = ACTIONS[action]
    registry = prepared(tmp_path / "work" / "registry")
    old = state(registry.path)
    with record(tmp_path / "work") as recording:
        work(registry)
        recording.mark("returned")
    new = state(registry.path)
    states = (old, new) if old != new else (old,)
    assert check(recording, tmp_path, "registry", states, work) > 3


def test_what_was_removed_stays_removed(tmp_path: Path) -> None:
    registry = prepared(tmp_path / "work")
    with record(tmp_path / "work") as recording:
        assert len(registry.gc()) == 2
        recording.mark("returned")
    for _, said, tree in recording.disks():
        if "returned" in said:
            assert {"tmp/6.json.0123.tmp", f"packs/{'0' * 64}"}.isdisjoint(tree)


@pytest.mark.parametrize("below", ["registry", "plant/line/registry"])
def test_a_registry_that_is_made_is_there_with_its_folders_or_not_at_all(tmp_path: Path, below: str) -> None:
    def publish(registry: Registry) -> None:
        registry.publish(b"pack 1", **WORDS)

    (tmp_path / "work").mkdir()
    registry = Registry(tmp_path / "work" / below)
    with record(tmp_path / "work") as recording:
        publish(registry)
        recording.mark("returned")
    new = state(registry.path)
    empty = (0, registry.blocked(), *STAGES)  # made, and nothing published
    check(recording, tmp_path, below, ((), empty, new), publish)


class KilledError(BaseException):
    """The writer is gone; what it did stays, as far as the disk knows of it."""


def killed_after(recording: Recording, operations: int) -> None:
    note = recording.note

    def note_and_die(operation: str, step: Callable[[], object]) -> None:
        note(operation, step)
        if len(recording.operations) == operations:
            raise KilledError

    recording.note = note_and_die  # type: ignore[method-assign]


@pytest.mark.parametrize("action", ["make", *ACTIONS])
def test_what_a_killed_writer_did_not_sync_stays_once_a_retry_has_returned(tmp_path: Path, action: str) -> None:
    """It finds done what is not safe yet: an entry that was linked, a folder that was made."""
    begin = prepared(tmp_path / "begin").path
    for step in range(1, 100):
        top = tmp_path / f"step {step}"
        top.mkdir()
        registry = Registry(top / "plant" / "line" / "registry")
        if action != "make":
            shutil.copytree(begin, registry.path)
        work = ACTIONS.get(action, ACTIONS["publish"])
        with record(top) as recording:
            killed_after(recording, step)
            try:
                work(Registry(registry.path))
                break
            except KilledError:
                with suppress(Refused):  # of a rollback that happened: to say so stands on it as well
                    work(Registry(registry.path))
            recording.mark("returned")
        new = state(registry.path)
        for number, (where, said, tree) in enumerate(recording.disks()):
            if "returned" in said:
                disk = lay(tree, tmp_path / f"cut {step} {number}") / "plant" / "line" / "registry"
                assert state(disk) == new, f"killed after {recording.operations[step - 1]}; {where}"
    assert step > 2


def test_a_disk_that_syncs_nothing_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above are none if they pass without the calls that they are about."""
    registry = prepared(tmp_path / "work" / "registry")
    old = state(registry.path)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    with record(tmp_path / "work") as recording:
        ACTIONS["promote"](registry)
        recording.mark("returned")
    assert not any(operation.startswith("sync") for operation in recording.operations)
    states = old, state(registry.path)
    with pytest.raises((AssertionError, Refused)):
        check(recording, tmp_path, "registry", states, ACTIONS["promote"])


def test_a_file_is_put_in_place_whole_or_not_at_all(tmp_path: Path) -> None:
    """`replace` and `place_new` by themselves, where a file is there already."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "file").write_bytes(b"old")
    with record(folder) as recording:
        replace(write_temporary(folder, "file", [b"new ", b"content"]), folder / "file")
        recording.mark("replaced")
        assert not place_new(write_temporary(folder, "file", [b"other"]), folder / "file")
        assert place_new(write_temporary(folder, "next", [b"next ", b"content"]), folder / "next")
        recording.mark("placed")
    for where, said, tree in recording.disks():
        assert tree["file"] in ((b"new content",) if "replaced" in said else (b"old", b"new content")), where
        assert tree.get("next") in ((b"next content",) if "placed" in said else (None, b"next content")), where


def test_a_folder_below_one_whose_names_cannot_be_synced_is_taken_as_it_is() -> None:
    """A mount point may lie in a file system that knows no such thing."""
    with pytest.raises(OSError, match="Invalid argument"):
        sync_folder(Path("/proc"))
    make_folder(Path("/proc/self"))


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    with full(), pytest.raises(OSError, match="File too large"):
        write_temporary(tmp_path, "file", [b"content"])
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory"):
        replace(write_temporary(tmp_path, "file", [b"content"]), tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
