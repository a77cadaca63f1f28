"""What earns an own head its place, and what probabilities and regimes are worth."""

import numpy as np
import pytest
from trainer.pumps import pump_spec
from wheeltapper.outputs import Why, failure_values
from wheeltapper.spec import ModelSpec, RegimeSpec, Sensor
from wheeltapper_trainer.calibration import KNOTS_MAX, calibrate
from wheeltapper_trainer.heads import Rows, earns_its_place, fit_class_head, fit_own_head, load_head, save_head
from wheeltapper_trainer.job import actual_feature, allowed_features, slots_of
from wheeltapper_trainer.regimes import regimes_of

SPEC = pump_spec()
RUL, FAILURE, VIBRATION, TEMPERATURE = slots_of(SPEC)
FEATURES = len(allowed_features(SPEC, RUL))


def rows(count, seed, label=None, positives=0.3):
    random = np.random.default_rng(seed)
    features = random.normal(0, 1, (count, FEATURES)).astype(np.float32)
    if label is None:
        chance = 1 / (1 + np.exp(-3 * features[:, 0]))
        label = (random.random(count) < chance * positives * 2).astype(np.float32)
    return Rows(features, label.astype(np.float32), np.ones(count, np.float32))


def test_slots_follow_targets_and_an_anomaly_never_sees_its_sensor():
    assert [slot.name for slot in slots_of(SPEC)] == [
        "rul",
        "failure:bearing",
        "anomaly[vibration]",
        "anomaly[temperature]",
    ]
    blind = ~allowed_features(SPEC, VIBRATION)
    assert blind.sum() == 1 + 2 * 2  # last, and two statistics of two windows
    assert blind[actual_feature(SPEC, VIBRATION)]
    assert allowed_features(SPEC, RUL).all()


def test_a_better_head_is_kept_and_a_lucky_one_is_not():
    random = np.random.default_rng(1)
    truth = random.normal(50, 10, 500).astype(np.float32)
    of_class = truth + random.normal(0, 5, 500).astype(np.float32)
    better = truth + random.normal(0, 2, 500).astype(np.float32)
    assert earns_its_place(RUL, truth, of_class, better)[0]
    assert not earns_its_place(RUL, truth, better, of_class)[0]
    lucky = of_class.copy()
    lucky[:50] = truth[:50]  # perfect in one stretch, no different in the others: better on average, yet no evidence
    won, (loss_class, loss_own) = earns_its_place(RUL, truth, of_class, lucky)
    assert loss_own < loss_class
    assert not won


def test_no_failures_no_head_and_no_own_head_that_only_learnt_to_say_no():
    quiet = rows(400, 1, np.zeros(400))
    assert fit_class_head(SPEC, FAILURE, quiet, quiet, 7, refit=False) is None
    head = fit_class_head(SPEC, FAILURE, rows(800, 2), rows(400, 3), 7, refit=False)
    assert fit_own_head(SPEC, FAILURE, head, rows(400, 4), quiet, (3, 0), 7) is Why.NO_EVENTS
    assert fit_own_head(SPEC, FAILURE, head, quiet, rows(400, 4), (0, 3), 7) is Why.NO_EVENTS
    assert fit_own_head(SPEC, FAILURE, head, rows(100, 4), rows(400, 4), (3, 3), 7) is Why.TOO_LITTLE_HISTORY
    assert fit_own_head(SPEC, RUL, head, rows(400, 4), rows(400, 5), (1, 1), 7) is Why.NO_EVENTS
    off = pump_spec(model=ModelSpec(asset_rounds=0))
    assert fit_own_head(off, FAILURE, head, rows(400, 4), rows(400, 5), (3, 3), 7) is Why.NOT_TRAINED
    own = fit_own_head(SPEC, FAILURE, head, rows(400, 4), rows(400, 5), (3, 3), 7)
    assert own.final.parent is head.final
    np.testing.assert_array_equal(own.knots, head.knots)


