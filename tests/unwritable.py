"""Disks that really refuse to be written, also where the tests run as root."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_NOBODY = 65_534


@contextlib.contextmanager
def unwritable() -> Iterator[Path]:
    """The folder; inside, everything of this process is done in the name of a user to whom it belongs to no more."""
    folder = Path(tempfile.mkdtemp())  # below a folder that everybody may pass, as pytest's own may not
    user = os.geteuid()
    folder.chmod(0o555)
    try:
        if user == 0:
            os.seteuid(_NOBODY)
        yield folder
    finally:
        os.seteuid(user)
        folder.chmod(0o755)
        shutil.rmtree(folder)


@contextlib.contextmanager
def full() -> Iterator[None]:
    """The system lets no file of this process grow: every write that would fails in the middle of whatever it is in."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
