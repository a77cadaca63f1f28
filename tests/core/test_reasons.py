"""Reasons of answers: contributions of the head that answered, shares of the sensors, the weightiest first."""

from __future__ import annotations

import dataclasses

import numpy as np
import packs
import presses
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wheeltapper.alarms import RAISED
from wheeltapper.forest import margins
from wheeltapper.live import Answers, LiveFleet
from wheeltapper.outputs import anomaly_residual
from wheeltapper.pack import Pack, write_pack
from wheeltapper.reasons import TOP_MAX
from wheeltapper.shapley import contributions
from wheeltapper.spec import features_of
from wheeltapper.wording import feature_in_words, reason_in_words

PACK = Pack.from_bytes(write_pack(presses.content(3)))
FLEET = Pack.from_bytes(write_pack(packs.small_content()))
FAILURE, ANOMALY = 0, 1


def scored(seed: int, rows: int = 30, pack: Pack = PACK) -> tuple[LiveFleet, Answers]:
    """A day of three assets (own head, class head, unknown) in one block, some rows from the future or unknown."""
    fleet = LiveFleet(pack, 1)
    rng = np.random.default_rng(seed)
    places = np.append(fleet.open_assets("press", ["a-1", "a-2", "a-9"]), -1)
    values = rng.normal(30, 30, (rows, 3)).astype(np.float32)
    values[rng.random(values.shape) < 0.1] = np.nan
    times = np.arange(rows) * presses.MINUTE_US
    times[rng.random(rows) < 0.1] = 10**16
    return fleet, fleet.score("press", places[rng.integers(0, 4, rows)], times, values, 10**15, want_features=True)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_all_reasons_of_a_failure_are_the_contributions_of_the_head_that_answered(seed):
    fleet, answers = scored(seed)
    which = np.zeros(answers.values.shape, np.bool_)
    which[:, FAILURE] = True
    why = fleet.reasons("press", answers, TOP_MAX, which)
    found = np.zeros(answers.features.shape)
    found[why.row, why.feature] = why.contribution
    heads = np.where(answers.rows == 0, 3, 0).astype(np.int32)  # a-1, in row 0, has head 3 of its own
    heads[np.isnan(answers.values[:, FAILURE])] = -1
    expected, bias = contributions(PACK.forest, heads, answers.features)
    np.testing.assert_allclose(found, np.nan_to_num(expected), rtol=1e-6)
    there = heads >= 0
    total = margins(PACK.forest, heads, answers.features)[there]
    np.testing.assert_allclose(found[there].sum(axis=1) + bias[there], total, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_reasons_of_an_anomaly_are_its_sensors_and_add_up_to_the_score(seed):
    fleet, answers = scored(seed)
    which = np.zeros(answers.values.shape, np.bool_)
    which[:, ANOMALY] = True
    why = fleet.reasons("press", answers, 5, which)
    last = {f.source: f.index for f in features_of(presses.PRESS) if f.statistic == "last"}
    assert set(why.feature.tolist()) <= {last["force"], last["oil"]}
    for row in np.unique(why.row):
        mine = why.row == row
        assert (np.diff(why.contribution[mine]) <= 0).all()
        assert why.contribution[mine].sum() == pytest.approx(answers.values[row, ANOMALY], rel=1e-5)
        squares = {}
        for slot, sensor in ((1, "force"), (2, "oil")):
            row_of = answers.features[row : row + 1]
            margin = margins(PACK.forest, np.array([slot], np.int32), row_of)[0]
            squares[last[sensor]] = (
                float(anomaly_residual(row_of[0, last[sensor]], margin, *PACK.head_scale[slot])) ** 2
            )
        squares = {feature: square for feature, square in squares.items() if np.isfinite(square)}
        for feature, share in zip(why.feature[mine], why.contribution[mine], strict=True):
            expected = squares[feature] / sum(squares.values()) * answers.values[row, ANOMALY]
            assert share == pytest.approx(expected, rel=1e-5)
    unscored = np.isnan(answers.values[:, ANOMALY])
    assert not np.isin(why.row, np.flatnonzero(unscored)).any()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_the_top_ones_are_the_weightiest_of_all_in_order(seed, top):
    fleet, answers = scored(seed)
    every = np.ones(answers.values.shape, np.bool_)
    whole, few = fleet.reasons("press", answers, TOP_MAX, every), fleet.reasons("press", answers, top, every)
    pairs = list(zip(whole.row.tolist(), whole.output.tolist(), strict=True))
    assert pairs == sorted(pairs)
    first = [i for i, pair in enumerate(pairs) if i - pairs.index(pair) < top]
    for column, of_all in zip(few, whole, strict=True):
        assert column.tolist() == of_all[first].tolist()
    for pair in set(pairs):
        own = np.abs(whole.contribution[[p == pair for p in pairs]])
        assert (np.diff(own) <= 0).all()
        assert (own > 0).all()


def test_unless_told_otherwise_only_a_raised_alarm_is_explained():
    low = dataclasses.replace(presses.content(3).classes[0].outputs[FAILURE], threshold=0.0, hold=3)
    content = presses.content(3)
    one = dataclasses.replace(content.classes[0], outputs=(low, content.classes[0].outputs[ANOMALY]))
    fleet, answers = scored(1, pack=Pack.from_bytes(write_pack(dataclasses.replace(content, classes=(one,)))))
    why = fleet.reasons("press", answers, 3)
    raised = {tuple(at) for at in np.argwhere(answers.alarms == RAISED).tolist()}
    assert set(zip(why.row.tolist(), why.output.tolist(), strict=True)) == raised
    assert sum(output == FAILURE for _, output in raised) == 3  # one per asset


def test_reasons_need_features_and_a_number_within_bounds():
    fleet, answers = scored(1)
    with pytest.raises(ValueError, match="want_features=True"):
        fleet.reasons("press", answers._replace(features=None), 3)
    for top in (0, TOP_MAX + 1):
        with pytest.raises(ValueError, match=f"expected 1 to 64 reasons, found {top}"):
            fleet.reasons("press", answers, top)


def test_each_pack_is_explained_by_its_own_heads():
    fleet, answers = scored(4)
    every = np.ones(answers.values.shape, np.bool_)
    before = fleet.reasons("press", answers, 3, every)
    fleet.swap(Pack.from_bytes(write_pack(presses.content(8))), 2)
    after = fleet.reasons("press", answers, 3, every)
    assert before.contribution.tolist() != after.contribution.tolist()
    fleet.swap(PACK, 3)
    assert fleet.reasons("press", answers, 3, every).contribution.tolist() == before.contribution.tolist()


def test_where_no_head_answers_there_is_no_reason():
    content = packs.small_content()
    nobody = dataclasses.replace(content.classes[0], heads=(-1, 1), golden_heads=None, golden_rows=None)
    without = Pack.from_bytes(write_pack(dataclasses.replace(content, classes=(nobody, content.classes[1]))))
    fleet = LiveFleet(FLEET, 1)
    block = "pump", fleet.open_assets("pump", ["stranger"]), np.array([0]), np.ones((1, 3), np.float32), 10**15
    every = np.ones((1, 2), np.bool_)
    answers = fleet.score(*block, want_features=True)
    assert set(fleet.reasons("pump", answers, 3, every).output.tolist()) == {0, 1}
    fleet.swap(without, 2)
    assert set(fleet.reasons("pump", answers, 3, every).output.tolist()) == {1}
    assert set(fleet.reasons("pump", fleet.score(*block, want_features=True), 3, every).output.tolist()) == {1}


def test_features_and_reasons_have_words():
    for one in (presses.PRESS, *(known.spec for known in FLEET.classes)):
        for feature in features_of(one):
            words = feature_in_words(feature.name, feature.source, feature.statistic)
            assert feature.source.replace("_", " ") in words
            assert "(" not in words
    assert feature_in_words("slope(oil_pressure, 24h)", "oil_pressure", "slope") == "slope of oil pressure over 24h"
    since = "hours since(maintenance:seal)", "maintenance:seal", "since"
    assert feature_in_words(*since) == "hours since maintenance:seal"
    reason = "slope(oil, 24h)", "oil", "slope"
    assert reason_in_words(*reason, 0.4) == "slope of oil over 24h pushes it up"
    assert reason_in_words(*reason, -0.4) == "slope of oil over 24h pushes it down"
