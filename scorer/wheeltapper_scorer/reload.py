"""The release that a stage holds: loaded at the start, looked for ever after, swapped in between two blocks."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wheeltapper.errors import CommandError
from wheeltapper.features import KERNELS
from wheeltapper.live import LiveFleet
from wheeltapper.pack import Pack, open_pack
from wheeltapper.registry import Registry

from wheeltapper_scorer import logs
from wheeltapper_scorer.counters import Counters

_RETRY_S_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """A pack that was mapped, verified and has given its golden scores."""

    pack: Pack
    release: int  # 0: a pack file without a registry


class Source(Protocol):
    """Where packs come from. Both calls read files and may take seconds: keep them off the event loop."""

    def load(self) -> Loaded:
        """What must serve first. Raises NotFound or Refused."""

    def look(self) -> Loaded | None:
        """What must serve now, or None while it is what was loaded last. Raises NotFound or Refused."""


class PackFile:
    """One pack, for ever."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> Loaded:
        return Loaded(open_pack(self._path, kernels=KERNELS), 0)

    def look(self) -> Loaded | None:
        return None


class Stage:
    """What a registry's stage holds, and that it moved. Never an older state of the registry than one seen before."""

    def __init__(self, registry: Registry, name: str) -> None:
        self._registry = registry
        self._name = name
        self._token = ""
        self._entry = 0

    def load(self) -> Loaded:
        token = self._registry.watch_token(self._name)
        release = self._registry.resolve(self._name, self._entry)
        loaded = Loaded(open_pack(release.pack_path, kernels=KERNELS), release.number)
        self._token, self._entry = token, release.moved_by.number
        return loaded

    def look(self) -> Loaded | None:
        return None if self._registry.watch_token(self._name) == self._token else self.load()


async def follow(source: Source, fleet: LiveFleet, counters: Counters, poll_s: float) -> None:
    """Look every `poll_s` seconds and swap, for ever. A pack that fails leaves the old one serving; it is tried again
    ever more slowly, and its reason is logged once."""
    failures, reason = 0, ""
    while True:
        await asyncio.sleep(min(poll_s * 2.0 ** min(failures, 10), max(poll_s, _RETRY_S_MAX)))
        began = time.monotonic()
        try:
            loaded = await asyncio.to_thread(source.look)
            if loaded is not None:
                before = fleet.release
                fleet.swap(loaded.pack, loaded.release)
                counters.reloads += 1
                logs.info(
                    "reloaded",
                    release=loaded.release,
                    before=before,
                    pack=loaded.pack.sha256,
                    seconds=round(time.monotonic() - began, 3),
                )
            failures, reason = 0, ""
        except (CommandError, OSError) as error:
            counters.reloads_failed += 1
            failures += 1
            if str(error) != reason:
                reason = str(error)
                logs.warning("reload failed", reason=reason, serving=fleet.release)
