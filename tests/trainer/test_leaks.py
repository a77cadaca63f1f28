"""Nothing of the future is let in, and the checks that say so fail when it is: each leak is put in, and must be seen.

A check takes the product as it stands; a leak changes one function of it. Without a leak every check passes.
"""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trainer.pumps import HOUR, START, fleet, pump_spec, write_history
from wheeltapper.spec import SplitSpec, Target
from wheeltapper_trainer import chunk, inputs, split
from wheeltapper_trainer.chunk import load_samples, sample_chunk
from wheeltapper_trainer.history import History
from wheeltapper_trainer.inputs import asset_rows
from wheeltapper_trainer.job import TEST, TRAIN, UNUSED, VALID, Chunk, TrainJob
from wheeltapper_trainer.labels import horizon_of, label_column
from wheeltapper_trainer.records import AssetReadings, Events
from wheeltapper_trainer.regimes import learn_regimes, load_regimes
from wheeltapper_trainer.split import parts_of, resolve_split

CODES = frozenset({"bearing"})


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    return write_history(tmp_path_factory.mktemp("leaks") / "history", assets=6)


def job_of(history, run_dir, spec=None):
    spec = spec or fleet()
    return TrainJob(str(history), str(run_dir), spec, resolve_split(History.open(history), spec), (("pump", 6),), 7)


def check_features_know_no_later_reading(history, folder):
    """Cut an asset's history anywhere: the features before the cut are equal in every bit."""
    job = job_of(history, folder)
    learn_regimes(job, "pump")
    opened = History.open(history)
    asset = next(one for one in opened.assets() if one.asset_id == "pump-1")
    readings = next(opened.read(["pump-1"], ["load", "vibration", "temperature"]))
    events = opened.events().of_asset("pump-1")

    def features(count):
        seen = AssetReadings("pump-1", readings.times[:count], readings.values[:count])
        known = events.times <= readings.times[count - 1]
        then = Events(*(getattr(events, name)[known] for name in ("asset_ids", "times", "kinds", "codes")))
        return asset_rows(job, job.spec.classes[0], load_regimes(job, "pump"), asset, seen, then, CODES).features

    whole = features(len(readings.times))
    for count in (7, 100, 777):
        np.testing.assert_array_equal(features(count).view(np.uint32), whole[:count].view(np.uint32))


def check_samples_ignore_what_comes_after_the_cut(history, folder):
    """Everything after the test part begins is shifted: what class heads learn from must not notice."""
    job = job_of(history, folder / "a")
    cut = (job.splits[0].test_from_us - START) // HOUR
    other = job_of(write_history(folder / "poisoned", assets=6, future=(int(cut), 1000.0)), folder / "b")
    found = []
    for one in (job, other):
        learn_regimes(one, "pump")
        piece = Chunk("pump", tuple(f"pump-{n}" for n in range(6)), 0, "all")
        sample_chunk(one, piece)
        found.append(load_samples(one, "pump", [piece]))
    for name in ("features", "labels", "weight"):
        np.testing.assert_array_equal(found[0][name], found[1][name])


def check_an_embargo_separates_the_parts(history, folder):
    """A training label is settled before validation begins, and no later window reaches back into its span."""
    job = job_of(history, folder)
    spec, cuts = job.spec.classes[0], job.splits[0]
    times = START + HOUR * np.arange(90 * 24, dtype=np.int64)
    window = spec.windows[-1] * spec.cadence_us
    for target in spec.targets:
        parts = parts_of(spec, cuts, target, "pump-1", times)
        for earlier, later in ((TRAIN, VALID), (VALID, TEST)):
            settled = times[parts == earlier].max() + horizon_of(spec, target)
            assert settled < times[parts == later].min() - window
        assert not (parts[times >= cuts.test_from_us] != TEST).any()
        events = Events.of_rows([("pump-1", int(t), "failure", "bearing") for t in times[::300]])
        then = Events(*(getattr(events, n)[events.times < cuts.valid_from_us] for n in Events.__slots__))
        train = parts == TRAIN
        known = times < cuts.valid_from_us
        whole = label_column(spec, target, times, events, CODES)[train]
        np.testing.assert_array_equal(label_column(spec, target, times[known], then, CODES)[train[known]], whole)


def check_machines_are_never_cut_by_a_fold(history, folder):
    """Whole machines: in one part only, and in one fold only."""
    spec = dataclasses.replace(fleet(), split=SplitSpec(by="asset", test_share=0.25))
    job = job_of(history, folder, spec)
    ids = [f"pump-{n}" for n in range(6)]
    for asset_id in ids:
        parts = parts_of(spec.classes[0], job.splits[0], spec.classes[0].targets[0], asset_id, np.arange(9) * HOUR)
        assert len(set(parts.tolist())) == 1
    owners = np.repeat(ids, 5)
    folds = chunk.folds_of(job, owners, 3)
    assert (np.sum(folds, axis=0) == 1).all()
    for fold in folds:
        assert not set(owners[fold]) & set(owners[~fold])


CHECKS = {
    "features": check_features_know_no_later_reading,
    "samples": check_samples_ignore_what_comes_after_the_cut,
    "embargo": check_an_embargo_separates_the_parts,
    "machines": check_machines_are_never_cut_by_a_fold,
}


def leak_the_next_reading(monkeypatch):
    real = inputs.feature_rows

    def peeking(spec, regimes, statics, times, values, *events):
        return real(spec, regimes, statics, times, np.concatenate([values[1:], values[-1:]]), *events)

    monkeypatch.setattr(inputs, "feature_rows", peeking)


