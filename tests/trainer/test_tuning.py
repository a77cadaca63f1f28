"""A search is judged on folds of the training part, finds the same with the same seed, and goes on after a kill."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from trainer.pumps import HOUR, fleet, write_history
from wheeltapper.config import fleet_toml, load_fleet, parse_fleet
from wheeltapper.errors import CommandError, ConfigError, NotFound, Refused, UsageError
from wheeltapper.spec import FleetSpec, ModelSpec, SplitSpec, Target
from wheeltapper_command.progress import Progress
from wheeltapper_trainer import tuning_folds
from wheeltapper_trainer.chunk import load_samples, sample_chunk
from wheeltapper_trainer.cluster import Cluster, Limits
from wheeltapper_trainer.history import History
from wheeltapper_trainer.job import Chunk, TrainJob, slots_of
from wheeltapper_trainer.regimes import learn_regimes
from wheeltapper_trainer.report import write_trials
from wheeltapper_trainer.split import embargo_of, resolve_split
from wheeltapper_trainer.training import Order, plan, train_on
from wheeltapper_trainer.tuned_text import tuned_text
from wheeltapper_trainer.tuning import TuneOrder, tune_on
from wheeltapper_trainer.tuning_record import choose, load_trials, objective_of, tuning_of
from wheeltapper_trainer.tuning_search import SPACE, next_batch

QUIET = Progress(quiet=True)
NOW = {name: getattr(ModelSpec(), name) for name in SPACE}


def small_fleet(**changes: object) -> FleetSpec:
    targets = (
        Target("failure", "failure:bearing", "bearing", horizon_us=48 * HOUR),
        Target("anomaly", "anomaly", sensors=("vibration",)),
    )
    model = ModelSpec(rounds=20, asset_rounds=0, max_depth=2, eta=0.02)
    spec = fleet(**{"targets": targets, "model": model, **changes})
    return dataclasses.replace(spec, split=SplitSpec(test_share=0.25, folds=2))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(cpus=2) as found:
        yield found


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pumps") / "history"
    write_history(folder, assets=5)
    (folder / "fleet.toml").write_text("# what stands here stays\n" + fleet_toml(small_fleet()))
    return folder


def order_of(history: Path, out: Path, **changes: object) -> TuneOrder:
    limits = Limits(task_seconds_max=60, attempts_max=2)
    order = TuneOrder(history / "fleet.toml", str(history), out, trials=5, seed=None, cpus=2, limits=limits)
    return dataclasses.replace(order, **changes)


@pytest.fixture(scope="module")
def tuned(cluster: Cluster, history: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("tuned") / "out"
    return out, tune_on(cluster, order_of(history, out), QUIET)


def test_a_search_beats_a_poor_fleet_and_writes_it(tuned: tuple[Path, dict], history: Path) -> None:
    out, result = tuned
    (one,) = result["classes"]
    assert one["chosen"] > 0
    assert one["objective"] < 0.9
    assert one["gain"] > one["gain_error"]
    spec, before = load_fleet(out / "fleet.toml"), load_fleet(history / "fleet.toml")
    model = spec.classes[0].model
    assert {name: getattr(model, name) for name in SPACE} == one["parameters"] != one["before"]
    back = dataclasses.replace(spec.classes[0], model=before.classes[0].model)
    assert dataclasses.replace(spec, classes=(back,)) == before
    assert (out / "fleet.toml").read_text().startswith("# what stands here stays\n")
    record = load_trials(out / "trials.json")
    assert [trial["number"] for trial in record["classes"][0]["trials"]] == list(range(6))
    for trial in record["classes"][0]["trials"]:
        assert all(fold["failure:bearing"]["metric"] == "pr_auc" for fold in trial["folds"])
        assert trial["objective"] == pytest.approx(
            objective_of(trial["folds"], record["classes"][0]["trials"][0]["folds"])[0]
        )
    trials = record["classes"][0]["trials"]
    for figure in one["figures"]:  # in the unit of the figure itself, not only against trial 0
        for name, trial in (("before", trials[0]), ("now", trials[one["chosen"]])):
            assert figure[name] == pytest.approx(np.mean([fold[figure["slot"]]["value"] for fold in trial["folds"]]))
    assert {figure["slot"] for figure in one["figures"]} == set(record["classes"][0]["judged"])
    assert "Trial" in (out / "trials.html").read_text()
    assert str(out) not in (out / "trials.json").read_text()


def test_a_search_that_was_cut_short_ends_as_if_it_had_not_been(
    cluster: Cluster, tuned: tuple[Path, dict], history: Path, tmp_path: Path
) -> None:
    """Also on one core. A kill in the midst of a batch leaves the trials of those before it, here with some more."""
    out, _ = tuned
    record = load_trials(out / "trials.json")
    record["classes"][0]["trials"] = record["classes"][0]["trials"][:3]
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "trials.json").write_text(json.dumps(record))
    found = tune_on(cluster, order_of(history, tmp_path / "again", resume=True, cpus=1), QUIET)
    assert found["trials_reused"] == 3
    assert (tmp_path / "again" / "trials.json").read_bytes() == (out / "trials.json").read_bytes()
    with pytest.raises(UsageError, match="another search: seed"):
        tune_on(cluster, order_of(history, tmp_path / "again", resume=True, seed=99), QUIET)


def test_a_search_stops_at_its_time_and_goes_on_where_it_stopped(
    cluster: Cluster, tuned: tuple[Path, dict], history: Path, tmp_path: Path
) -> None:
    out, _ = tuned
    short = order_of(history, tmp_path / "short", minutes=1e-6)
    (one,) = tune_on(cluster, short, QUIET)["classes"]
    assert one["trials"] == 4  # the first batch, however short the time
    assert load_fleet(tmp_path / "short" / "fleet.toml").classes[0].name == one["name"]
    tune_on(cluster, dataclasses.replace(short, resume=True, minutes=0.0), QUIET)
    assert (tmp_path / "short" / "trials.json").read_bytes() == (out / "trials.json").read_bytes()


def test_training_records_the_trials_that_chose_its_parameters(
    cluster: Cluster, tuned: tuple[Path, dict], history: Path, tmp_path: Path
) -> None:
    from wheeltapper.pack import open_pack
    from wheeltapper.registry import Registry

    out, _ = tuned
    order = Order(
        fleet=out / "fleet.toml",
        history=str(history),
        registry=tmp_path / "registry",
        run_dir=tmp_path / "run",
        report=tmp_path / "report.html",
        cpus=2,
        who="a test",
        why="to see",
    )
    trained = train_on(cluster, plan(order), order, QUIET)
    release = Registry(order.registry).resolve("candidate")
    summary = open_pack(release.pack_path).lineage["tuning"]
    assert summary == trained.result["tuning"]
    assert summary["classes"]["pump"]["trials"] == 6
    (entry,) = [e for e in Registry(order.registry).history() if e.number == release.number]
    assert entry.document["details"]["tuning"] == load_trials(out / "trials.json")


def test_trials_that_chose_something_else_are_not_recorded(tuned: tuple[Path, dict], tmp_path: Path) -> None:
    out, _ = tuned
    other = small_fleet(model=ModelSpec(rounds=33))
    assert tuning_of(other, out / "trials.json", asked=False) is None
    with pytest.raises(Refused, match="chose other parameters for class 'pump'"):
        tuning_of(other, out / "trials.json", asked=True)
    assert tuning_of(other, tmp_path / "trials.json", asked=False) is None
    with pytest.raises(NotFound):
        tuning_of(other, tmp_path / "trials.json", asked=True)
    (tmp_path / "trials.json").write_text('{"format": 2}')
    assert tuning_of(other, tmp_path / "trials.json", asked=False) is None
    with pytest.raises(ConfigError):
        tuning_of(other, tmp_path / "trials.json", asked=True)


def sampled(history: Path, folder: Path, spec: FleetSpec) -> tuple[TrainJob, dict]:
    job = TrainJob(str(history), str(folder), spec, resolve_split(History.open(history), spec), (("pump", 5),), 7)
    learn_regimes(job, "pump")
    piece = Chunk("pump", tuple(f"pump-{n}" for n in range(5)), 0, "all")
    sample_chunk(job, piece)
    return job, load_samples(job, "pump", [piece])


def test_folds_by_time_learn_from_what_came_an_embargo_before(history: Path, tmp_path: Path) -> None:
    job, sample = sampled(history, tmp_path, small_fleet())
    spec = job.spec.classes[0]
    for slot in slots_of(spec):
        label = np.zeros(len(sample["weight"]), np.float32)
        folds = list(tuning_folds._parts(job, spec, slot, sample, label))
        assert len(folds) == 2
        for train, judged in folds:
            gap = sample["times"][judged].min() - sample["times"][train].max()
            assert gap > embargo_of(spec, slot.target)
            assert sample["times"][judged].max() < job.splits[0].test_from_us
            assert set(sample["asset_ids"][judged]) == set(sample["asset_ids"])
        assert not (folds[0][1] & folds[1][1]).any()


def test_folds_by_reading_keep_the_embargo_in_readings(history: Path, tmp_path: Path) -> None:
    target = Target("failure", "failure:bearing", "bearing", horizon_readings=48)
    job, sample = sampled(history, tmp_path, small_fleet(cadence_us=0, targets=(target,)))
    spec = job.spec.classes[0]
    for train, judged in tuning_folds._parts(job, spec, slots_of(spec)[0], sample, np.zeros(len(sample["rows"]))):
        for asset_id in np.unique(sample["asset_ids"]):
            own = sample["asset_ids"] == asset_id
            assert sample["rows"][own & judged].min() - sample["rows"][own & train].max() > embargo_of(spec, target)


def test_folds_by_asset_hold_whole_machines_out(history: Path, tmp_path: Path) -> None:
    spec = dataclasses.replace(small_fleet(), split=SplitSpec(by="asset", test_share=0.2, folds=2))
    job, sample = sampled(history, tmp_path, spec)
    label = np.zeros(len(sample["weight"]), np.float32)
    judged_once = np.zeros(len(label), int)
    for train, judged in tuning_folds._parts(job, spec.classes[0], slots_of(spec.classes[0])[0], sample, label):
        assert not set(sample["asset_ids"][train]) & set(sample["asset_ids"][judged])
        assert not set(sample["asset_ids"][train | judged]) & set(job.splits[0].test_assets)
        judged_once += judged
    assert set(judged_once[np.isin(sample["parts"][:, 0], (0, 1))]) == {1}


def test_folds_too_small_to_judge_by_are_refused_with_their_numbers(history: Path, tmp_path: Path) -> None:
    job, sample = sampled(history, tmp_path, small_fleet())
    few = {name: column[:: len(sample["weight"]) // 300] for name, column in sample.items()}
    with pytest.raises(CommandError, match=r"class 'pump' cannot be tuned.*failure:bearing: 0 of 2 folds.*at least"):
        tuning_folds.judged_slots(job, job.spec.classes[0], few)
    usable, unjudged = tuning_folds.judged_slots(job, job.spec.classes[0], sample)
    assert usable == {"failure:bearing": [0, 1], "anomaly[vibration]": [0, 1]}
    assert unjudged == {}


def test_a_batch_depends_on_seed_and_history_alone() -> None:
    known = [(NOW, 1.0)]
    for _ in range(3):
        batch = next_batch(known, 7)
        assert batch == next_batch(known, 7)
        assert batch != next_batch(known, 8)
        assert all(SPACE[name][0] <= value <= SPACE[name][1] for p in batch for name, value in p.items())
        known += [(p, None if i == 1 else p["eta"]) for i, p in enumerate(batch)]
    assert len({json.dumps(p) for p, _ in known}) == 13


def trial(number: int, *losses: float) -> dict:
    folds = [{"s": {"loss": loss}} for loss in losses]
    return {"number": number, "objective": float(np.mean(losses)), "folds": folds, "parameters": {}}


def test_a_lucky_fold_chooses_nothing() -> None:
    now = trial(0, 1.0, 1.0, 1.0, 1.0)
    assert choose([now, trial(1, 0.4, 1.1, 1.1, 1.1)])[0] == 0
    assert choose([now, trial(1, 0.4, 1.1, 1.1, 1.1), trial(2, 0.93, 0.92, 0.93, 0.9)])[0] == 2
    assert choose([now, {**trial(1, 0.1, 0.1, 0.1, 0.1), "objective": None}])[0] == 0
    number, gain, error = choose([now, trial(1, 0.9, 0.9, 0.9, 0.8)])
    assert (number, gain, error) == (1, pytest.approx(0.125), pytest.approx(0.025))


COMMENTED = """\
# a plant
[fleet]
name = "plant" # ours

