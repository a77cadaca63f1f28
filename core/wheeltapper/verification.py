"""A walk through a whole registry that changes nothing and stops at nothing: links, signatures, packs, pointers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from wheeltapper.chain import STAGES, Entry, check_signature, read_entry, replay
from wheeltapper.durable import sha256_of
from wheeltapper.errors import Refused
from wheeltapper.kill_switch import subject_of
from wheeltapper.signing import TrustedKeys
from wheeltapper.stage_pointer import check_pointer, read_pointer


@dataclass(slots=True)
class Verification:
    """What was walked and what is wrong. The registry holds where `findings` is empty."""

    entries: int = 0
    signed: int = 0
    packs: int = 0
    stages: dict[str, int] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)


def verify_registry(path: Path, trusted: TrustedKeys | None) -> Verification:
    """`path` is a registry folder; with `trusted`, every entry must carry the signature of one of these keys."""
    found = Verification()
    entries = _links(path / "releases", found)
    found.entries = len(entries)
    found.stages = {stage: state.release for stage, state in replay(entries).items()}
    for entry in entries:
        found.signed += bool(entry.document["signature"])
        if trusted:
            try:
                check_signature(entry, trusted)
            except Refused as refusal:
                found.findings.append(str(refusal))
        if entry.action in ("block", "unblock") and subject_of(entry) is None:
            found.findings.append(f"{path}: entry {entry.number} switches what has no name here, and does nothing")
        if entry.action == "publish":
            found.packs += 1
            found.findings.extend(pack_faults(path / "packs" / entry.pack, entry))
    for stage in STAGES:
        pointer = path / "stages" / stage
        try:
            check_pointer(pointer, read_pointer(pointer), entries)
        except Refused as refusal:
            found.findings.append(str(refusal))
    return found


def pack_faults(path: Path, entry: Entry) -> list[str]:
    """What is wrong with the pack of a publish entry: nothing, or one line."""
    try:
        sha256 = sha256_of(path)
    except FileNotFoundError:
        return [f"{path}: expected the pack of release {entry.number}, found no file"]
    except Refused as refusal:
        return [str(refusal)]
    if sha256 != entry.pack:
        return [f"{path}: expected the pack of release {entry.number}, found other bytes (sha256 {sha256})"]
    return []


def _links(folder: Path, found: Verification) -> list[Entry]:
    """The chain as far as it holds."""
    entries: list[Entry] = []
    try:
        while entry := read_entry(folder, len(entries) + 1, entries[-1].sha256 if entries else ""):
            entries.append(entry)
    except Refused as refusal:
        found.findings.append(str(refusal))
    beyond = [int(p.stem) for p in folder.glob("*.json") if p.stem.isdecimal() and int(p.stem) > len(entries) + 1]
    if beyond:
        found.findings.append(f"{folder}: entry {max(beyond)} is there, but the chain holds only up to {len(entries)}")
    return entries
