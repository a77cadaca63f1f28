"""The files stages/<stage>: one line of canonical JSON derived from the chain, for people and other tools."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from wheeltapper.chain import DAMAGED, Entry, entry_bytes
from wheeltapper.durable import open_plain
from wheeltapper.errors import Refused

POINTER_BYTES_MAX = 4_096

_REPAIR = "`wheeltapper release verify --repair` writes the pointers again from the chain"


def pointer_bytes(entries: Sequence[Entry], number: int) -> bytes:
    """What the pointer of its stage says once entry `number` has happened."""
    entry = entries[number - 1]
    return entry_bytes(
        {"entry": number, "pack": entry.pack, "release": entry.release, "sha256": entry.sha256, "stage": entry.stage}
    )


def read_pointer(path: Path) -> bytes | None:
    """The bytes of a pointer, no more than a little beyond what one can have; None where there is none. Raises Refused
    where it is no file."""
    try:
        with open_plain(path) as stream:
            return stream.read(POINTER_BYTES_MAX + 1)
    except FileNotFoundError:
        return None


def check_pointer(path: Path, raw: bytes | None, entries: Sequence[Entry]) -> None:
    """A pointer says what the chain says, or what it said some entries ago (its writer died in between). Anything else
    was not written by a registry, or its chain has lost entries: raises Refused."""
    if raw is None:
        return
    try:
        found = json.loads(raw[:POINTER_BYTES_MAX])
    except (ValueError, RecursionError):
        found = None
    number = found.get("entry") if isinstance(found, dict) else None
    if not isinstance(number, int) or isinstance(number, bool):
        raise Refused(f"{path}: expected a pointer, found {raw[:60]!r}", _REPAIR)
    if number > len(entries):
        message = f"{path}: expected an entry up to {len(entries)}, where the chain ends, found {number}"
        raise Refused(message, DAMAGED)
    if number < 1 or entries[number - 1].stage != path.name or raw != pointer_bytes(entries, number):
        raise Refused(f"{path}: expected what the chain says, found {raw[:200]!r}", _REPAIR)