[classes.pump]
cadence = "1h"
sensors = ["a", "b"]
windows = ["6h"]
statistics = ["mean"]
[classes.pump.targets.anomaly]
[classes.pump.model] # tried by hand
rounds = 100   # enough
  eta=0.1
# the end of it

[classes.pump.alarm]
hold = 2
"""


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (
            COMMENTED,
            ["# a plant", "# ours", "# tried by hand", "rounds = 70   # enough", "  eta=0.2", "# the end of it"],
        ),
        (
            COMMENTED.replace("[classes.pump.model] # tried by hand\nrounds = 100   # enough\n  eta=0.1\n", ""),
            ["# ours"],
        ),
        (COMMENTED.replace("[classes.pump.model]", "[classes.'pump'.model]"), []),
        (COMMENTED.replace("[classes.pump.model] # tried by hand", "[classes.pump . model]"), []),
    ],
    ids=["in place", "no such table", "quoted", "spaced"],
)
def test_a_tuned_file_keeps_what_was_written(text: str, kept: list[str]) -> None:
    spec = parse_fleet(text)
    values = {"rounds": 70, "eta": 0.2, "max_depth": 3}
    one = dataclasses.replace(spec.classes[0], model=dataclasses.replace(spec.classes[0].model, **values))
    tuned = dataclasses.replace(spec, classes=(one,))
    found = tuned_text(text, tuned, {"pump": values})
    assert parse_fleet(found) == tuned
    assert [line for line in kept if line not in found] == []


def test_the_page_of_trials_escapes_names(tmp_path: Path) -> None:
    entry = {
        "name": "<b>x</b>", "judged": {"<i>": [0]}, "unjudged": {}, "chosen": 1, "gain": 0.1, "gain_error": 0.01,
        "trials": [{**trial(0, 1.0), "parameters": NOW}, {**trial(1, 0.9), "parameters": NOW}],
    }  # fmt: skip
    write_trials(tmp_path / "t.html", {"fleet": "<script>", "seed": 7, "classes": [entry]})
    text = (tmp_path / "t.html").read_text()
    assert not any(tag in text for tag in ("<script>", "<b>", "<i>"))
    assert "<svg" in text


def test_an_order_is_checked_before_anything_starts(history: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--minutes"):
        order_of(history, tmp_path, minutes=-1.0)
    with pytest.raises(UsageError, match="--trials: expected 1 to 400, found 0"):
        order_of(history, tmp_path, trials=0)
    with pytest.raises(UsageError, match="--out: expected another folder"):
        order_of(history, history)
