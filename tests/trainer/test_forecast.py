"""What a dry run says before anything runs: it grows with the work, shrinks with the cores, and touches nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from trainer.pumps import fleet, write_history
from wheeltapper.config import fleet_toml
from wheeltapper.spec import FleetSpec, ModelSpec, Target
from wheeltapper_command.main import main
from wheeltapper_trainer.forecast import forecast
from wheeltapper_trainer.job import ClassSplit, TrainJob
from wheeltapper_trainer.plan import Group


def job_of(spec: FleetSpec, assets: int, by: str = "time") -> TrainJob:
    return TrainJob("history", "run", spec, (ClassSplit("pump", by),), (("pump", assets),), 7)


def groups(count: int) -> list[Group]:
    return [Group("pump", tuple(f"pump-{number}-{n}" for n in range(10)), 200_000) for number in range(count)]


def test_the_forecast_grows_with_the_work_and_shrinks_with_the_cores() -> None:
    spec = fleet(model=ModelSpec(rounds=40, asset_rounds=20, max_depth=3))
    one, two = (forecast(job_of(spec, 10 * n), groups(n), 2) for n in (10, 20))
    for phase in ("read", "features", "asset heads"):
        assert two.core_seconds[phase] == pytest.approx(2 * one.core_seconds[phase], rel=0.05), phase
    assert two.core_seconds["class heads"] == one.core_seconds["class heads"]  # their rows are bounded
    assert two.worker_bytes == one.worker_bytes  # an asset at a time
    four = forecast(job_of(spec, 100), groups(10), 4)
    assert one.wall_seconds / 2.1 < four.wall_seconds < one.wall_seconds
    deeper = dataclasses.replace(spec.classes[0].model, max_depth=6)
    deep = forecast(job_of(fleet(model=deeper), 100), groups(10), 2)
    assert deep.core_seconds["class heads"] == pytest.approx(2 * one.core_seconds["class heads"], rel=0.05)
    by_asset = forecast(job_of(spec, 100, "asset"), groups(10), 2)
    assert by_asset.core_seconds["asset heads"] < one.core_seconds["asset heads"]


def test_a_dry_run_plans_and_touches_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_history(tmp_path / "history", assets=4)
    spec = fleet(targets=(Target("rul", "rul", cap=120.0),))
    (tmp_path / "fleet.toml").write_text(fleet_toml(spec))
    words = ["train", str(tmp_path / "fleet.toml"), "--history", str(tmp_path / "history"), "--dry-run"]
    words += ["--registry", str(tmp_path / "registry"), "--cpus", "2"]
    assert main([*words, "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["classes"] == [{"name": "pump", "assets": 4, "readings": 4 * 90 * 24, "chunks": 4}]
    assert found["forecast"].keys() == {"core_seconds", "wall_seconds", "worker_bytes", "cores"}
    assert found["forecast"]["wall_seconds"] > 0
    assert main(words) == 0
    assert "on 2 cores" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"history", "fleet.toml"}


def test_a_dry_run_names_the_assets_whose_file_is_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_history(tmp_path / "history", assets=6, file_rows=4_300)  # two pumps a file
    (tmp_path / "fleet.toml").write_text(fleet_toml(fleet(targets=(Target("rul", "rul", cap=120.0),))))
    words = ["train", str(tmp_path / "fleet.toml"), "--history", str(tmp_path / "history"), "--dry-run"]
    words += ["--registry", str(tmp_path / "registry"), "--cpus", "2"]
    assert main([*words, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["lost"] == {}
    broken = sorted((tmp_path / "history" / "readings").iterdir())[1]
    broken.write_bytes(broken.read_bytes()[:-100])
    assert main([*words, "-o", "json"]) == 0
    lost = json.loads(capsys.readouterr().out)["lost"]
    assert lost.keys() == {"pump-2", "pump-3"}
    assert f"{broken.name} cannot be read as Parquet" in lost["pump-2"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "asset that would be set aside" in said
    assert "pump-3" in said
