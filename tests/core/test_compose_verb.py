"""`wheeltapper release compose` as typed: what is published, what is carried over, and what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from killing import killed_at
from packs import small_content
from typed import Typed
from wheeltapper.composed_release import compose
from wheeltapper.errors import Refused
from wheeltapper.inspect import inspect
from wheeltapper.pack import PackContent, open_pack, write_pack
from wheeltapper.registry import Registry
from wheeltapper.signing import Signer, TrustedKeys, generate_keys
from wheeltapper.verbs import release
from wheeltapper_command import main as command

WORDS: dict[str, Any] = {"who": "train", "why": "nightly"}


def gate(output: str, passed: bool) -> dict[str, Any]:
    return {"output": output, "metric": "rmse", "found": 3.25 if passed else 7.5, "at_most": 5.0, "passed": passed}


def contents() -> tuple[PackContent, PackContent]:
    """Two trainings of one fleet: the second is another in every head, alarms of its pumps included."""
    first, second = small_content(1), small_content(2)
    alarm = replace(second.classes[0].outputs[0], threshold=0.55)
    pump = replace(second.classes[0], regimes=first.classes[0].regimes, outputs=(alarm, second.classes[0].outputs[1]))
    return first, replace(second, classes=(pump, second.classes[1]), lineage={"data": "later"})


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """Release 1 passed all gates; release 2 failed that of the pumps."""
    path = tmp_path / "registry"
    writer = Registry(path)
    first, second = contents()
    writer.publish(write_pack(first), gates=[gate("pump/rul", True), gate("fan/anomaly", True)], **WORDS)
    writer.publish(write_pack(second), gates=[gate("pump/rul", False), gate("fan/anomaly", True)], **WORDS)
    return path


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setattr(command, "load_verbs", lambda: [release, inspect])

    def run(*words: object) -> Typed:
        code = command.main([*map(str, words)])
        return Typed(code, *capsys.readouterr())

    return run


def test_all_but_one_class_goes_to_production_and_back(typed: Any, registry: Path) -> None:
    """The new release is good for all machines but pumps: they stay what they were."""
    at = ("--registry", registry, "--by", "eve")
    made = typed("release", "compose", 2, "--class", "pump=1", "--why", "pumps got worse", "-o", "json", *at).json
    assert (made["release"], made["published"]) == (3, True)
    assert made["composed"] == {"base": 2, "classes": {"pump": 1, "fan": 2}, "assets": {}}
    assert [(g["output"], g["release"], g["passed"]) for g in made["gates"]] == [
        ("pump/rul", 1, True), ("fan/anomaly", 2, True),
    ]  # fmt: skip
    held = Registry(registry).resolve("candidate")
    assert (held.number, held.sha256, held.entry.composed) == (3, made["pack"], made["composed"])
    for stage in ("qa", "production"):
        assert typed("release", "promote", 3, "--to", stage, "--why", "a look", *at).code == 0
    typed("release", "promote", 1, "--to", "production", "--override", "a test", "--why", "x", *at)
    back = typed("release", "rollback", "--why", "better", "-o", "json", *at).json
    assert (back["from"], back["to"]) == (1, 3)
    assert typed("release", "verify", "--registry", registry).code == 0


def test_what_failed_where_a_part_comes_from_stays_failed(typed: Any, registry: Path) -> None:
    at = ("--registry", registry, "--by", "eve")
    words = ("release", "compose", "1", "--asset", "pump-2=candidate", "--why", "its bearing was changed")
    said = typed(*words, *at)
    assert said.code == 0
    assert "candidate: release 2 → release 3" in said.out
    told = [line.split() for line in said.out.splitlines() if line.startswith("pump/failure:seal")]
    assert told == [["pump/failure:seal", "threshold", "0.55", "0.4", "pump-2"]]
    assert "1 of 3 failed" in said.out
    assert "failed in release 2: pump/rul rmse" in said.out
    typed("release", "promote", 3, "--to", "qa", "--why", "a look", *at)
    refused = typed("release", "promote", 3, "--to", "production", "--why", "hope", *at)
    assert (refused.code, "failed 1 gate" in refused.err) == (5, True)
    shown = typed("release", "show", 3, "--registry", registry).out
    assert "composed from release 1" in shown
    rows = [line.split() for line in shown.splitlines()]
    assert ["asset", "pump-2", "release", "2"] in rows
    assert ["pump/rul", "rmse", "7.5", "≤", "5", "failed", "2"] in rows
    again = typed("release", "compose", 3, "--asset", "pump-2=1", "--why", "back", "-o", "json", *at).json
    assert [g["passed"] for g in again["gates"]] == [True, True], "a part that is gone takes its gates along"
    assert again["composed"] == {"base": 3, "classes": {"pump": 1, "fan": 1}, "assets": {}}


def test_diff_and_inspect_say_what_came_from_where(typed: Any, registry: Path) -> None:
    at = ("--registry", registry)
    typed("release", "compose", 2, "--class", "fan=1", "--asset", "pump-1=1", "--why", "x", "--by", "eve", *at)
    found = typed("release", "diff", 1, 3, "-o", "json", *at).json["trained_in"]
    assert [(part["part"], part["before"], part["after"]) for part in found] == [
        ("class pump", 1, 2), ("asset pump-1", None, 1),
    ]  # fmt: skip
    text = typed("release", "diff", 1, 3, *at).out
    assert "as its class" in text
    assert "sources" not in text
    assert typed("release", "diff", 1, 2, "-o", "json", *at).json["trained_in"] == []
    path = Registry(registry).release(3).pack_path
    lineage = typed("inspect", path, "-o", "json").json["lineage"]
    sha256 = Registry(registry).release(1).sha256
    assert (lineage["composed"]["assets"], lineage["composed"]["classes"]["fan"]) == ({"pump-1": sha256}, sha256)
    asset = typed("inspect", path, "--asset", "pump-1")
    assert f"trained in pack {sha256}" in asset.out
    pumps = Registry(registry).release(2)
    assert typed("inspect", path, "--asset", "pump-2", "-o", "json").json["trained_in"] == pumps.sha256
    assert typed("inspect", pumps.pack_path, "--asset", "pump-2", "-o", "json").json["trained_in"] is None


@pytest.mark.parametrize("said", ["by hand", {"base": 1}, {"base": 1, "classes": [], "assets": {}}])
def test_details_of_that_name_that_another_publisher_wrote(typed: Any, registry: Path, said: Any) -> None:
    writer = Registry(registry)
    writer.publish(writer.release(1).pack_path, details={"composed": said}, gates=[gate("fan/anomaly", True)], **WORDS)
    assert typed("release", "show", 3, "--registry", registry).code == 0
    assert typed("release", "diff", 2, 3, "--registry", registry).code == 0
    made = typed("release", "compose", 3, "--class", "pump=2", "--why", "x", "--registry", registry, "-o", "json").json
    assert [(one["output"], one["release"]) for one in made["gates"]] == [("pump/rul", 2), ("fan/anomaly", 3)]


def test_a_dry_run_says_the_same_and_writes_nothing(typed: Any, registry: Path) -> None:
    words = ("release", "compose", "production", "--class", "fan=2", "--why", "x", "--registry", registry, "-o", "json")
    Registry(registry).promote(1, "production", override="a test", **WORDS)
    before = sorted(path.name for path in registry.rglob("*"))
    dry = typed(*words, "--dry-run").json
    assert sorted(path.name for path in registry.rglob("*")) == before
    done = typed(*words).json
    assert {**dry, "release": 4, "published": True} == done
    assert "nothing was published" in typed(*words[:-2], "--dry-run").out
    assert (registry / "packs" / done["pack"]).stat().st_size == dry["bytes"]
    assert typed(*words).json["pack"] == done["pack"], "the same parts, the same bytes"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("1",), 2, "expected a class or an asset to re-point, found none"),
        (("1", "--class", "pump"), 2, "expected NAME=RELEASE, found 'pump'"),
        (("1", "--asset", "=2"), 2, "expected NAME=RELEASE, found '=2'"),
        (("1", "--class", "fan=2", "--class", "fan=1"), 2, "expected 'fan' once"),
        (("9", "--class", "fan=2"), 4, "no release 9"),
        (("1", "--class", "fan=9"), 4, "no release 9"),
        (("qa", "--class", "fan=2"), 4, "holds no release"),
        (("1", "--class", "press=2"), 4, "class 'press': expected one of release 2 (pump, fan)"),
        (("1", "--asset", "a=b=2"), 4, "asset 'a=b': expected one of the 3 assets of release 2"),
        (("1", "--class", "fan=1"), 5, "expected a composition that changes release 1, found the same pack"),
    ],
)
def test_exit_codes(typed: Any, registry: Path, words: tuple[str, ...], code: int, message: str) -> None:
    found = typed("release", "compose", *words, "--why", "x", "--registry", registry, "-o", "json")
    assert (found.code, found.json["exit_code"]) == (code, code)
    assert message in found.json["error"]
    assert found.json["hint"]
    assert len(Registry(registry).history()) == 2


@pytest.mark.parametrize("put", ["cut short", "another"])
def test_a_source_that_is_not_what_was_published_is_refused(typed: Any, registry: Path, put: str) -> None:
    one, two = (Registry(registry).release(number).pack_path for number in (1, 2))
    two.chmod(0o644)
    two.write_bytes(two.read_bytes()[:-1] if put == "cut short" else one.read_bytes())
    found = typed("release", "compose", 1, "--class", "fan=2", "--why", "x", "--registry", registry)
    assert (found.code, "mend: " in found.err) == (5, True)
    assert len(Registry(registry).history()) == 2


def test_whoever_signs_vouches_for_every_part(typed: Any, registry: Path, tmp_path: Path) -> None:
    """Else an unsigned release would get past pinned keys inside a signed one."""
    pytest.importorskip("cryptography", reason="the extra wheeltapper[sign] is not installed")
    (trains, trains_public, _), (eve, eve_public, _) = (generate_keys(tmp_path / name) for name in ("ci", "eve"))
    words = ("release", "compose", "--class", "fan=2", "--why", "x", "--registry", registry)
    refused = typed(*words, 1, "--key", eve)
    assert (refused.code, "release entry 1: expected a signature" in refused.err) == (5, True)
    writer = Registry(registry, signer=Signer.from_file(trains))
    for number in (1, 2):
        writer.publish(writer.release(number).pack_path, **WORDS)
    signed = ("release", "compose", "3", "--class", "fan=4", "--why", "x", "--registry", registry, "--key", eve)
    assert "found key" in typed(*signed).err
    assert typed(*signed, "--trusted-key", trains_public).code == 0
    trusted = Registry(registry, trusted=TrustedKeys.from_files([eve_public]))
    assert trusted.resolve("candidate").number == 5
    assert typed("release", "compose", "5", "--asset", "pump-1=4", "--why", "x", "--registry", registry).code == 0
    with pytest.raises(Refused, match="release entry 6: expected a signature"):
        trusted.resolve("candidate")


def test_killed_at_every_step_it_is_old_or_new(registry: Path, tmp_path: Path) -> None:
    def work(path: Path) -> None:
        own = Registry(path)
        made = compose(own, own.release(2), {"fan": own.release(1)}, {})
        own.publish(made.data, gates=made.gates, details=made.details, **WORDS)

    states = []
    for step in range(1, 100):
        path = tmp_path / str(step)
        shutil.copytree(registry, path)
        if killed_at(step, torn=True, work=lambda path=path: work(path)) == 0:  # type: ignore[misc]
            break
        found = Registry(path).resolve("candidate")
        open_pack(found.pack_path)
        assert Registry(path).verify().findings == [], f"step {step}"
        assert bool(found.entry.composed) == (found.number == 3)
        states.append(found.number)
    assert set(states) == {2, 3}
    assert states == sorted(states)
    assert len(states) > 10