def test_a_refit_head_serves_all_assets_and_its_judge_has_not_seen_validation(tmp_path):
    train, valid = rows(600, 1), rows(300, 2)
    head = fit_class_head(SPEC, FAILURE, train, valid, 7, refit=True)
    judge = fit_class_head(SPEC, FAILURE, train, valid, 7, refit=False)
    np.testing.assert_array_equal(head.judge.margins(valid.features), judge.final.margins(valid.features))
    assert head.final.rounds == head.judge.rounds
    assert not np.array_equal(head.final.margins(valid.features), head.judge.margins(valid.features))
    save_head(tmp_path / "head.npz", head)
    again = load_head(tmp_path / "head.npz")
    np.testing.assert_array_equal(again.final.margins(valid.features), head.final.margins(valid.features))
    np.testing.assert_array_equal(again.judge.margins(valid.features), head.judge.margins(valid.features))
    assert (again.a, again.b, again.knots.tolist()) == (head.a, head.b, head.knots.tolist())
    save_head(tmp_path / "none.npz", None)
    assert load_head(tmp_path / "none.npz") is None


def test_a_residual_is_in_spreads_of_healthy_validation():
    random = np.random.default_rng(3)
    train, valid = rows(600, 1, random.normal(100, 4, 600)), rows(600, 2, random.normal(102, 4, 600))
    head = fit_class_head(SPEC, VIBRATION, train, valid, 7, refit=False)
    features = valid.features.copy()
    features[:, actual_feature(SPEC, VIBRATION)] = valid.label
    residual = head.values(VIBRATION, SPEC, head.final.margins(features), features)
    assert np.median(residual) == pytest.approx(0, abs=0.05)
    assert residual.std() == pytest.approx(1, abs=0.15)


def test_an_own_spread_leans_towards_its_class_and_hears_a_heavy_tail():
    random = np.random.default_rng(8)
    label = random.normal(100, 4, 1_500)
    parent = fit_class_head(SPEC, VIBRATION, rows(800, 1, label[:800]), rows(400, 2, label[800:1_200]), 7, refit=False)
    quiet = rows(400, 3, random.normal(90, 0.5, 400))
    own = fit_own_head(SPEC, VIBRATION, parent, quiet, rows(300, 4, random.normal(90, 0.5, 300)), (0, 0), 7)
    of_class, of_own = 1 / parent.a, 1 / own.a
    assert 0.35 * of_class < of_own < 0.6 * of_class  # sqrt(2 of 12 stretches) of it, and a little of its own
    tailed = random.normal(90, 0.5, 300)
    tailed[::50] += 12.0
    heard = fit_own_head(SPEC, VIBRATION, parent, quiet, rows(300, 4, tailed), (0, 0), 7)
    assert 1 / heard.a > 1.5 * of_own
    known = parent.final.margins(quiet.features)
    judged = rows(300, 4, tailed)
    start = (known, parent.final.margins(judged.features))
    again = fit_own_head(SPEC, VIBRATION, parent, quiet, judged, (0, 0), 7, start)
    np.testing.assert_array_equal(again.final.added_trees().nodes, heard.final.added_trees().nodes)
    assert (again.a, again.b) == (heard.a, heard.b)


def test_the_interval_of_a_life_rests_on_machines_left_out(tmp_path):
    """Three machines, each off by a level of its own: a fit that saw one knows it, and an honest interval does not."""
    machine = np.arange(900) % 3
    train, valid = rows(900, 1, np.zeros(900)), rows(300, 2, np.zeros(300))
    train.features[:, 1] = machine
    valid.features[:, 1] = 1
    train.label[:] = 60 + 15 * np.clip(train.features[:, 0], -2, 2) + 20.0 * (machine - 1)
    valid.label[:] = 60 + 15 * np.clip(valid.features[:, 0], -2, 2)
    folds = [machine == fold for fold in range(3)]
    head = fit_class_head(SPEC, RUL, train, valid, 7, refit=True, folds=folds)
    blind = fit_class_head(SPEC, RUL, train, valid, 7, refit=True)
    width, narrow = ((np.array(h.interval)[:, 2] - np.array(h.interval)[:, 1]).mean() for h in (head, blind))
    assert width > 35 > 2 * narrow
    save_head(tmp_path / "head.npz", head)
    assert load_head(tmp_path / "head.npz").interval == head.interval


