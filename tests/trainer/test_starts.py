"""An asset's own start: learnt once from its first slots, kept in the pack, the same bits wherever a shift is made."""

import dataclasses

import naive
import numpy as np
import pytest
from trainer.pumps import BUDGET, HOUR, SENSORS, START, pump_spec, write_history
from trainer.test_chunk import job_of, pack_of, run
from wheeltapper.live import LiveFleet
from wheeltapper.outputs import Why
from wheeltapper.pack import Pack
from wheeltapper.regimes import no_regimes
from wheeltapper.spec import AlarmSpec, FleetSpec, SplitSpec, Target, features_of
from wheeltapper_trainer.history import History
from wheeltapper_trainer.job import ClassSplit, load_arrays, slots_of
from wheeltapper_trainer.starts import start_of

LATER = ClassSplit("pump", "time", START + 30 * 24 * HOUR, START + 60 * 24 * HOUR)


def watching(**changes):
    target = Target(
        "anomaly", "anomaly", sensors=("vibration", "temperature"), horizon_us=48 * HOUR, shift=24, others=False
    )
    settings = {"statistics": ("mean", "shift"), "start": 72, "targets": (target,)}
    return pump_spec(**{**settings, "alarm": AlarmSpec(BUDGET, 2), **changes})


@pytest.mark.parametrize("cadence_us", [HOUR, 0])
def test_a_start_is_the_naive_one_and_nothing_later_moves_it(cadence_us):
    rng = np.random.default_rng(1)
    spec = watching(cadence_us=cadence_us)
    times = START + np.cumsum(rng.integers(1, 2 * HOUR, 400))
    values = rng.normal(3, 2, (400, 3)).astype(np.float32)
    values[rng.random(values.shape) < 0.2] = np.nan
    values[:, 1] = np.where(times < START + 50 * HOUR, np.nan, values[:, 1])  # comes when the start is nearly over
    found = start_of(spec, no_regimes(spec), LATER, times, values)
    truth = naive.start(spec, no_regimes(spec), {int(t): row for t, row in zip(times, values, strict=True)})
    np.testing.assert_allclose(found, truth, rtol=1e-12)
    assert np.isnan(found).sum() == 2, "a sensor that was missing in more than half of the start has none"
    values[times >= found[0]] = 1e6
    assert start_of(spec, no_regimes(spec), LATER, times, values).tobytes() == found.tobytes()


def test_a_start_that_is_not_over_in_time_is_unknown():
    spec = watching()
    times, values = START + HOUR * np.arange(400), np.ones((400, 3), np.float32)
    soon = dataclasses.replace(LATER, test_from_us=START + 71 * HOUR)
    of_assets = ClassSplit("pump", "asset", test_assets=("pump-1",))
    cases = ((LATER, 400, True), (LATER, 72, False), (soon, 400, False), (of_assets, 400, True), (LATER, 0, False))
    for split, rows, known in cases:
        found = start_of(spec, no_regimes(spec), split, times[:rows], values[:rows])
        assert np.isfinite(found).all() == known, (split, rows)
    assert start_of(pump_spec(), no_regimes(spec), LATER, times, values).size == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("starts")
    history = write_history(folder / "history")
    job = job_of(history, folder / "run", FleetSpec("pumps", (watching(),), split=SplitSpec(test_share=0.25)))
    return job, *run(job, [8])


def test_what_is_served_is_what_was_learnt_bit_for_bit(trained):
    """The pack carries the starts; a pump that it does not know has no shift, and no score to cry wolf with."""
    job, chunks, _ = trained
    pack = Pack.from_bytes(pack_of(job, chunks))
    fleet = LiveFleet(pack, 1)
    readings = next(iter(History.open(job.history).read(["pump-3"], list(SENSORS))))
    rows = np.repeat(fleet.open_assets("pump", ["pump-3"]), len(readings.times))
    scored = fleet.score("pump", rows, readings.times, readings.values, 2**60, historical=True, want_features=True)
    kept = load_arrays(job.chunk_path(chunks[0]))
    own = slice(*kept["row_begin"][3:5])
    assert scored.values[np.isin(readings.times, kept["times"][own])].tobytes() == kept["values"][own].tobytes()
    shift = [f.name for f in features_of(watching())].index("shift(vibration, 1d)")
    assert np.isnan(scored.features[:72, shift]).all()
    assert np.isfinite(scored.features[72:, shift]).all()
    new = np.repeat(fleet.open_assets("pump", ["pump-new"]), len(readings.times))
    unknown = fleet.score("pump", new, readings.times, readings.values, 2**60, historical=True)
    assert np.isnan(unknown.values).all()


def test_a_shift_is_held_against_nothing_but_the_start(trained):
    """No tree may explain away what all sensors do together, and no pump has a head of its own for it."""
    job, chunks, done = trained
    assert [slot.name for slot in slots_of(watching())] == [
        "anomaly[shift of vibration]",
        "anomaly[shift of temperature]",
    ]
    assert done[0].heads_trained == 0
    kept = load_arrays(job.chunk_path(chunks[0]))
    assert set(kept["reasons"].ravel().tolist()) == {Why.NOT_TRAINED}
    pack = Pack.from_bytes(pack_of(job, chunks))
    assert len(pack.forest.nodes) == 0
    assert pack.asset_start.shape == (8, 7)
    assert np.isfinite(pack.asset_start).all()
    failing, healthy = kept["labels"][:, 0] == 1, kept["labels"][:, 0] == 0
    assert np.nanmedian(kept["values"][failing]) > 1.5 * np.nanmedian(kept["values"][healthy])
