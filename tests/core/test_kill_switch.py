"""Switching off an asset, a class, the fleet: the newest word counts, and with trusted keys only theirs."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from wheeltapper.chain import sealed
from wheeltapper.errors import UsageError
from wheeltapper.registry import Registry
from wheeltapper.signing import Signer, TrustedKeys, generate_keys
from wheeltapper_command.main import main

WORDS = {"who": "eve", "why": "smoke"}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = Registry(tmp_path / "registry")
    made.publish(b"a pack", who="eve", why="first")
    return made


def test_the_newest_word_on_a_subject_counts(registry: Registry) -> None:
    assert registry.blocked().covers_nothing()
    registry.switch("asset", "a-1", on=False, **WORDS)
    registry.switch("class", "press", on=False, **WORDS)
    registry.switch("asset", "a-1", on=True, **WORDS)
    registry.switch("asset", "b-1", on=False, **WORDS)
    off = Registry(registry.path).blocked()
    assert (off.fleet, off.classes, off.assets) == (False, {"press"}, {"b-1"})
    assert off.covers("press", "a-1")
    assert off.covers("pump", "b-1")
    assert not off.covers("pump", "a-1")
    registry.switch("fleet", "", on=False, **WORDS)
    assert registry.blocked().covers("pump", "a-1")
    registry.switch("fleet", "", on=True, **WORDS)
    registry.switch("class", "press", on=True, **WORDS)
    assert not registry.blocked().covers("press", "a-1")


def test_a_switch_moves_no_stage_and_the_chain_still_verifies(registry: Registry) -> None:
    token, stages = registry.watch_token("candidate"), registry.stages()
    registry.switch("asset", "a-1", on=False, **WORDS)
    assert (registry.watch_token("candidate"), registry.stages()) == (token, stages)
    assert registry.gc() == []
    assert registry.verify().findings == []
    assert registry.publish(b"another", **WORDS).number == 3


def test_with_trusted_keys_only_their_word_counts(registry: Registry, tmp_path: Path) -> None:
    private, public, _ = generate_keys(tmp_path / "keys")
    trusted = TrustedKeys.from_files([public])
    signing = Registry(registry.path, signer=Signer.from_file(private))
    registry.switch("asset", "a-1", on=False, **WORDS)
    signing.switch("asset", "b-1", on=False, **WORDS)
    registry.switch("asset", "b-1", on=True, **WORDS)
    off = Registry(registry.path, trusted=trusted).blocked()
    assert (off.assets, off.ignored) == ({"b-1"}, (2, 4))


@pytest.mark.parametrize("pinned", [False, True])
def test_who_looks_every_second_sees_what_a_newcomer_sees(registry: Registry, tmp_path: Path, pinned: bool) -> None:
    """A look reads what was added since the one before, and each signature once."""
    private, public, _ = generate_keys(tmp_path / "keys")
    trusted = TrustedKeys.from_files([public]) if pinned else None
    signing, rng = Registry(registry.path, signer=Signer.from_file(private)), random.Random(5)
    follower, seen = Registry(registry.path, trusted=trusted), set()
    for _ in range(40):
        for _ in range(rng.randrange(3)):
            kind, name = rng.choice(
                (("fleet", ""), ("class", "press"), ("class", "pump"), ("asset", "a"), ("asset", "b"))
            )
            rng.choice((registry, signing)).switch(kind, name, on=rng.random() < 0.5, **WORDS)
        found = follower.blocked()
        assert found == Registry(registry.path, trusted=trusted).blocked()
        seen.add((found.fleet, found.classes, found.assets))
    assert follower.blocked() is found
    assert len(seen) > 4


@pytest.mark.parametrize(("kind", "name"), [("asset", ""), ("fleet", "x"), ("site", "x"), ("asset", "x" * 1001)])
def test_what_no_switch_can_name_is_refused(registry: Registry, kind: str, name: str) -> None:
    with pytest.raises(UsageError, match="expected an asset or a class"):
        registry.switch(kind, name, on=False, **WORDS)
    assert len(registry.history()) == 1


DAMAGED: tuple[Any, ...] = (
    None, [], "asset", 7, {}, {"kind": "asset"}, {"kind": ["asset"], "name": "a-1"}, {"kind": "asset", "name": None},
    {"kind": "asset", "name": {}}, {"kind": "fleet", "name": "a-1"}, {"kind": "asset", "name": "x" * 1001},
    {"kind": "site", "name": "of a later version"},
)  # fmt: skip


@pytest.mark.parametrize("pinned", [False, True])
def test_a_switch_that_names_nothing_known_does_nothing_and_is_told(
    registry: Registry, tmp_path: Path, pinned: bool
) -> None:
    """Signed or not: were it a broken chain, no later word would be heard."""
    private, public, _ = generate_keys(tmp_path / "keys")
    signer, trusted = Signer.from_file(private), TrustedKeys.from_files([public])
    signing = Registry(registry.path, signer=signer)
    signing.switch("asset", "a-1", on=False, **WORDS)
    follower = Registry(registry.path, trusted=trusted if pinned else None)
    for switch in DAMAGED:
        for action in ("block", "unblock"):
            append(registry.path, signer, action, {"switch": switch})
            assert follower.blocked().assets == {"a-1"}
    append(registry.path, signer, "block", {})
    signing.switch("class", "press", on=False, **WORDS)
    off = follower.blocked()
    assert (off.fleet, off.classes, off.assets) == (False, {"press"}, {"a-1"})
    assert off.ignored == tuple(range(3, 4 + 2 * len(DAMAGED)))
    told = Registry(registry.path).verify().findings
    assert len(told) == len(off.ignored)
    assert "entry 3 switches what has no name here" in told[0]


def append(path: Path, signer: Signer, action: str, details: dict[str, Any]) -> None:
    """An entry that this version's writer would not make."""
    last = Registry(path).history()[-1]
    document = {**last.document, "number": last.number + 1, "previous": last.sha256, "action": action, "release": 0}
    document |= {"pack": "", "stage": None, "from": None, "to": None, "details": details}
    (path / "releases" / f"{last.number + 1}.json").write_bytes(sealed(document, signer))


def test_the_words_of_the_command_line(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--registry", str(registry.path), "--why", "smoke", "--by", "eve", "-o", "json"]
    assert main(["release", "block", "--class", "press", *where]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["blocked"] == {"fleet": False, "classes": ["press"], "assets": []}
    assert main(["release", "unblock", "--class", "press", *where]) == 0
    assert json.loads(capsys.readouterr().out)["blocked"]["classes"] == []
    with pytest.raises(SystemExit):
        main(["release", "block", "--asset", "a", "--fleet", *where])
    assert main(["release", "list", "--registry", str(registry.path)]) == 0