@pytest.mark.parametrize("count", [300, 20_000], ids=["logistic", "isotonic"])
def test_calibrated_probabilities_mean_what_they_say(count):
    random = np.random.default_rng(4)
    margin = random.normal(-2, 2, count).astype(np.float32)
    chance = 1 / (1 + np.exp(-(0.5 * margin - 1)))  # the margins are over-confident
    label = (random.random(count) < chance).astype(np.float32)
    found = calibrate(margin, label, np.ones(count, np.float32))
    assert bool(len(found.knots)) == (count == 20_000)
    assert len(found.knots) <= KNOTS_MAX + 2
    probability = failure_values(margin, found.a, found.b, found.knots)
    assert np.abs(probability - chance).mean() < (0.05 if count == 300 else 0.015)
    order = np.argsort(margin)
    assert (np.diff(probability[order]) >= 0).all()
    assert 0 < probability.min() < probability.max() < 1


def test_weights_undo_the_sampling():
    """Half the negatives dropped and the rest counted double gives the probabilities of all."""
    random = np.random.default_rng(5)
    margin = random.normal(0, 2, 20_000).astype(np.float32)
    label = (random.random(20_000) < 1 / (1 + np.exp(-(margin - 2)))).astype(np.float32)
    kept = (label == 1) | (np.arange(20_000) % 2 == 0)
    weight = np.where(label == 1, 1, 2).astype(np.float32)[kept]
    whole, part = calibrate(margin, label, np.ones_like(margin)), calibrate(margin[kept], label[kept], weight)
    values = [failure_values(margin, c.a, c.b, c.knots) for c in (whole, part)]
    assert np.abs(values[0] - values[1]).mean() < 0.01


def test_regimes_are_found_and_scale_every_other_sensor():
    spec = pump_spec(
        regime=RegimeSpec(("load",), 3), sensors=tuple(Sensor(s) for s in ("load", "vibration", "temperature"))
    )
    random = np.random.default_rng(6)
    regime = random.integers(0, 3, 3_000)
    load = np.array([10.0, 20.0, 40.0])[regime] + random.normal(0, 0.5, 3_000)
    vibration = np.array([1.0, 5.0, 2.0])[regime] + np.array([0.1, 0.4, 0.2])[regime] * random.normal(0, 1, 3_000)
    values = np.column_stack([load, vibration, np.full(3_000, 7.0)]).astype(np.float32)
    values[5] = np.nan
    found = regimes_of(spec, values, seed=7)
    raw = found.centroids[:, 0] / found.scale[0, 1] + found.scale[0, 0]
    np.testing.assert_allclose(raw, [10, 20, 40], atol=0.2)
    np.testing.assert_allclose(found.mean[:3, 1], [1, 5, 2], atol=0.1)
    np.testing.assert_allclose(1 / found.inverse_std[:3, 1], [0.1, 0.4, 0.2], rtol=0.1)
    np.testing.assert_array_equal(found.mean[:, 0], 0)  # a regime sensor keeps its own units
    np.testing.assert_array_equal(found.inverse_std[:, 0], 1)
    np.testing.assert_array_equal(found.inverse_std[:, 2], 1)  # a sensor that never moves is only shifted
    again = regimes_of(spec, values, seed=7)
    assert again.mean.tobytes() == found.mean.tobytes()
    one = regimes_of(pump_spec(regime=RegimeSpec(("load",), 5)), np.full((40, 3), 2, np.float32), 7)
    assert len(one.centroids) == 1
