"""Values a person reads, against the formulas of docs/pack-v1.md in plain NumPy."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from wheeltapper.outputs import (
    Why,
    anomaly_residuals,
    anomaly_value,
    anomaly_values,
    exponential,
    failure_value,
    failure_values,
    rul_value,
    rul_values,
)

MARGINS = st.floats(width=32, allow_nan=True, allow_infinity=True)
SCALES = st.floats(-8, 8, width=32)
NO_KNOTS = np.zeros((0, 2), np.float32)


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    return np.array_equal(found, np.asarray(expected).astype(np.float32), equal_nan=True)


@settings(deadline=None)
@given(st.lists(MARGINS, min_size=1, max_size=5), SCALES, SCALES, st.floats(0, 1000, width=32))
def test_rul_is_linear_within_zero_and_cap(margins, a, b, cap):
    m = np.array(margins, np.float32)
    with np.errstate(all="ignore"):
        expected = np.clip(a * m.astype(np.float64) + b, 0, cap)
    assert same(rul_values(m, a, b, cap), expected)


@settings(deadline=None)
@given(st.lists(MARGINS, min_size=1, max_size=5), SCALES, SCALES)
def test_failure_without_knots_is_the_logistic_function(margins, a, b):
    m = np.array(margins, np.float32)
    with np.errstate(all="ignore"):
        expected = 1 / (1 + np.exp(-(a * m.astype(np.float64) + b)))
    found = failure_values(m, a, b, NO_KNOTS)
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    assert np.allclose(found, expected, rtol=3e-7, atol=1e-37, equal_nan=True)


@settings(deadline=None)
@given(
    st.lists(MARGINS, min_size=1, max_size=5),
    st.lists(st.floats(-100, 100, width=16), min_size=1, max_size=9, unique=True),
    st.integers(0, 99),
)
def test_failure_with_knots_interpolates(margins, x, seed):
    knots = np.stack([np.sort(x), np.sort(np.random.default_rng(seed).random(len(x)))], axis=1).astype(np.float32)
    m = np.array([*margins, *knots[:, 0]], np.float32)
    expected = np.interp(m.astype(np.float64), *knots.astype(np.float64).T)
    expected[np.isnan(m)] = np.nan
    assert np.allclose(failure_values(m, 1.0, 0.0, knots), expected, rtol=2e-7, atol=1e-9, equal_nan=True)
    assert same(failure_values(knots[:, 0], 1.0, 0.0, knots), knots[:, 1])


def test_failure_uses_only_its_own_knots():
    knots = np.array([[0, 0.1], [1, 0.2], [0, 0.5], [2, 0.7]], np.float32)
    assert failure_value(np.float32(1), 1.0, 0.0, knots, 2, 4) == np.float32(0.6)
    assert failure_value(np.float32(9), 1.0, 0.0, knots, 0, 2) == np.float32(0.2)
    assert failure_value(np.float32(-9), 1.0, 0.0, knots, 2, 4) == np.float32(0.5)
    assert failure_value(np.float32(0), 1.0, 0.0, knots, 4, 4) == 0.5


@settings(deadline=None)
@given(st.lists(st.tuples(MARGINS, MARGINS), min_size=1, max_size=6), SCALES, SCALES)
def test_anomaly_is_the_root_mean_square_of_finite_residuals(pairs, a, b):
    actual, margin = np.array(pairs, np.float32).T
    with np.errstate(all="ignore"):
        residuals = ((actual.astype(np.float64) - margin - b) * a).astype(np.float32)
        finite = residuals[np.isfinite(residuals)].astype(np.float64)
        expected = np.sqrt(np.sum(finite**2) / len(finite)) if len(finite) else np.nan
    found = anomaly_residuals(np.ascontiguousarray(actual), np.ascontiguousarray(margin), a, b)
    assert same(found, residuals)
    assert np.allclose(anomaly_values(found[None, :]), expected, rtol=2e-7, equal_nan=True)
    assert same(anomaly_value(found), anomaly_values(found[None, :])[0])


def test_known_values():
    assert rul_value(np.float32(10), 2.0, 1.0, 15.0) == 15
    assert rul_value(np.float32(5), 2.0, 1.0, 15.0) == 11
    assert anomaly_values(np.array([[3, np.nan, 4], [np.inf, np.nan, np.nan]], np.float32))[0] == np.float32(12.5**0.5)


def test_every_reason_has_words():
    assert len({why.words() for why in Why}) == len(Why) == 9


def test_the_exponential_is_the_mathematical_one_to_a_unit_in_the_last_place() -> None:
    rng = np.random.default_rng(4)
    edges = [0.0, -0.0, 1.0, -1.0, 709.78, 710.0, -708.5, -744.0, -745.2, -800.0, np.inf, -np.inf]
    for x in [*edges, *rng.uniform(-40, 40, 2_000).tolist(), *rng.uniform(-744, 709, 1_000).tolist()]:
        try:
            expected = math.exp(x)
        except OverflowError:
            expected = math.inf
        found = exponential(x)
        assert found == expected or abs(found - expected) <= 2 * math.ulp(expected), x
    assert math.isnan(exponential(math.nan))
