"""Numbered releases and their stages in one folder. The rules and the file formats: docs/registry.md.

packs/<sha256>       immutable packs
releases/<n>.json    the chain: every publish, promote and rollback, hash-linked and signed; the truth
stages/<stage>       pointers derived from the chain, for people and other tools
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wheeltapper.chain import (
    DAMAGED,
    FORMAT,
    STAGES,
    Entry,
    StageState,
    check_signature,
    sealed,
)
from wheeltapper.chain_reader import ChainReader
from wheeltapper.durable import chunks_of, locked, make_folder, place_new, replace, sync_folder, write_temporary
from wheeltapper.errors import NotFound, Refused, UsageError
from wheeltapper.kill_switch import Blocked, switch_details
from wheeltapper.promotion import check_gates, check_promotion, rollback_target
from wheeltapper.signing import Signer, TrustedKeys
from wheeltapper.stage_pointer import check_pointer, pointer_bytes, read_pointer
from wheeltapper.verification import Verification, pack_faults, verify_registry

WHO_CHARACTERS_MAX = 256
WHY_CHARACTERS_MAX = 4_000
AS_SEEN = 0  # `expect`: whatever the stage holds when the call begins

_CLAIMS_MAX = 100


@dataclass(frozen=True, slots=True)
class Release:
    """A published pack. `entry` published it; `moved_by` is the latest entry that is about it here."""

    number: int
    pack_path: Path
    sha256: str
    entry: Entry
    moved_by: Entry


def utc_now() -> datetime:
    return datetime.now(UTC)


class Registry:
    """A registry folder. Reading never writes; the first `publish` makes the folder.

    signer: signs what this object writes. trusted: only releases signed by one of these keys are resolved.
    A read entry is kept: an object never goes back behind what it has seen and counted (with `trusted`: what was
    signed), and refuses a registry that does. Not for several threads at once.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        signer: Signer | None = None,
        trusted: TrustedKeys | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        if "://" in str(path):
            raise UsageError(f"expected a registry folder, found the address {path}", "mount the bucket as a folder")
        self.path = Path(path)
        self._signer = signer
        self._trusted = trusted
        self._clock = clock
        self._chain = ChainReader(self.path, trusted)

    # Reading

    def history(self) -> tuple[Entry, ...]:
        """Every entry of the chain, oldest first. Raises NotFound (no registry) or Refused (a broken link, or a
        registry put back in time)."""
        self._chain.refresh()
        return tuple(self._chain.entries)

    def stages(self) -> dict[str, StageState]:
        """Where each stage stands that holds a release."""
        self._chain.refresh()
        return dict(self._chain.states)

    def release(self, number: int) -> Release:
        """Release `number`, wherever it stands. Its pack is not read; see `check_pack`."""
        self._chain.refresh()
        return self._release(number)

    def resolve(self, stage: str, not_before: int = 0) -> Release:
        """What `stage` holds, ready to serve: chain whole, signatures trusted (where keys are pinned), pack unaltered.

        `not_before` is the entry (`moved_by.number`) seen last time, kept by the caller across restarts: a stage that
        stands at an older one is refused (`newest` and `check_held` find more). Raises NotFound (nothing there) or
        Refused.
        """
        _check_stage(stage)
        path = self.path / "stages" / stage
        pointer = read_pointer(path)  # read before the chain, which is written first and so holds at least as much
        self._chain.refresh()
        check_pointer(path, pointer, self._chain.entries)
        state = self._chain.states.get(stage)
        if state is None:
            raise NotFound(
                f"{self.path}: the stage {stage} holds no release", "`wheeltapper release promote` puts one there"
            )
        if state.entry < not_before:
            message = f"{self.path}: {stage} stands at entry {state.entry}, but entry {not_before} was seen before"
            raise Refused(message, "the registry was put back in time; publish or roll back with a new entry")
        release = self._release(state.release, self._chain.entries[state.entry - 1])
        if self._trusted:
            check_signature(release.entry, self._trusted)
            check_signature(release.moved_by, self._trusted)
        self.check_pack(release)
        return release

    def watch_token(self, stage: str) -> str:
        """A text that changes when `stage` moves: a cheap question (one look at two files) to ask every second."""
        _check_stage(stage)
        self._chain.refresh()
        state = self._chain.states.get(stage)
        return f"{state.entry}:{state.release}" if state else ""

    def blocked(self) -> Blocked:
        """What is switched off. Where keys are pinned, only what they signed counts."""
        self._chain.refresh()
        return self._chain.blocked()

    def newest(self) -> Entry | None:
        """The newest entry that counts (where keys are pinned: that one of them signed) among those read so far.

        Its number and sha256, kept by the caller across restarts, are what `check_held` wants; `sync` before.
        """
        return self._chain.newest()

    def sync(self) -> None:
        """Make what was read survive a power cut, whatever became of its writer."""
        with suppress(OSError):  # a mount that cannot be synced from here: its server keeps what it shows
            sync_folder(self.path / "releases")

    def check_held(self, number: int, sha256: str) -> None:
        """Raises Refused unless entry `number` is still the one with this digest: the registry was put back in time."""
        self._chain.refresh()
        self._chain.check_held(number, sha256)

    def check_pack(self, release: Release) -> None:
        """Raises Refused unless the release's pack has the bytes that were published."""
        for fault in pack_faults(release.pack_path, release.entry):
            raise Refused(fault, DAMAGED)

    def orphans(self, grace_s: float = 0.0) -> list[Path]:
        """What killed writers left more than `grace_s` ago: temporary files, and packs of no release. Younger ones may
        belong to a writer that is at work where the lock does not reach."""
        self._chain.refresh()
        published = {entry.pack for entry in self._chain.entries}
        packs = [path for path in sorted((self.path / "packs").iterdir()) if path.name not in published]
        found = (*sorted((self.path / "tmp").iterdir()), *packs)
        until = time.time() - grace_s  # by the clock that dates files
        return [path for path in found if not grace_s or path.stat().st_mtime <= until]

    def verify(self) -> Verification:
        """Walk everything anew: links, signatures, packs, pointers. Damage is told, not raised."""
        self._chain.require()
        return verify_registry(self.path, self._trusted)

    # Writing

    def publish(
        self,
        pack: bytes | Path,
        *,
        who: str,
        why: str,
        gates: Sequence[Mapping[str, Any]] = (),
        details: Mapping[str, Any] | None = None,
        stage: str | None = "candidate",
    ) -> Release:
        """A new release of `pack` (its bytes, or a file that is copied), and `stage` moved to it (None: no stage).

        gates: what was checked, each with "output", "metric", "found", "passed" and its bounds. details: anything JSON.
        """
        _check_words(who, why)
        if stage is not None:
            _check_stage(stage)
        check_gates(gates)
        self._make()
        with self._writing():
            sha256 = self._store(pack)
            fields = {"pack": sha256, "gates": list(gates), "details": dict(details or {})}
            entry = self._append("publish", None, stage, who, why, fields)
            return self._release(entry.number, entry)

    def promote(
        self, number: int, stage: str, *, who: str, why: str, override: str = "", expect: int | None = AS_SEEN
    ) -> Release:
        """Move `stage` to release `number`. A second promotion of what is there already changes nothing.

        expect: the release the stage must hold (None: no release); the default is what it holds as the call begins, so
        that of two at once one wins and the other is refused. override: the reason for passing over a failed gate or a
        stage not visited. Raises NotFound or Refused.
        """
        _check_words(who, why)
        _check_stage(stage)
        if len(override) > WHY_CHARACTERS_MAX:
            raise UsageError(
                f"expected an override of at most {WHY_CHARACTERS_MAX:,} characters, found {len(override):,}"
            )
        expected = self._holds(stage) if expect == AS_SEEN else expect
        with self._writing():
            release = self._release(number)
            if self._holds(stage) == number:
                return self._release(number, self._chain.entries[self._chain.states[stage].entry - 1])
            self._check_expected(stage, expected)
            check_promotion(self._chain.entries, release.entry, stage, override)
            self.check_pack(release)
            fields = {"pack": release.sha256, "gates": release.entry.document["gates"], "override": override}
            return self._release(number, self._append("promote", number, stage, who, why, fields))

    def rollback(
        self, stage: str = "production", *, who: str, why: str, to: int | None = None, expect: int | None = AS_SEEN
    ) -> Release:
        """Move `stage` back to the release it held before, or to release `to`, which must have been there.

        Going back twice goes back two releases. Raises NotFound or Refused.
        """
        _check_words(who, why)
        _check_stage(stage)
        expected = self._holds(stage) if expect == AS_SEEN else expect
        with self._writing():
            self._check_expected(stage, expected)
            number = rollback_target(self._chain.entries, self._chain.states.get(stage), stage, to)
            release = self._release(number)
            self.check_pack(release)
            fields = {"pack": release.sha256, "gates": release.entry.document["gates"]}
            return self._release(number, self._append("rollback", number, stage, who, why, fields))

    def switch(self, kind: str, name: str, *, on: bool, who: str, why: str) -> Entry:
        """Switch the scoring of an asset, a class or the fleet (kind, with an empty name) off, or on again."""
        _check_words(who, why)
        details = switch_details(kind, name)
        with self._writing():
            return self._append("unblock" if on else "block", 0, None, who, why, {"pack": "", "details": details})

    def repair(self) -> None:
        """Write every pointer again that does not say what the chain says. Every writer does this first."""
        with self._writing(anew=True):
            pass

    def gc(self, grace_s: float = 0.0) -> list[str]:
        """Remove `orphans`. Returns their names."""
        with self._writing():
            found = self.orphans(grace_s)
            for path in found:
                path.unlink()
            for folder in {path.parent for path in found}:
                sync_folder(folder)
            return [path.name for path in found]

    # How

    def _make(self) -> None:
        """The folders; `releases` last, because that one makes it a registry. Synced also where they are there, for
        who made them may have been killed before."""
        make_folder(self.path)
        for folder in ("packs", "stages", "tmp", "releases"):
            (self.path / folder).mkdir(exist_ok=True)
        sync_folder(self.path)

    def _holds(self, stage: str) -> int | None:
        self._chain.refresh()
        state = self._chain.states.get(stage)
        return state.release if state else None

    def _release(self, number: int, moved_by: Entry | None = None) -> Release:
        entry = self._chain.entries[number - 1] if 1 <= number <= len(self._chain.entries) else None
        if entry is None or entry.action != "publish":
            published = [e.number for e in self._chain.entries if e.action == "publish"]
            shown = f"{published[0]} … {published[-1]}" if published else "none yet"
            raise NotFound(
                f"{self.path}: no release {number} (releases: {shown})", "`wheeltapper release list` shows them"
            )
        return Release(number, self.path / "packs" / entry.pack, entry.pack, entry, moved_by or entry)

    def _check_expected(self, stage: str, expected: int | None) -> None:
        if (holds := self._holds(stage)) != expected:
            message = f"{self.path}: expected {stage} to hold {_named(expected)}, found {_named(holds)}"
            raise Refused(message, "somebody moved it meanwhile; look at `wheeltapper release list` and decide again")

    @contextmanager
    def _writing(self, anew: bool = False) -> Iterator[None]:
        """Alone among the writers, with the chain read again from its start and the pointers as it says."""
        self._chain.require()
        with locked(self.path / "lock"):
            sync_folder(self.path / "releases")  # a writer before may have been killed between its link and this
            chain = ChainReader(self.path, self._trusted)
            chain.refresh()
            if newest := self._chain.newest():
                chain.check_held(newest.number, newest.sha256)
            self._chain = chain
            for stage in STAGES:
                if not anew:
                    path = self.path / "stages" / stage
                    check_pointer(path, read_pointer(path), self._chain.entries)
                self._point(stage)
            yield

    def _store(self, pack: bytes | Path) -> str:
        """Put a pack below packs/ under the sha256 of its bytes."""
        digest = hashlib.sha256()

        def counted(chunks: Iterable[bytes]) -> Iterator[bytes]:
            for chunk in chunks:
                digest.update(chunk)
                yield chunk

        if isinstance(pack, Path) and not pack.is_file():
            raise NotFound(f"no pack at {pack}", "name the file that `wheeltapper train` wrote")
        chunks = [pack] if isinstance(pack, bytes) else chunks_of(pack)
        temporary = write_temporary(self.path / "tmp", "pack", counted(chunks))
        sha256 = digest.hexdigest()
        temporary.chmod(0o444)
        replace(temporary, self.path / "packs" / sha256)  # over an equal one, or over one that was damaged
        return sha256

    def _append(
        self, action: str, release: int | None, stage: str | None, who: str, why: str, fields: Mapping[str, Any]
    ) -> Entry:
        """Link a new entry to the chain and move the pointer of `stage`. The link is the moment at which it happens."""
        for _ in range(_CLAIMS_MAX):
            number = len(self._chain.entries) + 1
            before = self._chain.states.get(stage) if stage else None
            subject = number if release is None else release
            document = {
                "format": FORMAT,
                "number": number,
                "previous": self._chain.entries[-1].sha256 if self._chain.entries else "",
                "action": action,
                "release": subject,
                "stage": stage,
                "from": before.release if before else None,
                "to": subject if stage else None,
                "who": who,
                "when": self._clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "why": why,
                "gates": [],
                "override": "",
                "details": {},
                **fields,
            }
            temporary = write_temporary(self.path / "tmp", f"{number}.json", [sealed(document, self._signer)])
            placed = place_new(temporary, self.path / "releases" / f"{number}.json")
            self._chain.refresh()
            if placed:
                if stage:
                    self._point(stage)
                return self._chain.entries[number - 1]
            # A writer on another machine, whom the lock did not reach, took the number.
            if stage and release is not None:
                self._check_expected(stage, before.release if before else None)
        raise Refused(f"{self.path}: {_CLAIMS_MAX} writers in a row took the next number first", "try again later")

    def _point(self, stage: str) -> None:
        """Write the pointer of `stage` where it does not say what the chain says."""
        path = self.path / "stages" / stage
        state = self._chain.states.get(stage)
        wanted = pointer_bytes(self._chain.entries, state.entry) if state else None
        if wanted is None:
            path.unlink(missing_ok=True)
        elif wanted != read_pointer(path):
            replace(write_temporary(self.path / "tmp", stage, [wanted]), path)


def _named(release: int | None) -> str:
    return "no release" if release is None else f"release {release}"


def _check_stage(stage: str) -> None:
    if stage not in STAGES:
        raise NotFound(f"expected a stage ({', '.join(STAGES)}), found {stage!r}", "choose one of these stages")


def _check_words(who: str, why: str) -> None:
    for name, text, limit in (("who", who, WHO_CHARACTERS_MAX), ("why", why, WHY_CHARACTERS_MAX)):
        if not text.strip() or len(text) > limit:
            message = f"expected {name} as a text of 1 to {limit:,} characters, found {len(text):,}"
            raise UsageError(message, "the chain is the audit log: say who moves what, and why")
