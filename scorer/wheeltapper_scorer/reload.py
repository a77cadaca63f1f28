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
    token: str  # the source's, from before the pack was looked up


class Source(Protocol):
    """Where packs come from. Both calls read files: keep them off the event loop, and one at a time."""

    def token(self) -> str:
        """A text that changes when another pack must serve: cheap enough to ask every second. Raises CommandError."""

    def load(self) -> Loaded:
        """What must serve now; may take seconds. Raises NotFound or Refused."""


class PackFile:
    """One pack, for ever."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def token(self) -> str:
        return ""

    def load(self) -> Loaded:
        return Loaded(open_pack(self._path, kernels=KERNELS), 0, "")


class Stage:
    """What a registry's stage holds. Never an older state of the registry than one that was served before."""

    def __init__(self, registry: Registry, name: str) -> None:
        self._registry = registry
        self._name = name
        self._entry = 0

    def token(self) -> str:
        return self._registry.watch_token(self._name)

    def load(self) -> Loaded:
        token = self.token()
        release = self._registry.resolve(self._name, self._entry)
        pack = open_pack(release.pack_path, kernels=KERNELS)
        self._entry = release.moved_by.number
        return Loaded(pack, release.number, token)


async def follow(source: Source, served: str, fleet: LiveFleet, counters: Counters, poll_s: float) -> None:
    """Look every `poll_s` seconds whether the token is still the `served` one, and swap where it is not, for ever.

    A pack that fails leaves the old one serving. It is tried again ever more slowly, and its reason is logged once;
    another token is tried at once.
    """
    failed, failures, retry_at, reason = "", 0, 0.0, ""
    while True:
        await asyncio.sleep(poll_s)
        token, began = "", time.monotonic()
        try:
            token = await asyncio.to_thread(source.token)
            if token == served or (token == failed and began < retry_at):
                continue
            loaded = await asyncio.to_thread(source.load)
            before = fleet.release
            fleet.swap(loaded.pack, loaded.release)
        except (CommandError, OSError) as error:
            failures = failures + 1 if token == failed else 1
            failed, retry_at = token, began + min(poll_s * 2.0 ** min(failures, 10), max(poll_s, _RETRY_S_MAX))
            counters.reloads_failed += 1
            if str(error) != reason:
                reason = str(error)
                logs.warning("reload failed", reason=reason, serving=fleet.release)
            continue
        served, failed, failures, reason = loaded.token, "", 0, ""
        counters.reloads += 1
        took_s = round(time.monotonic() - began, 3)
        logs.info("reloaded", release=loaded.release, before=before, pack=loaded.pack.sha256, seconds=took_s)
