"""Where compiled kernels are kept. What lies there is executed, so nobody else may write to it.

Numba reads NUMBA_CACHE_DIR once, when it is imported: `choose` comes before that. Without a choice kernels are kept
beside their source, which only the installation's owner can write.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from wheeltapper_command.errors import Refused

_VARIABLE = "NUMBA_CACHE_DIR"


def choose(folder: Path | None) -> Path | None:
    """Keep kernels in `folder`, made closed where it is missing; None: where the environment says, if it does.

    Returns what was chosen, None for beside the source. Raises Refused where others could put code there.
    """
    if folder is None:
        named = os.environ.get(_VARIABLE, "")
        if not named:
            return None
        folder = Path(named)
    folder = folder.absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Refused(
            f"kernel cache {folder}: expected a folder that only this user can write, found mode "
            f"{stat.S_IMODE(found.st_mode):o} of user {found.st_uid}",
            f"what lies there is executed: chown it to user {os.getuid()} and chmod it to 700, or name another",
        )
    os.environ[_VARIABLE] = str(folder)
    return folder


def size(folder: Path) -> tuple[int, int]:
    """(files, bytes) of compiled code under a folder."""
    sizes = [path.stat().st_size for pattern in ("*.nbc", "*.nbi") for path in folder.rglob(pattern)]
    return len(sizes), sum(sizes)
