"""The registry's rules, against a plain model and one by one; damage of any byte is found."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from wheeltapper.chain import STAGES
from wheeltapper.errors import CommandError, NotFound, Refused, UsageError
from wheeltapper.registry import Registry

PASSED = {"output": "rul", "metric": "rmse", "found": 11.0, "at_most": 12.0, "passed": True}
FAILED = {"output": "failure:seal", "metric": "pr_auc", "found": None, "at_least": 0.5, "passed": False}
WORDS: dict[str, Any] = {"who": "eve", "why": "a reason"}


def clock() -> datetime:
    return datetime(2026, 5, 1, 12, 30, tzinfo=UTC)


def registry_of(path: Path, releases: int = 2) -> Registry:
    """Releases 1 … n, the last of them candidate."""
    registry = Registry(path / "registry", clock=clock)
    for number in range(1, releases + 1):
        registry.publish(f"pack {number}".encode(), **WORDS)
    return registry


def climb(registry: Registry, number: int, to: str = "production") -> int:
    """Promote stage by stage; returns the number of the last entry."""
    for stage in STAGES[1 : STAGES.index(to) + 1]:
        registry.promote(number, stage, **WORDS)
    return len(registry.history())


def pointer(registry: Registry, stage: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((registry.path / "stages" / stage).read_bytes())
    return found


class RegistryModel(RuleBasedStateMachine):
    """What a registry is: a list of packs, and for each stage the list of releases it can go back through."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.registry = Registry(Path(self.folder.name) / "registry", clock=clock)
        self.packs: dict[int, tuple[bytes, bool]] = {}  # release → bytes, whether its gates passed
        self.trails: dict[str, list[int]] = {stage: [] for stage in STAGES}
        self.visited: dict[str, set[int]] = {stage: set() for stage in STAGES}
        self.entries = 0

    def teardown(self) -> None:
        self.folder.cleanup()

    def enter(self, stage: str, release: int) -> None:
        self.entries += 1
        self.trails[stage].append(release)
        self.visited[stage].add(release)

    @rule(pack=st.binary(max_size=3), good=st.booleans(), stage=st.sampled_from([None, *STAGES]))
    def publish(self, pack: bytes, good: bool, stage: str | None) -> None:
        gates: list[dict[str, Any]] = [PASSED] if good else [PASSED, FAILED]
        release = self.registry.publish(pack, gates=gates, stage=stage, **WORDS)
        assert release.number == self.entries + 1
        self.packs[release.number] = (pack, good)
        if stage:
            self.enter(stage, release.number)
        else:
            self.entries += 1

    @rule(number=st.integers(0, 12), stage=st.sampled_from(STAGES), override=st.sampled_from(["", "a drill"]))
    @precondition(lambda self: self.packs)
    def promote(self, number: int, stage: str, override: str) -> None:
        below = STAGES[max(STAGES.index(stage) - 1, 0)]
        legal = override or stage == "candidate" or number in self.visited[below]
        if number in self.packs and not override and stage == "production" and not self.packs[number][1]:
            legal = False
        held = self.trails[stage][-1:] == [number]
        try:
            release = self.registry.promote(number, stage, override=override, **WORDS)
        except NotFound:
            assert number not in self.packs
        except Refused:
            assert number in self.packs
            assert not legal
            assert not held
        else:
            assert release.number == number
            assert legal or held
            if not held:
                self.enter(stage, number)

    @rule(stage=st.sampled_from(STAGES), to=st.one_of(st.none(), st.integers(1, 12)))
    @precondition(lambda self: self.packs)
    def rollback(self, stage: str, to: int | None) -> None:
        trail = self.trails[stage]
        target = (trail[-2] if len(trail) > 1 else None) if to is None else to
        legal = target in self.visited[stage] and (to is None or target != trail[-1])
        try:
            release = self.registry.rollback(stage, to=to, **WORDS)
        except CommandError:
            assert not legal
        else:
            assert legal
            assert release.number == target
            if target in trail[:-1] or to is None:
                trail.pop()
                while trail[-1] != target:
                    trail.pop()
            else:
                trail.append(release.number)
            self.entries += 1

    @rule()
    @precondition(lambda self: self.packs)
    def collect(self) -> None:
        assert self.registry.gc() == []

    @invariant()
    def agrees(self) -> None:
        if not self.packs:
            return
        fresh = Registry(self.registry.path)
        assert len(fresh.history()) == self.entries
        for stage, trail in self.trails.items():
            if not trail:
                with pytest.raises(NotFound):
                    fresh.resolve(stage)
                continue
            release = fresh.resolve(stage)
            assert release.number == trail[-1]
            assert release.pack_path.read_bytes() == self.packs[trail[-1]][0]
            assert pointer(fresh, stage)["release"] == trail[-1]
            assert fresh.watch_token(stage) == self.registry.watch_token(stage)
        assert fresh.verify().findings == []


