"""Signed releases: only what a trusted key signed is served, in the order in which it was signed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from wheeltapper.chain import entry_bytes
from wheeltapper.errors import CommandError, NotFound, Refused, UsageError
from wheeltapper.registry import Registry
from wheeltapper.signing import Signer, TrustedKeys, generate_keys

pytest.importorskip("cryptography", reason="the extra wheeltapper[sign] is not installed")

WORDS: dict[str, Any] = {"who": "eve", "why": "a reason"}


class Keys:
    def __init__(self, folder: Path) -> None:
        self.private, self.public, self.key_id = generate_keys(folder)
        self.signer = Signer.from_file(self.private)
        self.trusted = TrustedKeys.from_files([self.public])


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "keys")


@pytest.fixture
def signed(tmp_path: Path, keys: Keys) -> Registry:
    """Releases 1 and 2, both once in production, 2 there now; every entry signed."""
    registry = Registry(tmp_path / "registry", signer=keys.signer, trusted=keys.trusted)
    registry.publish(b"pack 1", **WORDS)
    registry.publish(b"pack 2", **WORDS)
    for number in (1, 2):
        registry.promote(number, "qa", **WORDS)
        registry.promote(number, "production", **WORDS)
    return registry


def rewritten(registry: Registry, number: int, **fields: Any) -> None:
    """Change an entry and link all later ones to it again, as somebody without the key could."""
    folder = registry.path / "releases"
    previous = None
    while (path := folder / f"{number}.json").exists():
        document = {**json.loads(path.read_bytes()), **fields}
        if previous is not None:
            document["previous"] = previous
        path.write_bytes(entry_bytes(document))
        previous = hashlib.sha256(path.read_bytes()).hexdigest()
        fields = {}
        number += 1
    for pointer in (registry.path / "stages").iterdir():
        pointer.unlink()


def test_what_the_trusted_key_signed_is_served(signed: Registry, keys: Keys) -> None:
    reader = Registry(signed.path, trusted=keys.trusted)
    assert reader.resolve("production").number == 2
    found = reader.verify()
    assert (found.findings, found.entries, found.signed) == ([], 6, 6)
    assert signed.history()[0].document["key"] == keys.key_id
    signed.rollback(**WORDS)
    assert reader.resolve("production").number == 1  # a signed entry says so


def test_what_nobody_signed_is_refused(signed: Registry, keys: Keys) -> None:
    Registry(signed.path).rollback(**WORDS)
    assert Registry(signed.path).resolve("production").number == 1
    with pytest.raises(Refused, match=r"entry 7: expected a signature by a trusted key, found none"):
        Registry(signed.path, trusted=keys.trusted).resolve("production")
    assert Registry(signed.path, trusted=keys.trusted).resolve("qa").number == 2
    assert len(Registry(signed.path, trusted=keys.trusted).verify().findings) == 1


def test_an_unsigned_publication_is_refused_however_it_was_promoted(tmp_path: Path, keys: Keys) -> None:
    Registry(tmp_path / "registry").publish(b"pack 1", **WORDS)
    registry = Registry(tmp_path / "registry", signer=keys.signer, trusted=keys.trusted)
    registry.promote(1, "qa", **WORDS)
    with pytest.raises(Refused, match="entry 1: expected a signature"):
        registry.resolve("qa")


def test_another_key_is_refused(tmp_path: Path, signed: Registry, keys: Keys) -> None:
    others = Keys(tmp_path / "others")
    with pytest.raises(Refused, match=f"found key {keys.key_id}"):
        Registry(signed.path, trusted=others.trusted).resolve("production")
    both = TrustedKeys.from_files([others.public, keys.public])
    assert Registry(signed.path, trusted=both).resolve("production").number == 2


@pytest.mark.parametrize(
    "fields",
    [{"why": "another"}, {"release": 1, "to": 1}, {"signature": "00" * 64}, {"signature": "zz"}, {"signature": ""},
     {"when": "2020-01-01T00:00:00Z"}, {"gates": [{"passed": True}]}],
)  # fmt: skip
def test_an_altered_entry_is_refused(signed: Registry, keys: Keys, fields: dict[str, Any]) -> None:
    rewritten(signed, 6, **fields)
    assert Registry(signed.path).resolve("production")  # its hashes are whole again: only the signature tells
    with pytest.raises(Refused, match=r"entry 6: the signature of key \w+ does not fit"):
        Registry(signed.path, trusted=keys.trusted).resolve("production")


def test_an_entry_cannot_be_said_again_later(signed: Registry, keys: Keys) -> None:
    """Replaying the signed promotion of release 1 as the newest entry."""
    old = json.loads((signed.path / "releases" / "4.json").read_bytes())
    previous = signed.history()[-1].sha256
    (signed.path / "releases" / "7.json").write_bytes(entry_bytes({**old, "number": 7, "previous": previous}))
    with pytest.raises(Refused, match="entry 7: the signature"):
        Registry(signed.path, trusted=keys.trusted).resolve("production")


def test_a_chain_cut_short_is_refused_by_who_saw_more(signed: Registry, keys: Keys) -> None:
    seen = signed.resolve("production").moved_by.number
    (signed.path / "releases" / "6.json").unlink()
    with pytest.raises(Refused, match="where the chain ends"):
        Registry(signed.path, trusted=keys.trusted).resolve("production")
    (signed.path / "stages" / "production").unlink()
    reader = Registry(signed.path, trusted=keys.trusted)
    assert reader.resolve("production").number == 1  # nothing on the disk tells any more
    with pytest.raises(Refused, match="entry 4, but entry 6 was seen before"):
        reader.resolve("production", not_before=seen)


def test_key_files_are_checked(tmp_path: Path, keys: Keys) -> None:
    assert keys.private.stat().st_mode & 0o777 == 0o600
    with pytest.raises(Refused, match="expected no file"):
        generate_keys(keys.private.parent)
    with pytest.raises(NotFound):
        Signer.from_file(tmp_path / "nowhere.pem")
    with pytest.raises(UsageError, match="public key"):
        TrustedKeys.from_files([keys.private])
    with pytest.raises(UsageError, match="at least one"):
        TrustedKeys.from_files([])
    public = tmp_path / "public.pem"
    public.write_bytes(keys.public.read_bytes())
    public.chmod(0o600)
    with pytest.raises(UsageError, match="private key"):
        Signer.from_file(public)
    keys.private.chmod(0o640)
    with pytest.raises(Refused, match="found mode 640"):
        Signer.from_file(keys.private)


def test_without_the_package_the_error_says_which(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for ask in (lambda: Signer.from_file(keys.private), lambda: TrustedKeys.from_files([keys.public])):
        with pytest.raises(CommandError, match="cryptography") as raised:
            ask()
        assert "wheeltapper[sign]" in raised.value.hint
