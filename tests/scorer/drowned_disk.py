"""A disk in memory that forgets what was not synced, names included, fills up, and loses power before or after any of
its steps."""

from __future__ import annotations

import errno
import os
import random
import zlib
from collections.abc import Sequence


class PowerCutError(Exception):
    """The machine is off: nothing more happens on this disk until `power_on`."""


class DrownedDisk:
    def __init__(self, rng: random.Random, lies: bool = False) -> None:
        self.rng = rng
        self.lies = lies  # its sync syncs nothing
        self.steps = 0
        self.cut_at = -1  # the step at which power goes
        self.fails: range = range(0)  # steps at which it fails …
        self.error = errno.ENOSPC  # … in this way; a disk that has become read-only refuses every change
        self.dead = False
        self.trace: list[str] = []  # all that happened; others may add what they saw
        self.flipped: set[str] = set()
        self._files: dict[str, tuple[bytearray, int]] = {}  # content, how much of it is synced
        self._forsaken: set[str] = set()  # files of which a sync failed: the rest of them is never written any more
        self._before: list[dict[str, tuple[bytearray, int] | None]] = []  # changes of names, undone

    def power_on(self, keep_unsynced: bool) -> None:
        """After a crash of the process all is there, synced or not. After one of the machine some beginning of what was
        not synced is there, of which the last byte may be wrong, and of the names as many changes as it had come to."""
        self.dead, self.cut_at, self.fails = False, -1, range(0)
        if not keep_unsynced:
            self._lose_names()
            for name, (content, synced) in self._files.items():
                kept = self.rng.randint(synced, len(content))
                if kept > synced and self.rng.random() < 0.3:
                    content[kept - 1] ^= 1 << self.rng.randrange(8)
                self._files[name] = (content[:kept], kept)
            self._forsaken.clear()
        self.trace.append(f"power on {self.digest():08x}")

    def _lose_names(self) -> None:
        for undone in reversed(self._before[self.rng.randint(0, len(self._before)) :]):
            for name, before in undone.items():
                if before is None:
                    self._files.pop(name, None)
                else:
                    self._files[name] = before
        self._before.clear()

    def _rename(self, change: dict[str, tuple[bytearray, int] | None]) -> None:
        """Files under other names, None where one is no more; on disk with the next sync of the folder."""
        self._before.append({name: self._files.get(name) for name in change})
        for name, file in change.items():
            self._forsaken.discard(name)
            if file is None:
                self._files.pop(name, None)
            else:
                self._files[name] = file

    def _sync_folder(self) -> None:
        if not self.lies:
            self._before.clear()

    def digest(self) -> int:
        """A checksum of all files."""
        check = 0
        for name in self.names():
            check = zlib.crc32(self._files[name][0], zlib.crc32(name.encode(), check))
        return check

    def flip(self, name: str) -> None:
        """One bit of a file turns over."""
        content, _ = self._files[name]
        self.flipped.add(name)
        content[self.rng.randrange(len(content))] ^= 1 << self.rng.randrange(8)

    def step(self, name: str, file: str, told: str = "") -> bool:
        """Whether the step still happens. Raises what the disk does."""
        if self.dead:
            raise PowerCutError(name)
        self.steps += 1
        fails = self.steps in self.fails and (name in ("append", "create", "sync") or self.error == errno.EROFS)
        how = f"{errno.errorcode[self.error]}: " if fails else "cut: " if self.steps == self.cut_at else ""
        self.trace.append(f"{how}{name} {file}{told}")
        if self.steps == self.cut_at:
            self.dead = True
            return self.rng.random() < 0.5
        if fails:
            error = errno.EIO if name == "sync" and self.error == errno.ENOSPC else self.error
            raise OSError(error, os.strerror(error))
        return True

    def _survive(self) -> None:
        if self.dead:
            raise PowerCutError

    def names(self) -> list[str]:
        return sorted(self._files)

    def read(self, name: str) -> memoryview:
        return memoryview(bytes(self._files[name][0]))

    def create(self, name: str) -> _DrownedFile:
        self._change_names("create", name, {name: (bytearray(), 0)})
        return _DrownedFile(self, name)

    def rename(self, old: str, new: str) -> None:
        self._change_names("rename", old, {new: self._files[old], old: None})

    def _change_names(self, step: str, name: str, change: dict[str, tuple[bytearray, int] | None]) -> None:
        """Two things, of which a cut or a failure may leave the first one alone."""
        try:
            happens = self.step(step, name)
        except OSError as error:
            if error.errno != errno.EROFS and self.rng.random() < 0.5:
                self._rename(change)
            raise
        if happens or self.rng.random() < 0.5:
            self._rename(change)
        if happens:
            self._sync_folder()
        self._survive()

    def remove(self, name: str) -> None:
        if self.step("remove", name):
            self._rename({name: None})
        self._survive()

    def truncate(self, name: str, size: int) -> None:
        if self.step("truncate", name):
            content, synced = self._files[name]
            self._files[name] = (content[:size], min(synced, size))
            if size <= synced:
                self._forsaken.discard(name)
        self._survive()

    def append_to(self, name: str, data: bytes) -> None:
        content, synced = self._files[name]
        try:
            happens = self.step("append", name, f" {len(data)} {zlib.crc32(data):08x}")
        except OSError:
            content += data[: self.rng.randrange(len(data) + 1)]  # a part fits
            raise
        content += data if happens else data[: self.rng.randrange(len(data) + 1)]
        self._files[name] = (content, synced)
        self._survive()

    def sync(self, name: str) -> None:
        content, _ = self._files[name]
        try:
            happens = self.step("sync", name)
        except OSError as error:
            if error.errno != errno.EROFS:
                self._forsaken.add(name)
            raise
        if happens and not self.lies and name not in self._forsaken:
            self._files[name] = (content, len(content))
        self._survive()


class _DrownedFile:
    def __init__(self, disk: DrownedDisk, name: str) -> None:
        self._disk, self._name = disk, name

    def append(self, parts: Sequence[bytes]) -> None:
        self._disk.append_to(self._name, b"".join(parts))

    def sync(self) -> None:
        self._disk.sync(self._name)

    def close(self) -> None:
        pass
