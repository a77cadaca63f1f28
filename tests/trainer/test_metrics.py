"""Figures of merit against their definitions, written out slowly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wheeltapper_trainer import metrics

SCORED = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5)), min_size=2, max_size=30)


def arrays(rows):
    label, score = zip(*rows, strict=True)
    return np.array(label, np.float32), np.array(score, np.float32) / 5


@settings(max_examples=100, deadline=None)
@given(SCORED)
def test_roc_auc_is_the_chance_that_a_positive_outscores_a_negative(rows):
    label, score = arrays(rows)
    pairs = [(p > n) + (p == n) / 2 for p in score[label == 1] for n in score[label == 0]]
    assert metrics.roc_auc(label, score) == pytest.approx(np.mean(pairs) if pairs else np.nan, nan_ok=True)


@settings(max_examples=100, deadline=None)
@given(SCORED)
def test_pr_auc_is_precision_over_steps_of_recall(rows):
    label, score = arrays(rows)
    expected, recall = 0.0, 0.0
    for cut in sorted(set(score.tolist()), reverse=True):
        taken = label[score >= cut]
        if label.sum():
            expected += (taken.sum() / label.sum() - recall) * taken.mean()
            recall = taken.sum() / label.sum()
    assert metrics.pr_auc(label, score) == pytest.approx(expected if label.sum() else np.nan, nan_ok=True)


@settings(max_examples=50, deadline=None)
@given(SCORED, st.integers(0, 2**16))
def test_a_weight_is_a_repetition(rows, seed):
    label, score = arrays(rows)
    counts = np.random.default_rng(seed).integers(0, 4, len(label))
    for metric in (metrics.rmse, metrics.mae, metrics.brier, metrics.pr_auc, metrics.roc_auc):
        repeated = metric(np.repeat(label, counts), np.repeat(score, counts))
        assert metric(label, score, counts.astype(float)) == pytest.approx(repeated, nan_ok=True)


def test_unknown_rows_count_in_nothing():
    label, score = np.array([1.0, np.nan, 3.0]), np.array([2.0, 9.0, np.nan])
    assert metrics.rmse(label, score) == 1.0
    assert metrics.mae(label, score) == 1.0


def test_phm08_punishes_late_more_than_early():
    assert metrics.phm08(np.array([50.0]), np.array([60.0])) == pytest.approx(np.e - 1)
    assert metrics.phm08(np.array([50.0]), np.array([37.0])) == pytest.approx(np.e - 1)


def test_calibration_bins_hold_every_row_and_their_means():
    random = np.random.default_rng(1)
    probability = random.random(5_000) ** 4
    label = (random.random(5_000) < probability).astype(float)
    bins = metrics.calibration_bins(label, probability)
    assert sum(entry["rows"] for entry in bins) == 5_000
    assert all(abs(entry["predicted"] - entry["observed"]) < 0.06 for entry in bins)


def test_the_interval_covers_a_mean_over_assets_and_is_wider_with_fewer():
    random = np.random.default_rng(2)

    def width(assets):
        values = random.normal(0, 1, assets)
        low, high = metrics.bootstrap_interval(lambda c: float(c @ values / c.sum()), assets, 1)
        assert low < values.mean() < high
        return high - low

    assert width(400) < width(20) / 2
    assert np.isnan(metrics.bootstrap_interval(lambda c: 1.0, 1, 1)).all()
