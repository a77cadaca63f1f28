"""The release that a stage holds: loaded at the start, looked for ever after, swapped in between two blocks."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wheeltapper.durable import replace, write_temporary
from wheeltapper.errors import CommandError, Refused
from wheeltapper.features import KERNELS
from wheeltapper.kill_switch import Blocked
from wheeltapper.live import LiveFleet
from wheeltapper.pack import Pack, open_pack
from wheeltapper.registry import Registry

from wheeltapper_scorer import logs
from wheeltapper_scorer.counters import Counters
from wheeltapper_scorer.switch import Switch

_RETRY_S_MAX = 60.0
_BREATH_S = 0.01  # between two pieces of a reload, so that blocks which waited for one are gone before the next
_WRITABLE = "--state must be a folder that this scorer may read and write"


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

    def blocked(self) -> Blocked:
        """What an operator has switched off, as of the latest `token` or `load`. Raises CommandError."""

    def find(self, release: int, sha256: str) -> Pack | None:
        """The pack that a release had, for what was scored with it; None where it is gone."""


class PackFile:
    """One pack, for ever."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def token(self) -> str:
        return ""

    def load(self) -> Loaded:
        return Loaded(open_pack(self._path, kernels=KERNELS), 0, "")

    def blocked(self) -> Blocked:
        return Blocked()  # a pack alone has no operator

    def find(self, release: int, sha256: str) -> Pack | None:  # noqa: ARG002 — there is one pack, which serves
        return None


class Stage:
    """What a registry's stage holds. Never an older state of the registry than one that was served before."""

    def __init__(self, registry: Registry, name: str, seen: Path | None = None) -> None:
        """seen: where the newest entry that was served is remembered across restarts. Raises Refused for a file that
        holds no number."""
        self._registry = registry
        self._name = name
        self._seen = seen
        self._entry = _remembered(seen) if seen is not None else 0

    def token(self) -> str:
        return self._registry.watch_token(self._name)

    def load(self) -> Loaded:
        token = self.token()
        release = self._registry.resolve(self._name, self._entry)
        time.sleep(_BREATH_S)
        pack = open_pack(release.pack_path, kernels=KERNELS)
        self._remember(release.moved_by.number)
        return Loaded(pack, release.number, token)

    def _remember(self, entry: int) -> None:
        if self._seen is not None and entry != self._entry:
            try:
                self._seen.parent.mkdir(parents=True, exist_ok=True)
                replace(write_temporary(self._seen.parent, self._seen.name, [f"{entry}\n".encode()]), self._seen)
            except OSError as error:  # served and not remembered, an older state could come back with a restart
                raise CommandError(
                    f"{self._seen}: cannot remember the entry that is about to serve: {error.strerror}",
                    _WRITABLE,
                ) from error
        self._entry = entry

    def blocked(self) -> Blocked:
        return self._registry.blocked()

    def find(self, release: int, sha256: str) -> Pack | None:
        try:
            pack = open_pack(self._registry.release(release).pack_path, kernels=KERNELS)
        except (CommandError, OSError):
            return None
        return pack if pack.sha256 == sha256 else None


def _remembered(path: Path) -> int:
    try:
        text = path.read_text(encoding="ascii").strip()
        if text.isdecimal():
            return int(text)
    except FileNotFoundError:
        return 0
    except ValueError:
        text = "other bytes"
    except OSError as error:
        raise CommandError(f"{path}: cannot read the entry that was served: {error.strerror}", _WRITABLE) from error
    raise Refused(f"{path}: expected the number of the newest entry that was served, found {text[:99]!r}",
                  "look at `wheeltapper release list` before you remove it")  # fmt: skip


def obey(switch: Switch, blocked: Blocked) -> None:
    """Turn the switch, and log it where that is something new."""
    if switch.turn(blocked):
        shown = {"classes": sorted(blocked.classes), "assets": len(blocked.assets), "ignored": list(blocked.ignored)}
        logs.warning("switched", off={"fleet": blocked.fleet, **shown})


def _look(source: Source) -> tuple[str, Blocked]:
    return source.token(), source.blocked()


async def follow(
    source: Source, served: str, fleet: LiveFleet, counters: Counters, poll_s: float, switch: Switch
) -> None:
    """Look every `poll_s` seconds whether the token is still the `served` one, and swap where it is not, for ever.

    A pack that fails leaves the old one serving. It is tried again ever more slowly, and its reason is logged once;
    another token is tried at once.
    """
    failed, failures, retry_at, reason = "", 0, 0.0, ""
    while True:
        await asyncio.sleep(poll_s)
        token, began = "", time.monotonic()
        try:
            token, blocked = await asyncio.to_thread(_look, source)
            obey(switch, blocked)
            if token == served or (token == failed and began < retry_at):
                continue
            loaded = await asyncio.to_thread(source.load)
            await asyncio.sleep(_BREATH_S)
            prepared = await asyncio.to_thread(fleet.prepare, loaded.pack, loaded.release)
            await asyncio.sleep(_BREATH_S)
            before, retired = fleet.release, [fleet.pack]
            fleet.swap(prepared)
            await asyncio.to_thread(retired.clear)  # unmapping a large pack takes longer than a block may wait
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
