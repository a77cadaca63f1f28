"""Nothing learnt may know the later part: embargoes, whole assets, and a test that poisons the future."""

import dataclasses

import numpy as np
import pytest
from trainer.pumps import DAYS, HOUR, START, fleet, pump_spec, write_history
from wheeltapper.errors import ConfigError
from wheeltapper.spec import SplitSpec, Target
from wheeltapper_trainer.history import History
from wheeltapper_trainer.history_writer import HistoryWriter
from wheeltapper_trainer.job import TEST, TRAIN, UNUSED, VALID, ClassSplit
from wheeltapper_trainer.records import Asset
from wheeltapper_trainer.split import embargo_of, parts_of, resolve_split

TIMES = START + HOUR * np.arange(DAYS * 24, dtype=np.int64)
SPLIT = ClassSplit("pump", "time", START + 50 * 24 * HOUR, START + 70 * 24 * HOUR)


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    return History.open(write_history(tmp_path_factory.mktemp("split") / "history"))


@pytest.mark.parametrize("output", [0, 1, 2])
def test_an_embargo_of_one_window_and_one_horizon_lies_before_each_cut(output):
    spec = pump_spec()
    target = spec.targets[output]
    parts = parts_of(spec, SPLIT, target, "a", TIMES)
    gap = embargo_of(spec, target)
    assert gap == 24 * HOUR + (120 if output == 0 else 48) * HOUR
    for earlier, later, cut in ((TRAIN, VALID, SPLIT.valid_from_us), (VALID, TEST, SPLIT.test_from_us)):
        assert TIMES[parts == earlier].max() + gap < cut
        assert TIMES[parts == later].min() == cut
    assert (parts == UNUSED).sum() == 2 * gap / HOUR


def test_the_embargo_is_counted_in_readings_where_a_slot_is_a_reading():
    spec = pump_spec(cadence_us=0, targets=(Target("rul", "rul", "bearing", cap=100.0),))
    parts = parts_of(spec, SPLIT, spec.targets[0], "a", TIMES)
    assert (parts == UNUSED).sum() == 2 * (24 + 100)


def test_whole_assets_are_held_out():
    spec = pump_spec()
    split = ClassSplit("pump", "asset", valid_assets=("v",), test_assets=("t",))
    for asset, part in (("v", VALID), ("t", TEST), ("x", TRAIN)):
        assert set(parts_of(spec, split, spec.targets[0], asset, TIMES)) == {part}


def test_a_split_by_asset_never_cuts_one_and_ignores_who_else_is_there(history):
    spec = dataclasses.replace(fleet(), split=SplitSpec(by="asset", test_share=0.25))
    (split,) = resolve_split(history, spec)
    assert len(split.test_assets) == 2
    assert not set(split.test_assets) & set(split.valid_assets)
    assert set(split.test_assets) | set(split.valid_assets) < set(history.asset_ids())
    assert resolve_split(history, spec) == (split,)


def test_official_test_assets_are_taken_as_marked(tmp_path):
    with HistoryWriter(tmp_path / "h", {"pump": ("load", "vibration", "temperature")}) as writer:
        for number in range(6):
            asset = Asset(f"p{number}", "pump", {"test": float(number >= 4)})
            writer.add(asset, TIMES[:50], np.ones((50, 3), np.float32))
    spec = dataclasses.replace(fleet(), split=SplitSpec(by="asset"))
    (split,) = resolve_split(History.open(tmp_path / "h"), spec)
    assert split.test_assets == ("p4", "p5")


def test_a_split_by_time_is_fixed_from_the_span(history):
    (split,) = resolve_split(history, fleet())
    span = TIMES[-1] - TIMES[0]
    assert split.test_from_us == TIMES[-1] - round(span * 0.25)
    assert split.valid_from_us == split.test_from_us - (split.test_from_us - TIMES[0]) // 4


def test_too_short_a_history_is_refused_with_its_numbers(history):
    long = fleet(targets=(Target("failure", "failure", horizon_us=40 * 24 * HOUR),))
    with pytest.raises(ConfigError, match=r"too short .* pump\.failure with an embargo of 41d"):
        resolve_split(history, long)
