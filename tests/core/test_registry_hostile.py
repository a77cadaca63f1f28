"""What somebody else put into a registry's folder: refused with words, never followed, waited for or taken for more."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from wheeltapper.chain import entry_bytes
from wheeltapper.errors import Refused
from wheeltapper.registry import Registry

WORDS: dict[str, Any] = {"who": "eve", "why": "a reason"}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Release 1 in candidate."""
    made = Registry(tmp_path / "registry")
    made.publish(b"pack 1", **WORDS)
    return made


def rewritten(registry: Registry, **fields: Any) -> Registry:
    """Its one entry says something else; a reader of it."""
    path = registry.path / "releases" / "1.json"
    path.write_bytes(entry_bytes({**json.loads(path.read_bytes()), **fields}))
    (registry.path / "stages" / "candidate").unlink()
    return Registry(registry.path)


@pytest.mark.parametrize("place", ["releases/2.json", "stages/candidate", "packs/{pack}"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_file_is_refused_and_not_waited_for(registry: Registry, place: str, kind: str) -> None:
    path = registry.path / place.format(pack=registry.resolve("candidate").sha256)
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(Refused, match="expected a file"):
        Registry(registry.path).resolve("candidate")
    assert len(Registry(registry.path).verify().findings) == 1


@pytest.mark.parametrize("name", ["", "../lock", "/dev/zero", "A" * 64, "0" * 65])
def test_a_pack_is_named_by_its_sha256_and_is_no_way_out_of_the_folder(registry: Registry, name: str) -> None:
    with pytest.raises(Refused, match="expected a pack by its sha256"):
        rewritten(registry, pack=name).resolve("candidate")


@pytest.mark.parametrize("gates", [[{}], [7], [{"output": "rul", "metric": "rmse", "passed": 1}]])
def test_a_gate_that_does_not_say_it_was_passed_was_not(registry: Registry, gates: list[Any]) -> None:
    reader = rewritten(registry, gates=gates)
    reader.promote(1, "qa", **WORDS)
    with pytest.raises(Refused, match="failed 1 gate"):
        reader.promote(1, "production", **WORDS)


@pytest.mark.parametrize("fields", [{"who": ["x" * 99_999]}, {"action": "x" * 99_999}, {"pack": "x" * 99_999},
                                    {"previous": "x" * 99_999}])  # fmt: skip
def test_what_an_entry_says_is_not_said_again_in_full(registry: Registry, fields: dict[str, Any]) -> None:
    """It goes to a log, every time it is looked at."""
    with pytest.raises(Refused) as caught:
        rewritten(registry, **fields).history()
    assert len(str(caught.value)) < 1_000
