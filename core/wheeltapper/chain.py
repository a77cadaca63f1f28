"""The registry's audit log: numbered entries, each holding the sha256 of the bytes of the one before it.

An entry is the truth about what happened; stage pointers are derived from the chain by `replay`. Byte format and rules:
docs/registry.md.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wheeltapper.durable import open_plain
from wheeltapper.errors import Refused, UsageError
from wheeltapper.signing import Signer, TrustedKeys

FORMAT = 1
STAGES = ("candidate", "qa", "production")  # a release climbs them in this order
ACTIONS = ("publish", "promote", "rollback", "block", "unblock")
ENTRY_BYTES_MAX = 4 << 20
DAMAGED = "restore the file from a backup; `wheeltapper release verify` shows how far the chain holds"

_SHA256 = re.compile(r"[0-9a-f]{64}")
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "format": int,
    "number": int,
    "previous": str,
    "action": str,
    "release": int,
    "pack": str,
    "stage": (str, type(None)),
    "from": (int, type(None)),
    "to": (int, type(None)),
    "who": str,
    "when": str,
    "why": str,
    "gates": list,
    "override": str,
    "details": dict,
    "key": str,
    "signature": str,
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One link of the chain. `document` is its JSON object, `sha256` the digest of its bytes on disk."""

    document: Mapping[str, Any]
    sha256: str

    @property
    def number(self) -> int:
        return int(self.document["number"])

    @property
    def action(self) -> str:
        return str(self.document["action"])

    @property
    def release(self) -> int:
        """The number of the `publish` entry this one is about: what serves, and what answers name. 0: of none."""
        return int(self.document["release"])

    @property
    def stage(self) -> str | None:
        """The stage this entry moves to `release`; None where it moves none."""
        stage = self.document["stage"]
        return None if stage is None else str(stage)

    @property
    def pack(self) -> str:
        return str(self.document["pack"])

    @property
    def composed(self) -> Mapping[str, Any]:
        """Of a release made of others {"base", "classes", "assets"}: which release trained what. Otherwise empty."""
        found = self.document["details"].get("composed")
        if not isinstance(found, Mapping) or "base" not in found:
            return {}
        return found if all(isinstance(found.get(key), Mapping) for key in ("classes", "assets")) else {}


@dataclass(frozen=True, slots=True)
class StageState:
    """Where a stage stands: its release, the entry that moved it there, and the releases a rollback goes back through
    (oldest first, the last is `release`)."""

    release: int
    entry: int
    trail: tuple[int, ...]


def entry_bytes(document: Mapping[str, Any]) -> bytes:
    """The bytes of an entry: canonical JSON (sorted keys, no blanks, ASCII) and a newline.

    Raises ValueError for NaN or infinity, TypeError for what JSON does not hold.
    """
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def sealed(document: dict[str, Any], signer: Signer | None) -> bytes:
    """The bytes of `document` with the signer's key and signature in it, or with both empty.

    Raises UsageError where JSON cannot hold it, or where it would be no entry when read.
    """
    unsigned = {**document, "key": signer.key_id if signer else "", "signature": ""}
    try:
        signature = signer.sign(entry_bytes(unsigned)) if signer else ""
        raw = entry_bytes({**unsigned, "signature": signature})
        _parsed(Path("the new entry"), raw)
    except (ValueError, TypeError, RecursionError, Refused) as error:
        message = f"expected gates and details that a release entry can hold, found otherwise: {error}"
        raise UsageError(message, "numbers must be finite; write null for one that is not known") from None
    return raw


def read_entry(folder: Path, number: int, previous: str) -> Entry | None:
    """Entry `number` of the chain in `folder`, which must continue the entry whose digest is `previous`; None where the
    chain ends before it. Raises Refused where the file is no such entry."""
    path = folder / f"{number}.json"
    try:
        with open_plain(path) as stream:
            raw = stream.read(ENTRY_BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    document = _parsed(path, raw)
    for name, expected in (("format", FORMAT), ("number", number), ("previous", previous)):
        if document[name] != expected:
            raise Refused(f"{path}: expected {name} {expected!r}, found {repr(document[name])[:99]}", DAMAGED)
    return Entry(document, hashlib.sha256(raw).hexdigest())


def _parsed(path: Path, raw: bytes) -> dict[str, Any]:
    if len(raw) > ENTRY_BYTES_MAX:
        raise Refused(f"{path}: expected at most {ENTRY_BYTES_MAX:,} bytes, found more", DAMAGED)
    try:
        document = json.loads(raw)
        canonical = entry_bytes(document)
    except (ValueError, TypeError, RecursionError) as error:
        raise Refused(
            f"{path}: expected a JSON object, found {len(raw):,} bytes that are none: {error}", DAMAGED
        ) from None
    if not isinstance(document, dict) or set(document) != set(_FIELDS):
        found = repr(sorted(document))[:999] if isinstance(document, dict) else type(document).__name__
        raise Refused(f"{path}: expected the keys {sorted(_FIELDS)}, found {found}", DAMAGED)
    if canonical != raw:
        raise Refused(f"{path}: expected canonical JSON, found other bytes of the same meaning", DAMAGED)
    for name, kind in _FIELDS.items():
        if not isinstance(document[name], kind) or isinstance(document[name], bool):
            raise Refused(f"{path}: found {repr(document[name])[:99]} as {name}, which is of another type", DAMAGED)
    if document["action"] not in ACTIONS or document["stage"] not in (None, *STAGES):
        action, stage = document["action"][:99], (document["stage"] or "")[:99]
        raise Refused(f"{path}: found the action {action!r} on stage {stage!r}", DAMAGED)
    if document["action"] == "publish" and not _SHA256.fullmatch(document["pack"]):  # it is the name of a file
        raise Refused(f"{path}: expected a pack by its sha256, found {document['pack'][:99]!r}", DAMAGED)
    return document


def check_signature(entry: Entry, trusted: TrustedKeys) -> None:
    """Raises Refused unless a trusted key signed the entry."""
    unsigned = entry_bytes({**entry.document, "signature": ""})
    trusted.check(f"release entry {entry.number}", entry.document["key"], unsigned, entry.document["signature"])


def replay(entries: Iterable[Entry], before: Mapping[str, StageState] | None = None) -> dict[str, StageState]:
    """Where every stage stands after `entries`, in order: a whole chain, or what follows one that says `before`."""
    states = dict(before or {})
    for entry in entries:
        if entry.stage is None:
            continue
        trail = states[entry.stage].trail if entry.stage in states else ()
        if entry.action == "rollback" and entry.release in trail:
            last = len(trail) - 1 - trail[::-1].index(entry.release)
            trail = trail[: last + 1]
        else:
            trail = (*trail, entry.release)
        states[entry.stage] = StageState(entry.release, entry.number, trail)
    return states


def was_in(entries: Iterable[Entry], release: int, stage: str) -> bool:
    """Whether `release` is or ever was in `stage`."""
    return any(entry.stage == stage and entry.release == release for entry in entries)
