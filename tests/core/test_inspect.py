"""`wheeltapper inspect` on a real pack file."""

from __future__ import annotations

import argparse
import hashlib
import json

import pytest
from packs import small_content, started_content
from wheeltapper.errors import NotFound, PackError
from wheeltapper.inspect import inspect
from wheeltapper.pack import write_pack
from wheeltapper_command.progress import Progress
from wheeltapper_command.verb import Outcome


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "fleet.pack"
    path.write_bytes(write_pack(small_content()))
    return path


def run(*words: object) -> Outcome:
    parser = argparse.ArgumentParser()
    inspect.arguments(parser)
    return inspect.run(parser.parse_args([str(word) for word in words]), Progress(quiet=True))


def test_a_pack_in_numbers(path):
    outcome = run(path)
    result = json.loads(json.dumps(outcome.result, allow_nan=False))
    assert (result["assets"], result["heads"], result["bytes"]) == (3, 6, path.stat().st_size)
    assert result["bytes_per_head"] == pytest.approx(path.stat().st_size / 6, abs=0.1)
    assert result["file_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert result["sha256"] == path.read_bytes()[-32:].hex()
    assert result["lineage"]["versions"] == {"numpy": "2"}
    pump, fan = result["classes"]
    assert [(level["level"], level["heads"]) for level in pump["levels"]] == [("fleet", 0), ("class", 2), ("asset", 1)]
    assert [o["answered_by_own_head"] for o in pump["outputs"]] == [1, 0]
    assert fan["outputs"][0]["answered_by_own_head"] == 1
    assert fan["outputs"][0]["heads_per_asset"] == 2
    assert sum(level["trees"] for one in result["classes"] for level in one["levels"]) == result["trees"]
    assert sum(level["nodes"] for one in result["classes"] for level in one["levels"]) == result["nodes"]
    assert pump["reasons"] == {"OWN_HEAD_KEPT": 1, "NO_EVENTS": 1, "DID_NOT_BEAT_CLASS": 2}
    for words in (
        f"packs/{result['file_sha256']}",
        "3 assets, 6 heads",
        "failure:seal",
        "0.400",
        "rmse 12.5",
        "versions.numpy",
    ):
        assert words in outcome.text


def test_one_asset_says_who_answers_and_why(path):
    outcome = run(path, "--asset", "fan-é")
    speed, current = outcome.result["answers"]
    assert (speed["sensor"], speed["level"], speed["trees_own"], speed["trees_all"]) == ("speed", "class", 1, 1)
    assert (current["sensor"], current["level"], current["trees_own"], current["trees_all"]) == (
        "current",
        "asset",
        2,
        3,
    )
    assert current["reason"] == "OWN_HEAD_KEPT"
    assert "did not beat its class" in outcome.text
    assert "last(speed)" in outcome.text
    failure, _ = run(path, "--asset", "pump-2").result["answers"]
    assert (failure["head"], failure["trees_own"], failure["trees_all"]) == (4, 6, 11)
    assert run(path, "--asset", "pump-2").result["statics"] == {"age": 3.5}
    assert run(path, "--asset", "pump-1").result["statics"] == {"age": None}


def test_an_anomaly_that_watches_each_sensor_twice_says_who_answers_for_each(path):
    path.write_bytes(write_pack(started_content()))
    outcome = run(path, "--asset", "fan-é")
    watched = [(answer["statistic"], answer["sensor"]) for answer in outcome.result["answers"]]
    assert watched == [("last", "speed"), ("last", "current"), ("shift", "speed"), ("shift", "current")]
    assert "shift(current)" in outcome.text


def test_what_is_not_there(path, tmp_path):
    with pytest.raises(NotFound, match="one of the pack's 3 assets"):
        run(path, "--asset", "pump-9")
    with pytest.raises(NotFound):
        run(tmp_path / "no.pack")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(PackError, match=r"fleet\.pack: pack has the wrong length"):
        run(path)
