"""Files that are there whole or not at all, whatever happens in between: temporary file, fsync, one atomic step, fsync
of the folder. Writers of one folder take turns with an advisory lock."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from wheeltapper.errors import CommandError, Refused

LOCK_WAIT_S = 30.0
# Folders that may be passed and not read, or whose names cannot be synced, hold what others put there.
_NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EINVAL, errno.ENOTSUP)
CHUNK_BYTES = 1 << 20

_LOCK_POLL_S = 0.02


@contextmanager
def locked(path: Path, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
    """Hold the lock file at `path`; the system releases it when its holder dies. CommandError after `wait_s`."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    message = f"{path}: another writer has held the registry for more than {wait_s:.0f} s"
                    raise CommandError(message, "try again when it has finished") from None
                time.sleep(_LOCK_POLL_S)
        yield
    finally:
        os.close(handle)


def write_temporary(folder: Path, name: str, chunks: Iterable[bytes]) -> Path:
    """A synced file in `folder` that nobody reads yet, to be put in place by `place_new` or `replace`."""
    # Never an old name again: an orphan may be a second link to a file in place, and writing would alter that.
    path = folder / f"{name}.{secrets.token_hex(8)}.tmp"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        for chunk in chunks:
            view = memoryview(chunk)
            while view:
                view = view[os.write(handle, view) :]
        os.fsync(handle)
    except BaseException:
        path.unlink()  # whoever tries again every second must not fill the disk with what it could not write
        raise
    finally:
        os.close(handle)
    return path


def place_new(temporary: Path, path: Path) -> bool:
    """Put the file at `path` unless something is there already: then False, and that something is untouched."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    sync_folder(path.parent)
    return True


def replace(temporary: Path, path: Path) -> None:
    """Put the file at `path`, over what is there: a reader sees the old or the new one."""
    try:
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """A folder, and those above it, whose names survive a power cut when this returns. Each is synced before the next
    is made, so that of those found here only the lowest may be of somebody who was killed in between."""
    if not path.is_dir():
        if path.parent != path:
            make_folder(path.parent)
        path.mkdir(exist_ok=True)
    try:
        sync_folder(path.parent)
    except OSError as error:
        if error.errno not in _NOT_OURS:
            raise


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def open_plain(path: Path) -> BinaryIO:
    """Open a file for reading. Raises Refused where it is a folder, or a pipe or a device, on which a reader would wait
    for ever."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise Refused(
            f"{path}: expected a file, found a folder, a pipe or a device", "remove it; somebody put it there"
        )
    return os.fdopen(handle, "rb")


def chunks_of(path: Path) -> Iterator[bytes]:
    with open_plain(path) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    digest = hashlib.sha256()
    for chunk in chunks_of(path):
        digest.update(chunk)
    return digest.hexdigest()
