"""The words of `wheeltapper release` as typed: exit codes, one JSON object, tables for people."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from packs import small_content
from typed import Typed
from wheeltapper.pack import write_pack
from wheeltapper.registry import Registry
from wheeltapper.release_diff import difference, difference_text
from wheeltapper.verbs import release
from wheeltapper_command import main as command

GOOD = {"output": "rul", "metric": "rmse", "found": 3.25, "at_most": 5.0, "passed": True}
BAD = {"output": "failure:seal", "metric": "pr_auc", "found": 0.125, "at_least": 0.5, "passed": False}


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """Release 1 with passed gates, release 2 with a failed one."""
    path = tmp_path / "registry"
    writer = Registry(path)
    writer.publish(write_pack(small_content(1)), who="train", why="nightly", gates=[GOOD], details={"assets": 3})
    writer.publish(write_pack(replace(small_content(2), seed=99)), who="train", why="retuned", gates=[GOOD, BAD])
    return path


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setattr(command, "load_verbs", lambda: [release])  # the core alone, whatever else is installed

    def run(*words: object) -> Typed:
        code = command.main(["release", *map(str, words)])
        return Typed(code, *capsys.readouterr())

    return run


def test_a_release_goes_to_production_and_back(typed: Any, registry: Path) -> None:
    at = ("--registry", registry)
    assert typed("promote", 1, "--to", "qa", "--why", "a look", "--by", "eve", *at).code == 0
    done = typed("promote", "qa", "--to", "production", "--why", "it is fine", "--by", "eve", *at)
    assert done.out == "production: nothing → release 1 (entry 4, by eve)\n"
    assert "already" in typed("promote", 1, "--to", "production", "--why", "again", *at).out
    typed("promote", 2, "--to", "qa", "--why", "a look", *at)
    refused = typed("promote", 2, "--to", "production", "--why", "hope", *at)
    assert refused.code == 5
    assert "failed 1 gate" in refused.err
    assert "--override" in refused.err
    forced = typed("promote", 2, "--to", "production", "--why", "hope", "--override", "sensor off", "-o", "json", *at)
    assert forced.code == 0
    assert {k: forced.json[k] for k in ("release", "entry", "stage", "from", "to", "override")} == {
        "release": 2, "entry": 6, "stage": "production", "from": 1, "to": 2, "override": "sensor off",
    }  # fmt: skip
    stale = typed("rollback", "--why", "alarms", "--expect", 1, *at)
    assert (stale.code, "expected production to hold release 1, found release 2" in stale.err) == (5, True)
    back = typed("rollback", "--why", "alarms", "-o", "json", *at)
    assert (back.json["from"], back.json["to"]) == (2, 1)
    assert back.json["who"]
    assert typed("rollback", "--why", "alarms", *at).code == 5
    assert typed("rollback", "--to", 2, "--why", "found it", *at).code == 0
    assert Registry(registry).resolve("production").number == 2


def test_list_and_show(typed: Any, registry: Path) -> None:
    at = ("--registry", registry)
    typed("promote", 1, "--to", "qa", "--why", "a look", "--by", "eve", *at)
    lines = typed("list", *at).out.splitlines()
    assert lines[0].split() == ["release", "stages", "published", "by", "gates", "pack", "why"]
    assert lines[2].split()[:2] == ["1", "qa"]
    assert lines[3].split()[:2] == ["2", "candidate"]
    assert "1 passed" in lines[2]
    assert "1 of 2 failed" in lines[3]
    listed = typed("list", "-o", "json", *at).json
    assert listed["stages"] == {"candidate": {"release": 2, "entry": 2}, "qa": {"release": 1, "entry": 3}}
    assert [r["stages"] for r in listed["releases"]] == [["qa"], ["candidate"]]
    assert [e["action"] for e in listed["entries"]] == ["publish", "publish", "promote"]
    shown = typed("show", "candidate", *at).out
    assert "failure:seal" in shown
    assert "≥ 0.5" in shown
    assert "failed" in shown
    one = typed("show", 1, "-o", "json", *at).json
    assert (one["release"], one["details"], len(one["entries"])) == (1, {"assets": 3}, 2)
    assert Path(one["pack_path"]).is_file()


def test_diff(typed: Any, registry: Path) -> None:
    at = ("--registry", registry)
    found = typed("diff", 1, "candidate", "-o", "json", *at).json
    assert (found["before"], found["after"], found["same_pack"]) == (1, 2, False)
    sizes = {row["what"]: (row["before"], row["after"]) for row in found["sizes"]}
    assert sizes["assets"] == (3, 3)
    assert sizes["bytes"][0] == Registry(registry).release(1).pack_path.stat().st_size
    assert sizes["bytes"] != sizes["bytes"][::-1]
    assert "asset heads" in typed("diff", 1, 2, *at).out
    assert "same pack" in typed("diff", 2, 2, *at).out


def description(**changes: Any) -> dict[str, Any]:
    output = {"name": "rul", "threshold": 24.0, "metrics": {"rmse": 9.5}, **changes.pop("output", {})}
    spec = {
        "windows": [6, 36],
        "sensors": [{"name": "a", "unit": "V"}, {"name": "b", "unit": ""}],
        **changes.pop("spec", {}),
    }
    one = {
        "name": changes.pop("name", "pump"),
        "outputs": [output],
        "spec": spec,
        "levels": [{"level": "class", "heads": 2}],
    }
    return {"sha256": json.dumps([output, spec, one["name"]]), "assets": 4, "heads": 2, "trees": 9, "bytes": 10,
            "bytes_per_head": 5.0, "lineage": {"seed": 7}, "classes": [one], **changes}  # fmt: skip


def test_a_difference_says_what_changed_and_only_that() -> None:
    before = description()
    sensors = [{"name": "new", "unit": ""}, {"name": "a", "unit": "V"}, {"name": "b", "unit": "W"}]
    better = {"threshold": 30.0, "metrics": {"rmse": 8.0, "mae": 4.0}}
    after = description(output=better, spec={"sensors": sensors}, lineage={"seed": 8})
    found = difference(before, after)
    assert found["outputs"] == [
        {"class": "pump", "output": "rul", "what": "threshold", "before": 24.0, "after": 30.0},
        {"class": "pump", "output": "rul", "what": "metrics.rmse", "before": 9.5, "after": 8.0},
        {"class": "pump", "output": "rul", "what": "metrics.mae", "before": None, "after": 4.0},
    ]
    assert [(c["key"], c["before"], c["after"]) for c in found["settings"]] == [
        ("sensors[new].name", None, "new"), ("sensors[new].unit", None, ""), ("sensors[b].unit", "", "W"),
    ]  # fmt: skip
    assert found["lineage"] == [{"key": "seed", "before": 7, "after": 8}]
    text = difference_text(found, "release 1", "release 2")
    for words in ("pump/rul", "metrics.rmse", "9.5", "pump.sensors[b].unit", "lineage.seed"):
        assert words in text
    assert difference(before, before)["same_pack"]
    renamed = difference(before, description(name="fan"))
    assert (renamed["classes_added"], renamed["classes_removed"]) == (["fan"], ["pump"])
    assert "classes added: fan" in difference_text(renamed, "a", "b")
    curve = description(output={"metrics": {"rmse": 9.5, "interval": [[240.0, 1.5, 2.5], [200.0, 9.0, 9.0]]}})
    assert "2 points" in difference_text(difference(before, curve), "a", "b"), "a curve does not widen the table"


def test_prune_says_what_would_go_and_takes_only_what_is_old(typed: Any, registry: Path) -> None:
    at = ("--registry", registry)
    (registry / "packs" / ("0" * 64)).write_bytes(b"no release")
    assert typed("prune", "-o", "json", *at).json == {"orphans": [], "bytes": 0, "removed": True}
    would = typed("prune", "--grace-hours", 0, "--dry-run", "-o", "json", *at).json
    assert would == {"orphans": ["0" * 64], "bytes": 10, "removed": False}
    assert typed("prune", "--grace-hours", 0, *at).out == f"{'0' * 64}\n1 orphans, 10 bytes removed\n"
    assert typed("verify", *at).code == 0
    with pytest.raises(SystemExit, match="2"):
        typed("prune", "--grace-hours", -1, *at)


def test_verify_finds_damage_and_repairs_pointers(typed: Any, registry: Path) -> None:
    at = ("--registry", registry)
    assert typed("verify", *at).out == "the registry holds: 2 entries (0 signed), 2 packs\n"
    (registry / "stages" / "candidate").write_text("mine")
    damaged = typed("verify", "-o", "json", *at)
    assert (damaged.code, damaged.json["holds"], len(damaged.json["findings"])) == (5, False, 1)
    assert typed("verify", "--repair", *at).code == 0
    (registry / "releases" / "1.json").write_text("{}")
    broken = typed("verify", *at)
    assert broken.code == 5
    assert "1.json" in broken.out


def test_keys_sign_and_verify(typed: Any, registry: Path, tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="the extra wheeltapper[sign] is not installed")
    made = typed("keygen", tmp_path / "keys", "-o", "json").json
    at = ("--registry", registry)
    moved = typed("promote", 1, "--to", "qa", "--why", "a look", "--key", made["private"], "-o", "json", *at)
    assert moved.json["key"] == made["key"]
    checked = typed("verify", "--trusted-key", made["public"], "-o", "json", *at)
    assert (checked.code, checked.json["signed"], len(checked.json["findings"])) == (5, 1, 2)  # two were never signed
    assert typed("keygen", tmp_path / "keys").code == 5


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("show", "9"), 4), (("show", "prod"), 4), (("show", "qa"), 4), (("diff", "1", "9"), 4),
        (("promote", "9", "--to", "qa", "--why", "x"), 4), (("promote", "1", "--to", "prod", "--why", "x"), 4),
        (("promote", "1", "--to", "qa", "--why", " "), 2), (("promote", "1", "--to", "production", "--why", "x"), 5),
        (("promote", "1", "--to", "qa", "--why", "x", "--key", "nowhere.pem"), 4), (("rollback", "--why", "x"), 4),
        (("verify", "--trusted-key", "nowhere.pem"), 4),
    ],
)  # fmt: skip
def test_exit_codes(typed: Any, registry: Path, words: tuple[str, ...], code: int) -> None:
    found = typed(*words, "--registry", registry, "-o", "json")
    assert found.code == code
    assert found.json["exit_code"] == code
    assert found.json["error"]
    assert "Traceback" not in found.err


def test_no_registry_and_no_words(typed: Any, tmp_path: Path) -> None:
    assert typed("list", "--registry", tmp_path / "nowhere").code == 4
    for words in ((), ("promote",), ("list",), ("promote", "1", "--to", "qa", "--registry", "r")):
        with pytest.raises(SystemExit) as raised:
            typed(*words)
        assert raised.value.code == 2