TestRegistryModel = RegistryModel.TestCase
TestRegistryModel.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)


def test_an_entry_says_who_when_why_from_to_and_which_gates_passed(tmp_path: Path) -> None:
    registry = registry_of(tmp_path)
    release = registry.publish(b"third", gates=[PASSED], details={"assets": 3}, who="ci", why="nightly")
    assert release.sha256 == hashlib.sha256(b"third").hexdigest()
    assert release.pack_path == registry.path / "packs" / release.sha256
    raw = (registry.path / "releases" / "3.json").read_bytes()
    assert json.loads(raw) == {
        "format": 1, "number": 3, "action": "publish", "release": 3, "pack": release.sha256, "stage": "candidate",
        "from": 2, "to": 3, "who": "ci", "when": "2026-05-01T12:30:00Z", "why": "nightly", "gates": [PASSED],
        "override": "", "details": {"assets": 3}, "key": "", "signature": "",
        "previous": hashlib.sha256((registry.path / "releases" / "2.json").read_bytes()).hexdigest(),
    }  # fmt: skip
    registry.promote(3, "qa", who="eve", why="a look")
    moved = json.loads((registry.path / "releases" / "4.json").read_bytes())
    assert (moved["action"], moved["from"], moved["to"], moved["release"]) == ("promote", None, 3, 3)
    assert moved["gates"] == [PASSED]
    assert pointer(registry, "qa") == {
        "stage": "qa", "release": 3, "entry": 4, "pack": release.sha256,
        "sha256": hashlib.sha256((registry.path / "releases" / "4.json").read_bytes()).hexdigest(),
    }  # fmt: skip


def test_a_pack_may_be_a_file_and_equal_packs_are_one(tmp_path: Path) -> None:
    file = tmp_path / "fleet.pack"
    file.write_bytes(b"x" * 3_000_000)
    registry = Registry(tmp_path / "registry")
    first = registry.publish(file, **WORDS)
    second = registry.publish(file.read_bytes(), **WORDS)
    assert (first.number, second.number, first.pack_path) == (1, 2, second.pack_path)
    assert [path.name for path in (registry.path / "packs").iterdir()] == [first.sha256]
    with pytest.raises(NotFound, match=r"nothing\.pack"):
        registry.publish(tmp_path / "nothing.pack", **WORDS)


def test_a_release_climbs_one_stage_at_a_time(tmp_path: Path) -> None:
    registry = registry_of(tmp_path)
    with pytest.raises(Refused, match="never in qa"):
        registry.promote(1, "production", **WORDS)
    unseen = registry.publish(b"unseen", stage=None, **WORDS).number
    with pytest.raises(Refused, match="never in candidate"):
        registry.promote(unseen, "qa", **WORDS)
    climb(registry, 1)
    assert registry.resolve("production").number == 1
    registry.promote(unseen, "production", override="a drill", **WORDS)
    assert registry.history()[-1].document["override"] == "a drill"


