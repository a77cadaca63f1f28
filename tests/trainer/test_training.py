"""A whole run on Ray: the same bytes whatever happens on the way, and bad assets cost nobody but themselves."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from trainer.pumps import HOUR, fleet, write_history
from wheeltapper.config import fleet_toml, parse_fleet
from wheeltapper.errors import CommandError, ConfigError, Refused
from wheeltapper.outputs import Why
from wheeltapper.pack import open_pack
from wheeltapper.registry import Registry
from wheeltapper.spec import AlarmSpec, Costs, FleetSpec, Gate, ModelSpec, Target, digest
from wheeltapper_command.progress import Progress
from wheeltapper_trainer import plan as planning
from wheeltapper_trainer import stages
from wheeltapper_trainer.chunk import sample_chunk, train_chunk
from wheeltapper_trainer.cluster import Cluster, Limits
from wheeltapper_trainer.history import read_table, write_table
from wheeltapper_trainer.job import Chunk, ChunkDone, SampleDone, TrainJob
from wheeltapper_trainer.reexamine import evaluate_pack
from wheeltapper_trainer.training import Order, Trained, plan, train_on

QUIET = Progress(quiet=True)


def pump_fleet(**changes: object) -> FleetSpec:
    """`fleet`, in the words of fleet.toml: its rul looks at failures of any code."""
    targets = (
        Target("rul", "rul", cap=120.0),
        Target("failure", "failure:bearing", "bearing", horizon_us=48 * HOUR),
        Target("anomaly", "anomaly", sensors=("vibration", "temperature")),
    )
    return fleet(**{"targets": targets, **changes})


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(cpus=2) as found:
        yield found


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pumps") / "history"
    write_history(folder, assets=6)
    (folder / "fleet.toml").write_text(fleet_toml(pump_fleet()))
    return folder


def order_of(history: Path, folder: Path, **changes: object) -> Order:
    order = Order(
        fleet=history / "fleet.toml",
        history=str(history),
        registry=folder / "registry",
        run_dir=folder / "run",
        report=folder / "report.html",
        cpus=2,
        who="a test",
        why="to see",
        limits=Limits(task_seconds_max=60, attempts_max=2),
    )
    return dataclasses.replace(order, **changes)


def run(cluster: Cluster, order: Order) -> Trained:
    return train_on(cluster, plan(order), order, QUIET)


@pytest.fixture(scope="module")
def whole(cluster: Cluster, history: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Order, Trained]:
    order = order_of(history, tmp_path_factory.mktemp("whole"))
    return order, run(cluster, order)


def test_a_history_becomes_a_candidate_with_its_report(whole: tuple[Order, Trained]) -> None:
    order, trained = whole
    release = Registry(order.registry).resolve("candidate")
    pack = open_pack(release.pack_path)
    result = trained.result
    assert release.number == result["release"] == 1
    assert (result["assets"], result["assets_failed"]) == (pack.asset_count, 0) == (6, 0)
    assert result["pack_bytes"] == release.pack_path.stat().st_size
    assert result["heads_kept"] == len(pack.forest.head_parent)
    assert result["heads_trained"] == result["class_heads"] + result["asset_heads_tried"] > 6
    assert result["seconds"].keys() == {"start", "read", "features", "fit", "pack", "wait"}
    assert result["metrics"]["failures_warned"] > 0
    assert "failures of the test part would have been announced" in order.report.read_text()
    assert not pack.lineage.keys() & {"time", "path"}
    kept = parse_fleet(release.entry.document["details"]["fleet_toml"])  # the release alone says what was trained
    assert (kept, digest(kept)) == (pump_fleet(), pack.lineage["config"])


def test_chunking_and_interruption_leave_no_trace_in_the_bytes(
    cluster: Cluster, whole: tuple[Order, Trained], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order, trained = whole
    # Killed: some files gone, one half written, one changed on disk.
    copy = order_of(Path(order.history), tmp_path, run_dir=tmp_path / "run", resume=True)
    shutil.copytree(order.run_dir, copy.run_dir)
    chunks = sorted((copy.run_dir / "chunks").iterdir())
    chunks[0].unlink()
    chunks[1].write_bytes(chunks[1].read_bytes()[:-1])
    resumed = run(cluster, copy)
    assert resumed.result["pack"] == trained.result["pack"]
    finished = len(list((order.run_dir / "done").rglob("*.json")))
    assert resumed.result["work_reused"] == finished - 2
    # Cut otherwise: each asset by itself.
    monkeypatch.setattr(planning, "_ROWS_MIN", 1)
    assert len(plan(order).groups) == 6
    apart = run(cluster, order_of(Path(order.history), tmp_path, run_dir=tmp_path / "apart"))
    assert apart.result["work_reused"] == 0
    assert apart.result["pack"] == trained.result["pack"]


def test_another_alarm_budget_trains_nothing_again(
    cluster: Cluster, whole: tuple[Order, Trained], tmp_path: Path
) -> None:
    order, trained = whole
    costs = Costs(missed_failure=500.0, false_alarm=10.0)
    spec = pump_fleet(alarm=AlarmSpec(budget_per_asset_week=0.2, hold=3))
    targets = [dataclasses.replace(t, costs=costs, lead_us=6 * HOUR) for t in spec.classes[0].targets]
    spec = dataclasses.replace(spec, classes=(dataclasses.replace(spec.classes[0], targets=tuple(targets)),))
    spec = dataclasses.replace(
        spec, gates=(Gate("rul", "rmse_capped", at_most=1e-3), Gate("rul", "rmse_capped", at_most=1e6))
    )
    (tmp_path / "fleet.toml").write_text(fleet_toml(spec))
    shutil.copytree(order.run_dir, tmp_path / "run")
    changed = run(cluster, order_of(Path(order.history), tmp_path, fleet=tmp_path / "fleet.toml", resume=True))
    assert changed.result["work_reused"] == len(list((order.run_dir / "done").rglob("*.json")))
    assert changed.result["pack"] != trained.result["pack"]
    assert [gate["passed"] for gate in changed.result["gates"]] == [False, True]
    outputs = open_pack(Registry(tmp_path / "registry").resolve("candidate").pack_path).classes[0].outputs
    assert all(output.metrics["cost_per_asset_month"] > 0 for output in outputs)


def fragile() -> Callable[[TrainJob, Chunk], ChunkDone]:
    """`train_chunk` where two assets cannot be trained: one takes the worker down, one raises. (A function made here
    goes to the workers whole; they could not import this module.)"""

    def train(job: TrainJob, chunk: Chunk) -> ChunkDone:
        if "pump-1" in chunk.asset_ids:
            os.kill(os.getpid(), signal.SIGKILL)
        good = tuple(asset_id for asset_id in chunk.asset_ids if asset_id != "pump-3")
        done = train_chunk(job, dataclasses.replace(chunk, asset_ids=good))
        failed = tuple((asset_id, "ValueError: no good") for asset_id in chunk.asset_ids if asset_id == "pump-3")
        return dataclasses.replace(done, failed=failed)

    return train


def test_bad_assets_are_set_aside_and_answered_by_their_class(
    cluster: Cluster, whole: tuple[Order, Trained], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = tmp_path / "history"
    shutil.copytree(whole[0].history, history)
    monkeypatch.setattr(stages, "train_chunk", fragile())
    monkeypatch.setattr(planning, "_ROWS_MIN", 5_000)
    order = order_of(history, tmp_path)
    trained = run(cluster, order)
    assert trained.quarantined.keys() == {"pump-1", "pump-3"}
    assert "died" in trained.quarantined["pump-1"]
    assert trained.quarantined["pump-3"] == "ValueError: no good"
    assert trained.result["assets_failed"] == 2
    pack = open_pack(Registry(order.registry).resolve("candidate").pack_path)
    good = open_pack(Registry(whole[0].registry).resolve("candidate").pack_path)
    for asset in range(6):
        name = pack.asset_id(asset)
        if name in trained.quarantined:
            assert set(pack.asset_reasons[asset].tolist()) == {Why.QUARANTINED}
            assert pack.asset_heads[asset].tolist() == pack.class_heads[0].tolist()
        else:
            assert pack.asset_reasons[asset].tolist() == good.asset_reasons[asset].tolist()
    assert "pump-1" in order.report.read_text()
    # Mended: what failed is tried again, and nothing of this run shows in the bytes.
    monkeypatch.setattr(stages, "train_chunk", train_chunk)
    mended = run(cluster, dataclasses.replace(order, resume=True))
    assert mended.result["pack"] == whole[1].result["pack"]


def test_an_asset_that_cannot_be_sampled_is_not_trained(
    cluster: Cluster, whole: tuple[Order, Trained], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sample(job: TrainJob, chunk: Chunk) -> SampleDone:
        good = tuple(asset_id for asset_id in chunk.asset_ids if asset_id != "pump-4")
        done = sample_chunk(job, dataclasses.replace(chunk, asset_ids=good))
        return dataclasses.replace(done, failed=(("pump-4", "ValueError: dust"),) if good != chunk.asset_ids else ())

    monkeypatch.setattr(stages, "sample_chunk", sample)
    order = order_of(Path(whole[0].history), tmp_path)
    trained = run(cluster, order)
    assert trained.quarantined == {"pump-4": "ValueError: dust"}
    pack = open_pack(Registry(order.registry).resolve("candidate").pack_path)
    assert set(pack.asset_reasons[pack.asset_index("pump-4")].tolist()) == {Why.QUARANTINED}


def test_where_every_asset_fails_nothing_is_published(
    cluster: Cluster, history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(job: TrainJob, chunk: Chunk) -> ChunkDone:
        raise ValueError("nothing works here")

    monkeypatch.setattr(stages, "train_chunk", broken)
    with pytest.raises(CommandError, match=r"every asset of class 'pump' failed.*nothing works here"):
        run(cluster, order_of(history, tmp_path))
    assert not (tmp_path / "registry").exists()


def test_an_unreadable_asset_costs_only_itself(cluster: Cluster, tmp_path: Path) -> None:
    history = tmp_path / "history"
    write_history(history, assets=5)
    (history / "fleet.toml").write_text(fleet_toml(pump_fleet()))
    [file] = (history / "readings").iterdir()
    table = read_table(file)
    rows = np.flatnonzero(table["asset_id"] == "pump-2")
    times = table["time"].copy()
    times[rows[[10, 11]]] = times[rows[[11, 10]]]
    write_table(file, {**table, "time": times})
    trained = run(cluster, order_of(history, tmp_path))
    assert trained.quarantined.keys() == {"pump-2"}
    assert "the times of asset 'pump-2' fall" in trained.quarantined["pump-2"]


def test_a_file_without_its_footer_costs_its_assets_alone(cluster: Cluster, tmp_path: Path) -> None:
    history = tmp_path / "history"
    write_history(history, assets=6, file_rows=4_300)  # two pumps a file
    (history / "fleet.toml").write_text(fleet_toml(pump_fleet()))
    files = sorted((history / "readings").iterdir())
    assert len(files) == 3
    files[1].write_bytes(files[1].read_bytes()[:-100])
    trained = run(cluster, order_of(history, tmp_path))
    assert trained.quarantined.keys() == {"pump-2", "pump-3"}
    assert f"{files[1].name} cannot be read as Parquet" in trained.quarantined["pump-2"]
    assert (trained.result["assets"], trained.result["assets_failed"]) == (6, 2)
    for file in files:
        file.write_bytes(b"PAR1")
    with pytest.raises(CommandError, match=r"class 'pump' has no reading.*cannot be read as Parquet"):
        run(cluster, order_of(history, tmp_path))


def test_a_device_that_is_not_there_is_refused_before_any_work(history: Path, tmp_path: Path) -> None:
    fleet_file = tmp_path / "fleet.toml"
    fleet_file.write_text(fleet_toml(pump_fleet(model=ModelSpec(rounds=10, device="cuda"))))
    with pytest.raises(Refused, match=r'model.device = "cuda": expected .* found'):
        plan(order_of(history, tmp_path, fleet=fleet_file))
    assert not (tmp_path / "run").exists()


def test_the_plan_says_what_a_history_lacks(history: Path, tmp_path: Path) -> None:
    spec = pump_fleet()
    renamed = dataclasses.replace(spec.classes[0], name="fan")
    for wrong, said in (
        (dataclasses.replace(spec, classes=(renamed,)), r"class 'fan' has no asset in .*its classes are \['pump'\]"),
        (pump_fleet(statics=("age",)), r"class 'pump' needs attribute 'age'"),
    ):
        (tmp_path / "fleet.toml").write_text(fleet_toml(wrong))
        with pytest.raises(ConfigError, match=said):
            plan(order_of(history, tmp_path, fleet=tmp_path / "fleet.toml"))


def test_a_release_examined_again_is_as_good_as_it_was(whole: tuple[Order, Trained]) -> None:
    order, trained = whole
    release = Registry(order.registry).resolve("candidate")
    document = evaluate_pack(open_pack(release.pack_path), release.number, order.history, 1, QUIET)
    assert document["totals"] == trained.result["metrics"]
