"""A folder of files as the journal sees it. It is an argument of everything that must survive, so that a test can give
a disk that is full, that lies, or that loses power between any two steps."""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from wheeltapper.durable import make_folder, sync_folder
from wheeltapper.errors import CommandError, Refused

_PARTS_MAX = 512  # buffers of one writev; the system's own limit is 1,024


class File(Protocol):
    """A file open for appending. Every call may raise OSError."""

    def append(self, parts: Sequence[bytes]) -> None: ...

    def sync(self) -> None:
        """What was appended survives a power cut when this returns."""

    def close(self) -> None: ...


class Disk(Protocol):
    """Files of one folder, by name. Every call may raise OSError."""

    def names(self) -> list[str]: ...

    def read(self, name: str) -> memoryview: ...

    def create(self, name: str) -> File:
        """A new file, over an old one of its name. Its name survives a power cut when this returns."""

    def rename(self, old: str, new: str) -> None:
        """One step, over what is there; it survives a power cut when this returns."""

    def remove(self, name: str) -> None:
        """It may be there again after a power cut."""

    def truncate(self, name: str, size: int) -> None:
        """Forget what lies behind so many bytes of a file."""

    def sync(self, name: str) -> None:
        """What can be read of a file survives a power cut when this returns: a process that was killed may have left
        it in memory alone."""


class Folder:
    """The disk itself. One process at a time holds a folder. Raises CommandError where it cannot be used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            make_folder(path)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise Refused(f"{path} is the state of a scorer that is running", "give each its own --state") from None
        except OSError as error:
            raise CommandError(
                f"{path}: expected a folder that can be written, found: {error.strerror}",
                "give --state another place, or serve without durable acknowledgements",
            ) from error

    def release(self) -> None:
        """Let another process have the folder."""
        os.close(self._lock)

    def names(self) -> list[str]:
        return sorted(one.name for one in self.path.iterdir())

    def read(self, name: str) -> memoryview:
        with (self.path / name).open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            return memoryview(mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_READ) if size else b"")

    def create(self, name: str) -> File:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        made = _Appending(os.open(self.path / name, flags, 0o600))
        try:
            sync_folder(self.path)
        except OSError:
            made.close()
            raise
        return made

    def rename(self, old: str, new: str) -> None:
        (self.path / old).replace(self.path / new)
        sync_folder(self.path)

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def truncate(self, name: str, size: int) -> None:
        os.truncate(self.path / name, size)

    def sync(self, name: str) -> None:
        handle = os.open(self.path / name, os.O_RDONLY)
        try:
            os.fdatasync(handle)
        finally:
            os.close(handle)


class _Appending:
    def __init__(self, handle: int) -> None:
        self._handle = handle

    def append(self, parts: Sequence[bytes]) -> None:
        for begin in range(0, len(parts), _PARTS_MAX):
            self._append_some(list(parts[begin : begin + _PARTS_MAX]))

    def _append_some(self, parts: list[bytes]) -> None:
        left = sum(len(part) for part in parts)
        written = os.writev(self._handle, parts)
        if written == left:
            return
        view = memoryview(b"".join(parts))[written:]  # a disk that fills up takes a part first, then says so
        while view:
            view = view[os.write(self._handle, view) :]

    def sync(self) -> None:
        os.fdatasync(self._handle)

    def close(self) -> None:
        os.close(self._handle)
