"""A machine's own forest without its class: it answers where machines have nothing in common, if asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trainer.pumps import HOUR, START
from wheeltapper.inspect import describe, describe_asset
from wheeltapper.outputs import Why
from wheeltapper.pack import Pack, write_pack
from wheeltapper.spec import LEVELS, AlarmSpec, ClassSpec, FleetSpec, ModelSpec, Sensor, SplitSpec, Target
from wheeltapper_trainer import report
from wheeltapper_trainer.assemble import assemble
from wheeltapper_trainer.chunk import fit_class, sample_chunk, train_chunk
from wheeltapper_trainer.evaluation import evaluate, flat_metrics
from wheeltapper_trainer.final_answers import final_answers
from wheeltapper_trainer.history import History
from wheeltapper_trainer.history_writer import HistoryWriter
from wheeltapper_trainer.job import Chunk, TrainJob, load_arrays
from wheeltapper_trainer.own import ASSET_LEVEL
from wheeltapper_trainer.records import Asset
from wheeltapper_trainer.regimes import learn_regimes
from wheeltapper_trainer.split import resolve_split
from wheeltapper_trainer.thresholds import choose_thresholds

ROWS = 2_000
IDS = tuple(f"mill-{number}" for number in range(6))
SENSORS = ("load", "flow")
MODEL = {"rounds": 30, "asset_rounds": 5, "max_depth": 3, "eta": 0.3, "colsample_bytree": 1.0}


def write_mills(path: Path, alike: bool) -> Path:
    """Mills whose flow follows the load: every mill's by the same line, or every mill's by another."""
    with HistoryWriter(path, {"mill": SENSORS}, 1_000_000) as writer:
        for number, asset_id in enumerate(IDS):
            random = np.random.default_rng([5, number])
            load = random.normal(0, 1, ROWS)
            steepness = 2.0 if alike else (-1) ** number * (1.0 + number)
            flow = steepness * load + random.normal(0, 0.3, ROWS)
            values = np.column_stack([load, flow]).astype(np.float32)
            writer.add(Asset(asset_id, "mill", {}), START + HOUR * np.arange(ROWS, dtype=np.int64), values)
    return path


class Mills:
    """A trained fleet of mills: its job, its one chunk's file, its evaluation and its pack's bytes."""

    def __init__(self, folder: Path, alike: bool, **model: Any) -> None:
        spec = ClassSpec(
            name="mill",
            sensors=tuple(Sensor(name) for name in SENSORS),
            cadence_us=HOUR,
            windows=(3,),
            statistics=("mean",),
            lateness=2,
            skew_us=HOUR,
            targets=(Target("anomaly", "anomaly", sensors=("flow",)),),
            model=ModelSpec(**{**MODEL, **model}),
            alarm=AlarmSpec(),
        )
        fleet = FleetSpec("mills", (spec,), split=SplitSpec(test_share=0.25))
        self.history = History.open(str(write_mills(folder / "history", alike)))
        splits = resolve_split(self.history, fleet)
        self.job = TrainJob(str(folder / "history"), str(folder / "run"), fleet, splits, (("mill", len(IDS)),), 7)
        chunk = Chunk("mill", IDS, 0, "all")
        learn_regimes(self.job, "mill")
        sample_chunk(self.job, chunk)
        fit_class(self.job, "mill", 0, [chunk])
        self.done = train_chunk(self.job, chunk)
        self.found = load_arrays(self.job.chunk_path(chunk))
        thresholds = choose_thresholds(self.job, [chunk])
        self.evaluation = evaluate(self.job, [chunk], thresholds)
        content = assemble(self.job, [chunk], [chunk], thresholds, {"data": "none"}, flat_metrics(self.evaluation))
        self.bytes = write_pack(content)

    def reasons(self) -> list[Why]:
        return [Why(int(reason)) for reason in self.found["reasons"][:, 0]]


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Mills:
    return Mills(tmp_path_factory.mktemp("strangers"), alike=False, asset_alone=True)


def test_where_machines_have_nothing_in_common_their_own_forest_answers(strangers: Mills) -> None:
    assert strangers.reasons().count(Why.ALONE_HEAD_KEPT) >= len(IDS) - 1
    of_class, continued, alone = strangers.found["losses"][:, 0].T
    assert np.median(alone / continued) < 0.8
    assert (continued < of_class).all()
    assert strangers.done.heads_kept == len(IDS)


def test_where_machines_are_alike_it_does_not(tmp_path: Path) -> None:
    alike = Mills(tmp_path, alike=True, asset_alone=True)
    assert Why.ALONE_HEAD_KEPT not in alike.reasons()
    assert alike.found["tried"].all()
    assert "head_base" not in alike.found


def test_of_equals_the_one_that_leans_on_the_class_stays(tmp_path: Path) -> None:
    """With as many trees on top of its class a machine learns as much: the forest alone gains no more than luck."""
    equals = Mills(tmp_path, alike=False, asset_alone=True, asset_rounds=MODEL["rounds"])
    assert equals.reasons().count(Why.OWN_HEAD_KEPT) >= len(IDS) - 2
    of_class, _, alone = equals.found["losses"][:, 0].T
    assert (alone < of_class).all()


def test_a_pack_answers_by_it_what_training_judged(strangers: Mills) -> None:
    """Streamed through the scorer's windows, every later row gets the score that the verdict was about."""
    pack = Pack.from_bytes(strangers.bytes)
    assets = {asset.asset_id: asset for asset in strangers.history.assets()}
    events = strangers.history.events()
    row = strangers.reasons().index(Why.ALONE_HEAD_KEPT)
    head = int(pack.asset_heads[pack.asset_index(IDS[row]), 0])
    assert int(pack.forest.head_parent[head]) == -1
    assert pack.forest.head_base[head] == strangers.found["head_base"][strangers.found["head_asset"] == row][0] != 0
    readings = next(found for found in strangers.history.read([IDS[row]], SENSORS) if found.asset_id == IDS[row])
    answers = final_answers(pack, 1, assets[IDS[row]], SENSORS, readings, events.of_asset(IDS[row]))
    rows = slice(*strangers.found["row_begin"][row : row + 2])
    at = np.searchsorted(answers.times, strangers.found["times"][rows])
    np.testing.assert_array_equal(answers.values[at], strangers.found["values"][rows])
    np.testing.assert_array_equal(answers.values[at], strangers.found["alone_values"][rows])
    assert (strangers.found["levels"][rows] == ASSET_LEVEL).all()
    assert (answers.levels[at] == ASSET_LEVEL).all()