def leak_a_window_centred_on_its_reading(monkeypatch):
    real = inputs.feature_rows

    def centred(*arguments):
        features, status = real(*arguments)
        return np.concatenate([features[3:], features[-3:]]), status

    monkeypatch.setattr(inputs, "feature_rows", centred)


def leak_test_rows_into_samples(monkeypatch):
    real = chunk._choose

    def greedy(job, spec, asset, quota):
        taught = np.where(asset.parts == TEST, np.uint8(TRAIN), asset.parts)
        return real(job, spec, dataclasses.replace(asset, parts=taught), quota)

    monkeypatch.setattr(chunk, "_choose", greedy)


def leak_one_row_beyond_the_cut(monkeypatch):
    real = inputs.parts_of

    def late(spec, one, target, asset_id, times):
        parts = real(spec, one, target, asset_id, times)
        parts[np.flatnonzero(parts == TEST)[:1]] = VALID
        return parts

    monkeypatch.setattr(inputs, "parts_of", late)


def leak_through_no_embargo(monkeypatch):
    monkeypatch.setattr(split, "embargo_of", lambda spec, target: 0.0)


def leak_through_an_embargo_without_its_window(monkeypatch):
    monkeypatch.setattr(split, "embargo_of", horizon_of)


def leak_through_an_embargo_without_its_horizon(monkeypatch):
    monkeypatch.setattr(split, "embargo_of", lambda spec, target: float(spec.windows[-1] * spec.cadence_us))


def leak_machines_across_folds(monkeypatch):
    monkeypatch.setattr(
        chunk, "folds_of", lambda job, ids, count: [np.arange(len(ids)) % count == n for n in range(count)]
    )


LEAKS = [
    (leak_the_next_reading, "features"),
    (leak_a_window_centred_on_its_reading, "features"),
    (leak_test_rows_into_samples, "samples"),
    (leak_one_row_beyond_the_cut, "samples"),
    (leak_through_no_embargo, "embargo"),
    (leak_through_an_embargo_without_its_window, "embargo"),
    (leak_through_an_embargo_without_its_horizon, "embargo"),
    (leak_machines_across_folds, "machines"),
]


@pytest.mark.parametrize("name", CHECKS)
def test_nothing_leaks(history, tmp_path, name):
    CHECKS[name](history, tmp_path)


@pytest.mark.parametrize(("leak", "name"), LEAKS, ids=[leak.__name__ for leak, _ in LEAKS])
def test_a_leak_is_seen(history, tmp_path, monkeypatch, leak, name):
    leak(monkeypatch)
    with pytest.raises(AssertionError):
        CHECKS[name](history, tmp_path)


KINDS = {  # how a component's life may end, and the event that says so
    "failure": ("failure", "bearing"),
    "planned": ("maintenance", "bearing"),  # replaced on schedule, or after a warning
    "premature": ("maintenance", "bearing"),  # replaced long before its end
    "unknown": ("maintenance", "bearing"),  # replaced, and nobody wrote why
    "elsewhere": ("maintenance", "oil"),  # another component: this life goes on
}


@pytest.mark.parametrize(("ending", "before"), [("failure", 1), ("planned", np.nan), ("premature", np.nan),
                                               ("unknown", np.nan), ("elsewhere", 0)])  # fmt: skip
def test_only_a_failure_is_a_failure_and_no_replacement_is_health(ending, before):
    target = Target("failure", "failure:bearing", "bearing", horizon_us=2 * HOUR)
    found = label_column(pump_spec(), target, np.arange(9) * HOUR, _events([(4, ending)]), CODES)
    np.testing.assert_array_equal(found, [0, 0, before if ending == "failure" else 0, before, 0, 0, 0, np.nan, np.nan])


def _events(endings):
    return Events.of_rows([("a", hour * HOUR, *KINDS[ending]) for hour, ending in endings])


def _slow_label(kind, horizon, row, last, endings):
    """The truth of one reading, written out: what ends this life first, and was it watched for long enough?"""
    ahead = sorted(
        (hour - row, ending != "failure") for hour, ending in endings if hour > row and ending != "elsewhere"
    )
    ends, replaced = ahead[0] if ahead else (np.inf, True)
    watched = min(last - row, ends) if replaced else last - row
    if kind == "failure" and not replaced and ends <= horizon:
        return 1.0
    if kind == "failure":
        return 0.0 if watched >= horizon else np.nan
    if not replaced:
        return min(ends, horizon)
    return float(horizon) if watched >= horizon else np.nan


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["failure", "rul"]),
    st.integers(1, 8),
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from(sorted(KINDS))), max_size=6),
)
def test_labels_are_what_is_known_and_nothing_else(kind, horizon, endings):
    target = Target("failure", "failure:bearing", "bearing", horizon_us=horizon * HOUR)
    if kind == "rul":
        target = Target("rul", "rul", "bearing", cap=float(horizon))
    found = label_column(pump_spec(), target, np.arange(20) * HOUR, _events(endings), CODES)
    expected = [_slow_label(kind, horizon, row, 19, endings) for row in range(20)]
    np.testing.assert_array_equal(found, np.array(expected, np.float32))


def test_rows_of_an_embargo_teach_and_judge_nothing(history, tmp_path):
    job = job_of(history, tmp_path)
    learn_regimes(job, "pump")
    piece = Chunk("pump", ("pump-1",), 0, "one")
    sample_chunk(job, piece)
    sample = load_samples(job, "pump", [piece])
    assert not (sample["parts"] == TEST).any()
    assert (sample["parts"] == UNUSED).any()  # a row in one output's embargo may teach another output
    assert ((sample["parts"] == TRAIN) | (sample["parts"] == VALID)).any(axis=1).all()
