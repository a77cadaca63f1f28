"""A look or a reload that fails, in whatever way, leaves a scorer serving what it has, and is counted and said."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from serving import Running
from unwritable import full
from wheeltapper.chain import sealed
from wheeltapper.kill_switch import Blocked
from wheeltapper.live import LiveFleet
from wheeltapper.pack import Pack
from wheeltapper.registry import Registry
from wheeltapper_scorer import guard
from wheeltapper_scorer.access import read_grants
from wheeltapper_scorer.certs import make_certificates
from wheeltapper_scorer.counters import Counters
from wheeltapper_scorer.guard import Guard
from wheeltapper_scorer.reload import Loaded, Stage, follow
from wheeltapper_scorer.settings import Settings, TlsFiles
from wheeltapper_scorer.switch import Switch

GRANT = '[[grant]]\nidentity = "{}"\nassets = ["*"]\n'
ERRORS = (AttributeError("no such thing"), OverflowError("1e999"), RecursionError("deep"), MemoryError(), KeyError("x"))


class Odd:
    """A source that wants another release, and fails in one of its calls as long as it has errors."""

    def __init__(self, loaded: Loaded, fails: str, errors: list[Exception]) -> None:
        self._loaded, self._fails, self._errors = loaded, fails, errors

    def _call(self, name: str) -> None:
        if name == self._fails and self._errors:
            raise self._errors.pop(0)

    def token(self) -> str:
        self._call("token")
        return self._loaded.token

    def load(self) -> Loaded:
        self._call("load")
        return self._loaded

    def blocked(self) -> Blocked:
        self._call("blocked")
        return Blocked(fleet=True)

    def remember(self) -> None:
        self._call("remember")

    def find(self, release: int, sha256: str) -> Pack | None:
        return None


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("fails", ["token", "load", "blocked", "remember"])
def test_no_error_ends_the_looking(
    fleet: LiveFleet, packs: dict[str, bytes], fails: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "wheeltapper.scorer")
    counters, switch = Counters(), Switch()
    source = Odd(Loaded(Pack.from_bytes(packs["second"]), 2, "2:2"), fails, list(ERRORS))

    async def watch() -> None:
        following = asyncio.create_task(follow(source, "1:1", fleet, counters, 0.0, switch))
        await until(lambda: counters.reloads == 1 or following.done())
        assert not following.done(), following
        following.cancel()

    asyncio.run(watch())
    assert (fleet.release, counters.reloads_failed, switch.blocked.fleet) == (2, len(ERRORS), True)
    told = [vars(record)["fields"] for record in caplog.records if record.getMessage() == "reload failed"]
    assert [one["reason"].partition(":")[0] for one in told] == [type(error).__name__ for error in ERRORS]
    assert {one["serving"] for one in told} == {1}


def test_a_switch_is_obeyed_though_it_cannot_be_remembered(
    registry: Registry, fleet: LiveFleet, tmp_path: Path
) -> None:
    counters, switch, seen = Counters(), Switch(), tmp_path / "state" / "seen-production"
    stage = Stage(Registry(registry.path), "production", seen)
    token = stage.load().token
    before = seen.read_text()
    registry.switch("fleet", "", on=False, who="a test", why="smoke")

    async def watch() -> None:
        following = asyncio.create_task(follow(stage, token, fleet, counters, 0.0, switch))
        with full():
            await until(lambda: counters.reloads_failed > 3)
            assert switch.blocked.fleet
            # One may be on its way; what piled up would never be gone again.
            await until(lambda: [path.name for path in seen.parent.iterdir()] == [seen.name])
            assert seen.read_text() == before
        await until(lambda: seen.read_text() != before)
        following.cancel()

    asyncio.run(watch())
    assert (fleet.release, counters.reloads) == (1, 0)


def test_no_error_ends_the_looking_for_grants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, grants = tmp_path / "certs", tmp_path / "grants.toml"
    make_certificates(folder, ["localhost"], 1.0)
    grants.write_text(GRANT.format("gw-1"))
    tls = TlsFiles(folder / "localhost.pem", folder / "localhost.key", folder / "ca.pem")
    guard_made, errors = Guard(Settings(tls=tls, grants=grants, poll_s=0.01)), list(ERRORS)

    def read(path: Path) -> object:
        if errors:
            raise errors.pop(0)
        return read_grants(path)

    monkeypatch.setattr(guard, "read_grants", read)
    grants.write_text(GRANT.format("gw-22"))

    async def watch() -> None:
        following = asyncio.create_task(guard_made.follow())
        await until(lambda: "gw-22" in (guard_made.access.grants or ()) or following.done())
        assert not following.done(), following
        following.cancel()

    asyncio.run(watch())
    assert errors == []


def test_a_damaged_registry_does_not_end_a_scorer(running: Running, registry: Registry) -> None:
    """One that never looked at what a switch names, and one whose pointer is what no number can be."""
    last = registry.history()[-1]
    document = {**last.document, "number": last.number + 1, "previous": last.sha256, "action": "block", "release": 0}
    document |= {"pack": "", "stage": None, "from": None, "to": None, "details": {"switch": []}}
    (registry.path / "releases" / f"{last.number + 1}.json").write_bytes(sealed(document, None))
    assert running.wait_for("switched")["off"]["ignored"] == [last.number + 1]
    pointer = registry.path / "stages" / "production"
    right = pointer.read_bytes()
    pointer.write_bytes(b'{"entry":1e999}')
    document |= {"number": last.number + 2, "previous": registry.history()[-1].sha256, "action": "promote"}
    document |= {"release": 2, "pack": registry.release(2).sha256, "stage": "production", "to": 2, "details": {}}
    (registry.path / "releases" / f"{last.number + 2}.json").write_bytes(sealed(document, None))
    assert "expected a pointer" in running.wait_for("reload failed")["reason"]
    assert running.process.poll() is None
    pointer.write_bytes(right)
    assert running.wait_for("reloaded")["release"] == 2