def test_report_and_inspect_say_what_it_would_have_achieved(strangers: Mills) -> None:
    json.dumps(strangers.evaluation, allow_nan=False)
    (one,) = strangers.evaluation["classes"]
    assert set(one["outputs"][0]["levels"]) == {"answering", "class", "own", "alone"}
    assert set(one["heads"][0]["validation_loss"]) == {"class", "own", "alone"}
    assert one["heads"][0]["kept"] == len(IDS)
    view = report._class_view(strangers.job.spec.classes[0], one)
    assert view["level_names"]["alone"] == "own head without its class"
    pack = Pack.from_bytes(strangers.bytes)
    told = describe(pack)["classes"][0]
    assert {"pr_auc_class", "pr_auc_own", "pr_auc_alone"} <= set(told["outputs"][0]["metrics"])
    assert told["reasons"]["ALONE_HEAD_KEPT"] >= len(IDS) - 1
    (answer,) = describe_asset(pack, IDS[strangers.reasons().index(Why.ALONE_HEAD_KEPT)])["answers"]
    assert (answer["level"], answer["reason"]) == (LEVELS[ASSET_LEVEL], "ALONE_HEAD_KEPT")
    assert answer["trees_own"] == answer["trees_all"] > 0


def test_who_does_not_ask_for_it_sees_nothing_of_it(strangers: Mills, tmp_path: Path) -> None:
    off = Mills(tmp_path, alike=False)
    assert set(off.found) == set(strangers.found) - {"alone_values", "head_base"}
    assert off.found["losses"].shape == (len(IDS), 1, 2)
    np.testing.assert_array_equal(off.found["own_values"], strangers.found["own_values"])
    assert set(off.evaluation["classes"][0]["outputs"][0]["levels"]) == {"answering", "class", "own"}
    assert b"alone" not in off.bytes
