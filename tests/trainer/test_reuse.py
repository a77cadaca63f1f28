"""What a run takes over from earlier ones, asset by asset: data that did not change is not trained again."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from trainer.pumps import BUDGET, HOUR, SENSORS, START, fleet, write_history
from wheeltapper.config import fleet_toml
from wheeltapper.spec import AlarmSpec, SplitSpec, Target
from wheeltapper_command.progress import Progress
from wheeltapper_trainer import plan as planning
from wheeltapper_trainer.cluster import Cluster, Limits
from wheeltapper_trainer.history import History
from wheeltapper_trainer.history_writer import HistoryWriter
from wheeltapper_trainer.records import Asset
from wheeltapper_trainer.training import Order, Trained, plan, train_on

ASSETS = 8
LATER = ("pump-2", "pump-5")  # they bring another day


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(cpus=2) as found:
        yield found


@pytest.fixture(scope="module")
def first(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trained]:
    """A finished run: its folder, with `history` and `run`. Its split is fixed, as it must be where data is added."""
    folder = tmp_path_factory.mktemp("first")
    write_history(folder / "history", assets=ASSETS)
    targets = (
        Target("rul", "rul", cap=120.0),
        Target("anomaly", "anomaly", sensors=("vibration", "temperature")),
    )
    alarm = AlarmSpec(budget_per_asset_week=BUDGET, hold=2, lead_us=4 * HOUR)
    spec = dataclasses.replace(
        fleet(targets=targets, alarm=alarm), split=SplitSpec(test_from_us=START + 65 * 24 * HOUR)
    )
    (folder / "fleet.toml").write_text(fleet_toml(spec))
    return folder, run(cluster, folder, folder / "history", folder / "run")


def run(cluster: Cluster, folder: Path, history: Path, run_dir: Path) -> Trained:
    order = Order(
        fleet=folder / "fleet.toml",
        history=str(history),
        registry=run_dir.with_name(f"{run_dir.name}-registry"),
        run_dir=run_dir,
        report=run_dir / "report.html",
        cpus=2,
        who="a test",
        why="to see",
        resume=True,
        limits=Limits(task_seconds_max=100),
    )
    return train_on(cluster, plan(order), order, Progress(quiet=True))


def extended(history: Path, path: Path, more: int = 0) -> Path:
    """The history with another day of `LATER`, and `more` new pumps."""
    source = History.open(history)
    with HistoryWriter(path, {"pump": SENSORS}) as writer:
        for found in source.read(source.asset_ids(), SENSORS):
            times, values = found.times, found.values
            if found.asset_id in LATER:
                times = np.concatenate([times, times[-1] + HOUR * np.arange(1, 25)])
                values = np.concatenate([values, values[:24]])
            writer.add(Asset(found.asset_id, "pump", {}), times, values)
        events = source.events()
        rows = zip(events.asset_ids.tolist(), events.times.tolist(), events.kinds, events.codes, strict=True)
        writer.add_events(list(rows))
        for number in range(more):
            writer.add(Asset(f"pump-9{number}", "pump", {}), times, values)
    return path


@pytest.mark.parametrize("rows_min", [2_000, 1, 9_000])
def test_another_day_of_some_assets_trains_those_alone(
    cluster: Cluster, first: tuple[Path, Trained], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_min: int
) -> None:
    folder, before = first
    history = extended(folder / "history", tmp_path / "history")
    monkeypatch.setattr(planning, "_ROWS_MIN", rows_min)  # cut into chunks as before, or otherwise
    shutil.copytree(folder / "run", tmp_path / "run")
    after = run(cluster, folder, history, tmp_path / "run")
    assert after.result["assets_reused"] == ASSETS - len(LATER)
    assert after.result["readings"] == before.result["readings"] + 24 * len(LATER)
    assert after.result["pack"] != before.result["pack"]
    afresh = run(cluster, folder, history, tmp_path / "afresh")
    assert afresh.result["assets_reused"] == 0
    assert after.result["pack"] == afresh.result["pack"]
    for figure in ("asset_heads_tried", "asset_heads_kept", "heads_trained", "metrics"):
        assert after.result[figure] == afresh.result[figure], figure


def test_going_back_trains_nothing(cluster: Cluster, first: tuple[Path, Trained], tmp_path: Path) -> None:
    folder, before = first
    shutil.copytree(folder / "run", tmp_path / "run")
    run(cluster, folder, extended(folder / "history", tmp_path / "history"), tmp_path / "run")
    again = run(cluster, folder, folder / "history", tmp_path / "run")
    assert again.result["assets_reused"] == ASSETS
    assert again.result["pack"] == before.result["pack"]


def test_a_failure_of_a_new_kind_changes_what_every_asset_is_told(
    cluster: Cluster, first: tuple[Path, Trained], tmp_path: Path
) -> None:
    """A replacement ends a life unfailed only where such components fail: that is learnt from the whole class."""
    folder, _ = first
    history = tmp_path / "history"
    source = History.open(folder / "history")
    with HistoryWriter(history, {"pump": SENSORS}) as writer:
        for found in source.read(source.asset_ids(), SENSORS):
            writer.add(Asset(found.asset_id, "pump", {}), found.times, found.values)
        events = source.events()
        rows = zip(events.asset_ids.tolist(), events.times.tolist(), events.kinds, events.codes, strict=True)
        writer.add_events([*rows, ("pump-1", START + 1_000 * HOUR, "failure", "seal")])
    shutil.copytree(folder / "run", tmp_path / "run")
    assert run(cluster, folder, history, tmp_path / "run").result["assets_reused"] == 0
