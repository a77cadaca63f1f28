"""A reader never goes back behind an entry that counted: whatever becomes of the files below it, it says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from wheeltapper.errors import Refused
from wheeltapper.registry import Registry
from wheeltapper.signing import Signer, TrustedKeys, generate_keys

WORDS: dict[str, Any] = {"who": "eve", "why": "a reason"}


class Plant:
    """A registry of release 1 in candidate; a signer, and who trusts them."""

    def __init__(self, folder: Path) -> None:
        private, public, _ = generate_keys(folder / "keys")
        self.trusted = TrustedKeys.from_files([public])
        self.path = folder / "registry"
        self.signing = Registry(self.path, signer=Signer.from_file(private))
        self.signing.publish(b"pack 1", **WORDS)

    def reader(self, pinned: bool) -> Registry:
        return Registry(self.path, trusted=self.trusted if pinned else None)

    def entry(self, number: int) -> Path:
        return self.path / "releases" / f"{number}.json"


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    return Plant(tmp_path)


def gone(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def altered(path: Path) -> None:
    """Another valid entry of the same number and size."""
    path.write_bytes(path.read_bytes().replace(b"a reason", b"a raison"))


def grown(path: Path) -> None:
    path.write_bytes(b" " * (5 << 20))


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("harm", [gone, emptied, altered, grown, a_folder])
def test_a_reader_whose_newest_entry_goes_says_so_and_keeps_what_it_knows(
    plant: Plant, pinned: bool, harm: Callable[[Path], None]
) -> None:
    plant.signing.switch("fleet", "", on=False, **WORDS)
    reader = plant.reader(pinned)
    known = reader.blocked()
    assert known.fleet
    raw = plant.entry(2).read_bytes()
    harm(plant.entry(2))
    for ask in (reader.blocked, reader.history, lambda: reader.resolve("candidate"), lambda: reader.watch_token("qa")):
        with pytest.raises(Refused, match="entry 2 was seen before"):
            ask()
    with pytest.raises(Refused):
        reader.publish(b"pack 2", **WORDS)
    if plant.entry(2).is_dir():
        plant.entry(2).rmdir()
    plant.entry(2).write_bytes(raw)
    assert reader.blocked() == known
    plant.signing.switch("fleet", "", on=True, **WORDS)
    assert not reader.blocked().fleet


def test_a_chain_that_went_on_another_way_is_refused_and_not_overlooked(plant: Plant) -> None:
    plant.signing.switch("fleet", "", on=False, **WORDS)
    reader = plant.reader(True)
    assert reader.blocked().fleet
    plant.entry(2).unlink()
    Registry(plant.path).switch("asset", "a-1", on=True, **WORDS)
    plant.signing = Registry(plant.path)
    for _ in range(2):
        with pytest.raises(Refused, match="entry 2 was seen before"):
            reader.blocked()
        plant.signing.switch("asset", "a-2", on=True, **WORDS)


def test_a_copy_of_the_same_bytes_is_the_same_entry(plant: Plant, tmp_path: Path) -> None:
    reader = plant.reader(True)
    reader.history()
    (tmp_path / "copy").write_bytes(plant.entry(1).read_bytes())
    (tmp_path / "copy").replace(plant.entry(1))
    assert len(reader.history()) == 1


@pytest.mark.parametrize("pinned", [False, True])
def test_what_no_key_signed_may_go_again_where_keys_are_pinned(plant: Plant, pinned: bool) -> None:
    """Who may write files, but not sign, makes nobody remember; the operator removes it and goes on."""
    reader = plant.reader(pinned)
    Registry(plant.path).switch("fleet", "", on=False, **WORDS)
    Registry(plant.path).promote(1, "qa", **WORDS)
    assert reader.blocked().ignored == ((2,) if pinned else ())
    assert (reader.newest() or reader.history()[0]).number == (1 if pinned else 3)
    (plant.path / "stages" / "qa").unlink()
    for number in (3, 2):
        plant.entry(number).unlink()
    if not pinned:
        with pytest.raises(Refused, match="entry 3 was seen before"):
            reader.history()
        return
    assert [entry.number for entry in reader.history()] == [1]
    assert "qa" not in reader.stages()
    assert reader.blocked().ignored == ()
    plant.signing.switch("class", "press", on=False, **WORDS)
    assert reader.blocked().classes == {"press"}
    newest = reader.newest()
    assert newest is not None
    assert newest.number == 2


def test_an_entry_that_no_key_signed_does_not_hide_that_a_signed_one_is_gone(plant: Plant) -> None:
    plant.signing.switch("asset", "a-1", on=False, **WORDS)
    reader = plant.reader(pinned=True)
    assert reader.blocked().assets == {"a-1"}
    plant.reader(pinned=False).switch("asset", "a-1", on=True, **WORDS)
    assert reader.blocked().ignored == (3,)
    plant.entry(2).unlink()
    for _ in range(2):
        with pytest.raises(Refused, match="entry 2 was seen before"):
            reader.watch_token("production")


def test_a_writer_does_not_go_on_where_the_middle_of_the_chain_is_gone(plant: Plant) -> None:
    for name in ("a-1", "a-2"):
        plant.signing.switch("asset", name, on=False, **WORDS)
    plant.entry(2).unlink()
    with pytest.raises(Refused, match="entry 3 was seen before"):
        plant.signing.switch("asset", "a-3", on=False, **WORDS)
    assert not plant.entry(2).exists()


def test_what_a_caller_remembers_is_held_to_the_digest(plant: Plant) -> None:
    plant.signing.switch("fleet", "", on=False, **WORDS)
    newest = plant.signing.newest()
    assert newest is not None
    plant.reader(True).check_held(newest.number, newest.sha256)
    with pytest.raises(Refused, match="another entry of this number"):
        plant.reader(True).check_held(1, newest.sha256)
    plant.entry(2).unlink()
    with pytest.raises(Refused, match="a chain that ends at entry 1") as caught:
        plant.reader(True).check_held(newest.number, newest.sha256)
    assert "seen-STAGE" in caught.value.hint
