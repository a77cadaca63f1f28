"""The release that a stage holds: loaded at the start, looked for ever after, swapped in between two blocks."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wheeltapper.durable import make_folder, open_plain, replace, write_temporary
from wheeltapper.errors import CommandError, Refused
from wheeltapper.features import KERNELS
from wheeltapper.kill_switch import Blocked
from wheeltapper.live import LiveFleet
from wheeltapper.pack import Pack, open_pack
from wheeltapper.registry import Registry

from wheeltapper_scorer import logs
from wheeltapper_scorer.aside import aside
from wheeltapper_scorer.counters import Counters
from wheeltapper_scorer.switch import Switch

_RETRY_S_MAX = 60.0
_BREATH_S = 0.01  # between two pieces of a reload, so that blocks which waited for one are gone before the next
_SEEN = re.compile(r"([0-9]{1,18})(?: ([0-9a-f]{64}))?")
_SEEN_BYTES_MAX = 256
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

    def remember(self) -> None:
        """Keep across restarts what the latest `token` or `load` has seen. Raises CommandError where it cannot."""

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

    def remember(self) -> None:
        pass  # it has no time either

    def find(self, release: int, sha256: str) -> Pack | None:  # noqa: ARG002 — there is one pack, which serves
        return None


class Stage:
    """What a registry's stage holds. Never an older state of the registry than one that was seen before."""

    def __init__(self, registry: Registry, name: str, seen: Path | None = None) -> None:
        """seen: where the newest entry that was seen is remembered across restarts. Raises Refused for a file that
        holds none."""
        self._registry = registry
        self._name = name
        self._path = seen
        self._seen = _remembered(seen) if seen is not None else (0, "")

    def token(self) -> str:
        return self._registry.watch_token(self._name)

    def load(self) -> Loaded:
        token = self.token()
        number, sha256 = self._seen
        if sha256:
            self._registry.check_held(number, sha256)
        release = self._registry.resolve(self._name, not_before=0 if sha256 else number)
        time.sleep(_BREATH_S)
        pack = open_pack(release.pack_path, kernels=KERNELS)
        try:
            self.remember()
        except CommandError:
            if release.moved_by.number > number:
                raise
            # The stage stands where it stood: a full disk is no reason not to start. `follow` says so, and tries again.
        return Loaded(pack, release.number, token)

    def remember(self) -> None:
        newest = self._registry.newest()
        if newest is None or newest.number < self._seen[0] or (newest.number, newest.sha256) == self._seen:
            return  # a lower number: other keys are pinned than were
        if self._path is not None:
            self._registry.sync()  # else a power cut could take an entry that is remembered here
            try:
                make_folder(self._path.parent)
                line = f"{newest.number} {newest.sha256}\n".encode()
                replace(write_temporary(self._path.parent, self._path.name, [line]), self._path)
            except OSError as error:  # obeyed and not remembered, an older state could come back with a restart
                raise CommandError(
                    f"{self._path}: cannot remember the entry that was seen last: {error.strerror}", _WRITABLE
                ) from error
        self._seen = newest.number, newest.sha256

    def blocked(self) -> Blocked:
        return self._registry.blocked()

    def find(self, release: int, sha256: str) -> Pack | None:
        try:
            pack = open_pack(self._registry.release(release).pack_path, kernels=KERNELS)
        except (CommandError, OSError):
            return None
        return pack if pack.sha256 == sha256 else None


def _remembered(path: Path) -> tuple[int, str]:
    """The number and sha256 of the newest entry that was seen. Without a sha256, as scorers once wrote it: the number
    of the entry which moved the stage to what was served."""
    try:
        with open_plain(path) as stream:
            text = stream.read(_SEEN_BYTES_MAX).decode("ascii").strip()
    except FileNotFoundError:
        return 0, ""
    except ValueError:
        text = "other bytes"
    except OSError as error:
        raise CommandError(f"{path}: cannot read the entry that was served: {error.strerror}", _WRITABLE) from error
    if found := _SEEN.fullmatch(text):
        return int(found[1]), found[2] or ""
    raise Refused(f"{path}: expected the number and the sha256 of the newest entry that was seen, found {text[:99]!r}",
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

    A look or a pack that fails, in whatever way, leaves the old one serving. A pack is tried again ever more slowly,
    and its reason is logged once; another token is tried at once.
    """
    failed, failures, retry_at, reason = "", 0, 0.0, ""
    while True:
        await asyncio.sleep(poll_s)
        token, began = "", time.monotonic()
        try:
            token, blocked = await aside(_look, source)
            obey(switch, blocked)
            counters.looked_at = time.monotonic()
            await aside(source.remember)  # and a switch that cannot be remembered is obeyed all the same
            if token == served:
                reason = ""
                continue
            if token == failed and began < retry_at:
                continue
            loaded = await aside(source.load)
            await asyncio.sleep(_BREATH_S)
            prepared = await aside(fleet.prepare, loaded.pack, loaded.release)
            await asyncio.sleep(_BREATH_S)
            before, retired = fleet.release, [fleet.pack]
            fleet.swap(prepared)
            await aside(retired.clear)  # unmapping a large pack takes longer than a block may wait
        except Exception as error:  # whatever it is, what serves must not end for it
            failures = failures + 1 if token == failed else 1
            failed, retry_at = token, began + min(poll_s * 2.0 ** min(failures, 10), max(poll_s, _RETRY_S_MAX))
            counters.reloads_failed += 1
            is_expected = isinstance(error, CommandError | OSError)
            found = str(error) if is_expected else f"{type(error).__name__}: {error}"
            if found != reason:
                reason = found
                tell = logs.warning if is_expected else logs.fault
                tell("reload failed", reason=reason, serving=fleet.release)
            continue
        served, failed, failures, reason = loaded.token, "", 0, ""
        counters.reloads += 1
        took_s = round(time.monotonic() - began, 3)
        logs.info("reloaded", release=loaded.release, before=before, pack=loaded.pack.sha256, seconds=took_s)
