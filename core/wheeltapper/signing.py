"""Ed25519 signatures on release entries. Needs the extra `wheeltapper[sign]`, loaded only where a key is named."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from wheeltapper.errors import CommandError, NotFound, Refused, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PRIVATE_NAME = "release-key.pem"
PUBLIC_NAME = "release-key.pub.pem"
KEY_FILE_BYTES_MAX = 16_384

_CONTEXT = b"wheeltapper release entry v1\n"  # a signature made for something else is none here


class Signer:
    """Signs with one private key. `key_id` names it in entries: 16 hex digits of its public half's sha256."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.key_id = _key_id(private.public_key())

    @classmethod
    def from_file(cls, path: str | Path) -> Signer:
        """The signer of an unencrypted PEM file that only its owner may read.

        Raises NotFound, UsageError (no Ed25519 private key) or Refused (others may read the file).
        """
        _need_cryptography()
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - an optional extra
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 - an optional extra

        raw = _key_file(Path(path))
        mode = Path(path).stat().st_mode & 0o777
        if mode & 0o077:
            raise Refused(
                f"{path}: expected a private key only its owner may read, found mode {mode:o}", f"chmod 600 {path}"
            )
        try:
            key = serialization.load_pem_private_key(raw, password=None)
        except (ValueError, TypeError) as error:
            raise UsageError(f"{path}: expected an Ed25519 private key in PEM, found none: {error}", _KEYGEN) from None
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise UsageError(f"{path}: expected an Ed25519 private key, found {type(key).__name__}", _KEYGEN)
        return cls(key)

    @property
    def public(self) -> Ed25519PublicKey:
        return self._private.public_key()

    def sign(self, message: bytes) -> str:
        """The signature as 128 hex digits."""
        return self._private.sign(_CONTEXT + message).hex()


class TrustedKeys:
    """The public keys that may vouch for a release."""

    def __init__(self, keys: Iterable[Ed25519PublicKey]) -> None:
        self._keys = {_key_id(key): key for key in keys}
        if not self._keys:
            raise UsageError("expected at least one trusted key, found none", "name a public key file")

    @classmethod
    def from_files(cls, paths: Iterable[str | Path], signer: Signer | None = None) -> TrustedKeys:
        """The keys in these files, and a signer's own. Raises NotFound, or UsageError where a file holds no Ed25519
        public key."""
        _need_cryptography()
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - an optional extra
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 - an optional extra

        keys = [signer.public] if signer else []
        for path in paths:
            try:
                key = serialization.load_pem_public_key(_key_file(Path(path)))
            except ValueError as error:
                raise UsageError(
                    f"{path}: expected an Ed25519 public key in PEM, found none: {error}", _KEYGEN
                ) from None
            if not isinstance(key, ed25519.Ed25519PublicKey):
                raise UsageError(f"{path}: expected an Ed25519 public key, found {type(key).__name__}", _KEYGEN)
            keys.append(key)
        return cls(keys)

    def check(self, subject: str, key_id: str, message: bytes, signature: str) -> None:
        """Raises Refused unless `signature` (hex) is that of the trusted key `key_id` over `message`."""
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - an optional extra

        if not key_id:
            raise Refused(f"{subject}: expected a signature by a trusted key, found none", _SIGN)
        if key_id not in self._keys:
            known = ", ".join(sorted(self._keys))
            raise Refused(f"{subject}: expected a signature by one of {known}, found key {key_id[:99]}", _SIGN)
        try:
            self._keys[key_id].verify(bytes.fromhex(signature), _CONTEXT + message)
        except (InvalidSignature, ValueError):
            raise Refused(f"{subject}: the signature of key {key_id} does not fit what was signed", _ALTERED) from None


def generate_keys(folder: str | Path) -> tuple[Path, Path, str]:
    """A new key pair in `folder` as PEM files: (private, mode 0600; public, mode 0644; key id).

    Raises Refused where a key is there already: losing one means that nobody can sign on.
    """
    _need_cryptography()
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - an optional extra
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 - an optional extra

    private = ed25519.Ed25519PrivateKey.generate()
    private_pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public_pem = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    paths = target / PRIVATE_NAME, target / PUBLIC_NAME
    for path, pem, mode in ((paths[0], private_pem, 0o600), (paths[1], public_pem, 0o644)):
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError:
            raise Refused(
                f"{path}: expected no file, found one", "choose another folder; keys are never replaced"
            ) from None
        with os.fdopen(handle, "wb") as stream:
            stream.write(pem)
    return *paths, _key_id(private.public_key())


_KEYGEN = "`wheeltapper release keygen DIR` writes a fitting pair"
_SIGN = "publish and promote with --key, or trust the key that signed"
_ALTERED = "the entry was altered after signing, or signed for something else; do not serve it"


def _need_cryptography() -> None:
    if importlib.util.find_spec("cryptography") is None:
        message = "signatures need the package cryptography, which is not installed"
        raise CommandError(message, "pip install 'wheeltapper[sign]'")


def _key_file(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(KEY_FILE_BYTES_MAX)
    except FileNotFoundError:
        raise NotFound(f"no key file at {path}", _KEYGEN) from None


def _key_id(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]