def test_a_failed_gate_stops_at_production(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    registry.publish(b"pack", gates=[PASSED, FAILED], **WORDS)
    registry.promote(1, "qa", **WORDS)
    with pytest.raises(Refused, match=r"failed 1 gate.*failure:seal pr_auc: expected at least 0\.5, found None"):
        registry.promote(1, "production", **WORDS)
    with pytest.raises(Refused):
        registry.promote(1, "production", override="  ", **WORDS)
    assert registry.promote(1, "production", override="the sensor was off", **WORDS).number == 1


def test_going_back_twice_goes_back_two_releases(tmp_path: Path) -> None:
    registry = registry_of(tmp_path, 3)
    for number in (1, 2, 3):
        climb(registry, number)
    assert registry.rollback(**WORDS).number == 2
    assert registry.rollback(**WORDS).number == 1
    with pytest.raises(Refused, match="nothing before release 1"):
        registry.rollback(**WORDS)
    assert registry.rollback(to=3, **WORDS).number == 3
    with pytest.raises(Refused, match="holds release 3 already"):
        registry.rollback(to=3, **WORDS)
    registry.publish(b"pack 4", **WORDS)
    newest = registry.resolve("candidate").number
    with pytest.raises(Refused, match=f"release {newest} was never in production; it held 1, 2, 3"):
        registry.rollback(to=newest, **WORDS)


def test_promoting_what_is_there_changes_nothing(tmp_path: Path) -> None:
    registry = registry_of(tmp_path)
    entries = climb(registry, 2)
    again = registry.promote(2, "production", **WORDS)
    assert (again.number, again.moved_by.number) == (2, entries)
    assert len(registry.history()) == entries


def test_a_stage_that_moved_meanwhile_is_not_moved(tmp_path: Path) -> None:
    registry = registry_of(tmp_path)
    climb(registry, 1)
    registry.promote(2, "qa", **WORDS)
    with pytest.raises(Refused, match="expected production to hold no release, found release 1"):
        registry.promote(2, "production", expect=None, **WORDS)
    with pytest.raises(Refused, match="expected production to hold release 2, found release 1"):
        registry.rollback(expect=2, **WORDS)
    registry.promote(2, "production", expect=1, **WORDS)
    assert registry.rollback(expect=2, **WORDS).number == 1


def test_a_token_changes_with_its_stage_only(tmp_path: Path) -> None:
    registry = registry_of(tmp_path)
    watcher = Registry(registry.path)
    assert watcher.watch_token("production") == ""
    climb(registry, 1)
    token = watcher.watch_token("production")
    assert token == "4:1"
    registry.publish(b"more", **WORDS)
    assert watcher.watch_token("production") == token
    climb(registry, 2)
    assert watcher.watch_token("production") != token


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ({"who": ""}, UsageError), ({"why": " "}, UsageError), ({"why": "x" * 5000}, UsageError),
        ({"gates": [{"output": "rul"}]}, UsageError), ({"gates": [{**PASSED, "found": float("nan")}]}, UsageError),
        ({"gates": [{**PASSED, "passed": 1}]}, UsageError), ({"details": {"a": {1, 2}}}, UsageError),
        ({"details": {"a": "x" * 5_000_000}}, UsageError), ({"stage": "prod"}, NotFound),
    ],
)  # fmt: skip
def test_what_no_entry_can_say_is_refused_before_it_is_written(
    tmp_path: Path, words: dict[str, Any], error: type[CommandError]
) -> None:
    registry = registry_of(tmp_path)
    with pytest.raises(error):
        registry.publish(b"pack", **{**WORDS, **words})
    assert len(Registry(registry.path).history()) == 2
    registry.publish(b"pack", **WORDS)


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "nowhere")
    for ask in (registry.history, registry.stages, registry.verify, lambda: registry.resolve("qa"), registry.gc,
                lambda: registry.watch_token("qa"), lambda: registry.promote(1, "qa", **WORDS)):  # fmt: skip
        with pytest.raises(NotFound, match="no registry"):
            ask()
    assert not registry.path.exists()
    registry.publish(b"pack", **WORDS)
    with pytest.raises(NotFound, match="holds no release"):
        registry.resolve("production")
    with pytest.raises(NotFound, match=r"no release 7 \(releases: 1 … 1\)"):
        registry.promote(7, "qa", **WORDS)
    with pytest.raises(NotFound, match="holds no release"):
        registry.rollback(**WORDS)
    with pytest.raises(UsageError, match="s3://"):
        Registry("s3://bucket/registry")


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    registry = registry_of(tmp_path)
    climb(registry, 1)
    files = [path for name in ("releases", "stages", "packs") for path in (registry.path / name).iterdir()]
    assert len(files) == 4 + 3 + 2
    for path in files:
        raw = path.read_bytes()
        path.chmod(0o644)
        for position in range(0, len(raw), 7 if len(raw) > 100 else 1):
            path.write_bytes(raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :])
            assert Registry(registry.path).verify().findings, f"{path.name} at {position}"
        path.write_bytes(raw)
    assert Registry(registry.path).verify().findings == []


