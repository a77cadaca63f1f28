"""Who may speak and what is switched off: everything of it that changes while the scorer runs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
from wheeltapper.errors import CommandError

from wheeltapper_scorer import logs
from wheeltapper_scorer.access import Access, read_grants
from wheeltapper_scorer.aside import aside
from wheeltapper_scorer.settings import Settings
from wheeltapper_scorer.switch import Switch
from wheeltapper_scorer.tls import Certificates


class Guard:
    """Built before the port opens. Raises CommandError where a file is missing or wrong."""

    def __init__(self, settings: Settings) -> None:
        tls = settings.tls
        self._certificates = Certificates(tls) if tls is not None else None
        self._poll_s = settings.poll_s
        self._path = settings.grants
        self._stamp = _stamp(self._path) if self._path is not None else None
        grants = read_grants(self._path) if self._path is not None else None
        self.access = Access(tls is not None and tls.client_ca is not None, grants)
        self.switch = Switch()

    @property
    def credentials(self) -> grpc.ServerCredentials | None:
        return self._certificates.credentials() if self._certificates is not None else None

    async def follow(self) -> None:
        """Read the grants again when their file changes, for ever. A wrong file leaves the old grants in force."""
        reason = ""
        while True:
            await asyncio.sleep(self._poll_s)
            if self._path is None:
                continue
            try:
                stamp = await aside(_stamp, self._path)
                if stamp == self._stamp:
                    continue
                grants = await aside(read_grants, self._path)
            except Exception as error:  # whatever it is, what serves must not end for it
                found = str(error) if isinstance(error, CommandError | OSError) else f"{type(error).__name__}: {error}"
                if found != reason:
                    reason = found
                    logs.warning("grants not renewed", reason=reason)
                continue
            self._stamp, reason = stamp, ""
            self.access.replace(grants)
            logs.info("grants renewed", identities=len(grants))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when the file is written or replaced; None where there is none."""
    try:
        state = path.stat()
    except FileNotFoundError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns
