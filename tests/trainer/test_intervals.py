"""A 90 % interval holds nine truths in ten on machines it was not learnt from, wherever the prediction lies."""

import numpy as np
import pytest
from wheeltapper_trainer.intervals import COVERAGE, interval_knots, interval_of


def lives(count, seed):
    """Predictions whose error grows with the life predicted, and leans to one side."""
    random = np.random.default_rng(seed)
    predicted = random.uniform(0, 125, count)
    error = (2 + predicted / 10) * (random.exponential(1, count) - 0.7)
    return np.clip(predicted + error, 0, 125), predicted


def test_intervals_cover_what_they_say_at_short_and_long_lives():
    knots = interval_knots(*lives(4_000, 1))
    life, predicted = lives(4_000, 2)
    low, high = interval_of(knots, predicted, 125.0)
    inside = (life >= low) & (life <= high)
    for part in (predicted < 30, (predicted > 30) & (predicted < 90), predicted > 90):
        assert inside[part].mean() == pytest.approx(COVERAGE, abs=0.03)
    width = high - low
    assert width[predicted < 20].mean() < width[(predicted > 70) & (predicted < 90)].mean() / 2
    assert (low >= 0).all()
    assert (high <= 125).all()


def test_a_row_of_weight_two_counts_as_two():
    life, predicted = lives(2_000, 3)
    weight = np.where(np.arange(2_000) % 2, 2.0, 1.0)
    twice = np.repeat(np.arange(2_000), weight.astype(int))
    weighted = np.array(interval_knots(life, predicted, weight))
    repeated = np.array(interval_knots(life[twice], predicted[twice]))
    np.testing.assert_allclose(weighted, repeated, atol=3)


def test_few_rows_give_no_interval():
    life, predicted = lives(39, 4)
    assert interval_knots(life, predicted) == []
    assert np.isnan(interval_of([], predicted, 125.0)).all()
    life[:] = np.nan
    assert interval_knots(np.tile(life, 10), np.tile(predicted, 10)) == []
