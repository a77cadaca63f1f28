"""Pinned keys and time: a scorer serves what a trusted key signed, and never an older state than it has served."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from serving import begin, promote
from wheeltapper.errors import Refused
from wheeltapper.registry import Registry
from wheeltapper.signing import Signer, TrustedKeys, generate_keys
from wheeltapper_scorer.reload import Stage


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    private, public, _ = generate_keys(tmp_path / "keys")
    return private, public


def signed(path: Path, private: Path, packs: dict[str, bytes]) -> Registry:
    registry = Registry(path, signer=Signer.from_file(private))
    for name in ("first", "second"):
        registry.publish(packs[name], who="a test", why=name)
    promote(registry, 1)
    return registry


def test_an_unsigned_release_does_not_serve(
    registry: Registry, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert begin(registry, "--trusted-key", str(keys[1])) == 5
    assert "expected a signature by a trusted key" in capsys.readouterr().err
    assert begin(registry, "--trusted-key", "none.pem") == 4
    assert begin(registry, "--trusted-key", str(keys[0])) == 2  # the private half
    told = capsys.readouterr().err
    for line in keys[0].read_text().splitlines()[1:-1]:
        assert line not in told


def test_a_signed_one_serves_and_a_foreign_key_does_not(
    tmp_path: Path, keys: tuple[Path, Path], packs: dict[str, bytes]
) -> None:
    signed(tmp_path / "signed", keys[0], packs)
    _, foreign, _ = generate_keys(tmp_path / "foreign")
    trusting = Registry(tmp_path / "signed", trusted=TrustedKeys.from_files([keys[1]]))
    assert Stage(trusting, "production").load().release == 1
    with pytest.raises(Refused, match="expected a signature by one of"):
        Stage(Registry(tmp_path / "signed", trusted=TrustedKeys.from_files([foreign])), "production").load()


def test_a_registry_put_back_in_time_is_refused_across_restarts(
    tmp_path: Path, keys: tuple[Path, Path], packs: dict[str, bytes]
) -> None:
    registry = signed(tmp_path / "signed", keys[0], packs)
    shutil.copytree(registry.path, tmp_path / "old")
    seen, trusted = tmp_path / "state" / "seen", TrustedKeys.from_files([keys[1]])
    promote(registry, 2)
    assert Stage(Registry(registry.path, trusted=trusted), "production", seen).load().release == 2
    with pytest.raises(Refused, match="entry 4 was seen before"):  # another process, and every signature in it is good
        Stage(Registry(tmp_path / "old", trusted=trusted), "production", seen).load()
    registry.rollback(who="a test", why="signed, so it is no attack")
    assert Stage(Registry(registry.path, trusted=trusted), "production", seen).load().release == 1
    seen.write_text("nonsense")
    with pytest.raises(Refused, match="expected the number"):
        Stage(Registry(registry.path, trusted=trusted), "production", seen)