def test_a_broken_chain_serves_nothing(tmp_path: Path) -> None:
    registry = registry_of(tmp_path)
    climb(registry, 1)
    entry = registry.path / "releases" / "2.json"
    raw = entry.read_bytes()
    entry.write_bytes(raw.replace(b"a reason", b"a raison"))
    with pytest.raises(Refused, match=r"3\.json: expected previous"):
        Registry(registry.path).resolve("production")
    entry.unlink()
    with pytest.raises(Refused, match="where the chain ends"):
        Registry(registry.path).resolve("production")
    assert "entry 4 is there, but the chain holds only up to 1" in Registry(registry.path).verify().findings[0]
    entry.write_bytes(raw)
    pack = registry.resolve("production").pack_path
    pack.chmod(0o644)
    pack.write_bytes(b"other")
    with pytest.raises(Refused, match="other bytes"):
        registry.resolve("production")
    pack.unlink()
    with pytest.raises(Refused, match="no file"):
        registry.resolve("production")


def test_what_came_before_a_damaged_entry_counts_once_that_entry_is_gone(tmp_path: Path) -> None:
    path = registry_of(tmp_path, releases=3).path
    reader, last = Registry(path), path / "releases" / "3.json"
    last.write_bytes(b"no entry")
    with pytest.raises(Refused):
        reader.stages()
    last.unlink()
    assert reader.stages()["candidate"].release == 2


def test_a_pointer_somebody_wrote_serves_nothing_until_it_is_repaired(tmp_path: Path) -> None:
    registry = registry_of(tmp_path)
    climb(registry, 1)
    path = registry.path / "stages" / "production"
    right = path.read_bytes()
    for forged in (b"", b"{}", b"[]", b'{"entry":true}', b'{"entry":0}', right.replace(b"4", b"3", 1),
                   (registry.path / "stages" / "qa").read_bytes(), b'{"entry":1e999}', b'{"entry":NaN}', b"[" * 200_000,
                   b'{"entry":"4"}', b'{"entry":4.0}', b'{"entry":' + b"9" * 5_000 + b"}", b'{"entry":[4]}',
                   b'{"entry":-' + b"9" * 3_000 + b"}", right + b" " * 5_000, b"\xff\xfe{"):  # fmt: skip
        path.write_bytes(forged)
        assert len(registry.verify().findings) == 1
        with pytest.raises(Refused):
            registry.resolve("production")
        with pytest.raises(Refused):
            registry.publish(b"next", **WORDS)
        registry.repair()
        assert registry.resolve("production").number == 1
    path.unlink()
    assert registry.resolve("production").number == 1  # the chain is the truth


def test_a_registry_put_back_in_time_is_refused(tmp_path: Path) -> None:
    registry = registry_of(tmp_path)
    climb(registry, 1)
    seen = registry.resolve("production").moved_by.number
    climb(registry, 2)
    newer = registry.resolve("production", not_before=seen).moved_by.number
    registry.rollback(**WORDS)
    assert registry.resolve("production", not_before=newer).number == 1  # an entry says so
    with pytest.raises(Refused, match="entry 99 was seen before"):
        registry.resolve("production", not_before=99)


def test_orphans_are_collected(tmp_path: Path) -> None:
    registry = registry_of(tmp_path)
    (registry.path / "tmp" / "3.json.0123.tmp").write_bytes(b"half")
    (registry.path / "packs" / ("0" * 64)).write_bytes(b"no release")
    assert registry.orphans(grace_s=3600.0) == []  # a writer may be at work
    hour_ago = time.time() - 3700
    os.utime(registry.path / "packs" / ("0" * 64), (hour_ago, hour_ago))
    assert [path.name for path in registry.orphans(grace_s=3600.0)] == ["0" * 64]
    assert registry.gc(grace_s=3600.0) == ["0" * 64]
    (registry.path / "packs" / ("0" * 64)).write_bytes(b"no release")
    assert sorted(registry.gc()) == ["0" * 64, "3.json.0123.tmp"]
    assert registry.gc() == []
    assert registry.verify().findings == []
