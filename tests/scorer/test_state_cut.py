"""Power goes at any moment: what the journal's folder and the remembered entry of a registry promise of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from powercut import Recording, lay, record
from wheeltapper.registry import Registry
from wheeltapper_scorer.disk import Folder
from wheeltapper_scorer.reload import Stage


def work_of_a_journal(folder: Path, recording: Recording) -> None:
    """Every call of a `Folder`, on files that were there and files that were not."""
    disk = Folder(folder)
    file = disk.create("segment")
    recording.mark("created")
    file.append([b"one ", b"two "])
    file.sync()
    recording.mark("synced")
    file.append([b"three "])
    file.close()
    file = disk.create("snapshot.tmp")
    file.append([b"whole"])
    file.sync()
    file.close()
    disk.rename("snapshot.tmp", "snapshot")
    recording.mark("renamed")
    disk.remove("gone")
    disk.create("again").close()
    recording.mark("created again")
    disk.release()


@pytest.fixture
def begin(tmp_path: Path) -> Path:
    folder = tmp_path / "work" / "state"
    folder.mkdir(parents=True)
    for name, content in (("snapshot", b"old"), ("gone", b"of no use"), ("again", b"what was there")):
        (folder / name).write_bytes(content)
    return folder


def check(recording: Recording) -> None:
    for where, said, tree in recording.disks():
        found = {name.removeprefix("state/"): content for name, content in tree.items()}
        segment = found.get("segment")
        assert segment is not None or "created" not in said, where
        assert b"one two three ".startswith(segment or b""), where
        assert (segment or b"").startswith(b"one two ") or "synced" not in said, where
        assert found["snapshot"] in ((b"whole",) if "renamed" in said else (b"old", b"whole")), where
        assert "snapshot.tmp" not in found or "renamed" not in said, where
        assert found.get("gone", b"of no use") == b"of no use", where
        assert found["again"] in (b"what was there", b""), where


def test_a_journals_folder_keeps_what_it_says_it_keeps(tmp_path: Path, begin: Path) -> None:
    with record(begin.parent) as recording:
        work_of_a_journal(begin, recording)
    check(recording)


@pytest.mark.parametrize("name", ["fsync", "fdatasync"])
def test_a_folder_that_syncs_nothing_would_be_found(begin: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, name, lambda handle: None)
    with record(begin.parent) as recording:
        work_of_a_journal(begin, recording)
    with pytest.raises(AssertionError):
        check(recording)


def remembered(path: Path) -> tuple[int, str]:
    number, sha256 = path.read_text().split()
    return int(number), sha256


@pytest.mark.parametrize("folder", ["state", "plant/line/state"])
def test_what_is_remembered_of_a_registry_stays(tmp_path: Path, registry: Registry, folder: str) -> None:
    top = tmp_path / "work"
    top.mkdir()
    seen, reader = top / folder / "seen-production", Registry(registry.path)
    stage, said_last = Stage(reader, "production", seen), []
    with record(top) as recording:
        for on in (False, True, False):
            registry.switch("fleet", "", on=on, who="a test", why="smoke")
            stage.token()
            stage.remember()
            said_last.append(remembered(seen))
            recording.mark(str(len(said_last)))
    for number, (where, said, tree) in enumerate(recording.disks()):
        path = lay(tree, tmp_path / f"cut {number}") / folder / "seen-production"
        if said or path.exists():
            kept = said_last.index(remembered(path))
            assert kept >= len(said) - 1, where
            Stage(reader, "production", path).load()


def test_no_power_cut_takes_an_entry_that_is_remembered(tmp_path: Path, registry: Registry) -> None:
    """Its writer was killed between the link and the sync of the folder, when a scorer looked."""
    top = tmp_path / "work"
    top.mkdir()
    plant = Registry(top / "registry")
    plant.publish(b"a pack", who="a test", why="first", stage="production")
    stage = Stage(Registry(plant.path), "production", top / "state" / "seen-production")
    with record(top) as recording:
        note = recording.note

        def note_and_die(operation: str, step: Callable[[], object]) -> None:
            note(operation, step)
            if operation.startswith("link"):
                raise InterruptedError

        recording.note = note_and_die  # type: ignore[method-assign]
        with suppress(InterruptedError):
            plant.switch("fleet", "", on=False, who="a test", why="smoke")
        stage.token()
        assert stage.blocked().fleet
        stage.remember()
        recording.mark("remembered")
    for number, (where, said, tree) in enumerate(recording.disks()):
        if said:
            disk = lay(tree, tmp_path / f"cut {number}")
            after = Registry(disk / "registry")
            after.check_held(*remembered(disk / "state" / "seen-production"))
            assert after.blocked().fleet, where
