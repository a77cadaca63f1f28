"""The alarm state machine, against a slow reading of its own definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wheeltapper.alarms import ACTIVE, CLEARED, NONE, PENDING, RAISED, alarm_states, alarm_step, off_level

NAN = float("nan")


def play(scores, threshold, off, hold=1, below=False, begin=None):
    column = np.asarray(scores, np.float32)
    states = np.full(len(column), 99, np.uint8)
    edges = np.array([0, len(column)] if begin is None else begin, np.int64)
    cases = alarm_states(column, edges, np.float32(threshold), np.float32(off), hold, below, states)
    return list(states), cases


def naive(scores, threshold, off, hold, below):
    """Written from the definition: look back over the finite scores since the last end of an alarm."""
    sign = -1.0 if below else 1.0
    states, since, is_open, previous = [], [], False, NONE
    for score in scores:
        if np.isnan(score):
            previous = ACTIVE if is_open else (NONE if previous == CLEARED else previous)
        elif is_open:
            is_open = not sign * score < sign * off
            previous = ACTIVE if is_open else CLEARED
        else:
            since.append(sign * score >= sign * threshold)
            if len(since) >= hold and all(since[-hold:]):
                is_open, previous, since = True, RAISED, []
            else:
                previous = PENDING if since[-1] else NONE
        states.append(previous)
    return states


def test_a_case_opens_at_the_threshold_and_ends_behind_the_hysteresis():
    states, cases = play([0.1, 0.5, 0.45, 0.4, 0.39, 0.1], threshold=0.5, off=0.4)
    assert states == [NONE, RAISED, ACTIVE, ACTIVE, CLEARED, NONE]
    assert cases == 1


def test_hold_asks_for_consecutive_rows():
    states, cases = play([1, 1, 0, 1, 1, 1, 1], threshold=0.5, off=0.4, hold=3)
    assert states == [PENDING, PENDING, NONE, PENDING, PENDING, RAISED, ACTIVE]
    assert cases == 1


def test_missing_scores_move_nothing():
    states, cases = play([1, NAN, 1, NAN, NAN, 0, NAN], threshold=0.5, off=0.4, hold=2)
    assert states == [PENDING, PENDING, RAISED, ACTIVE, ACTIVE, CLEARED, NONE]
    assert cases == 1


def test_low_scores_alarm_for_remaining_life():
    states, _ = play([100, 20, 24, 25, 26], threshold=20, off=25, below=True)
    assert states == [NONE, RAISED, ACTIVE, ACTIVE, CLEARED]


def test_each_asset_starts_afresh():
    states, cases = play([1, 1, 1, 1], threshold=0.5, off=0.4, hold=2, begin=[0, 1, 1, 4])
    assert states == [PENDING, PENDING, RAISED, ACTIVE]
    assert cases == 1


def test_a_missing_threshold_never_raises():
    assert play([1, 2, 3], threshold=NAN, off=NAN) == ([NONE] * 3, 0)


@pytest.mark.parametrize(("below", "expected"), [(False, 0.4), (True, 0.625)])
def test_off_level(below, expected):
    assert off_level(0.5, 0.8, below) == np.float32(expected)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.one_of(st.just(NAN), st.integers(0, 6).map(float)), max_size=40),
    st.integers(1, 5),
    st.integers(0, 3),
    st.integers(1, 4),
    st.booleans(),
)
def test_the_machine_is_its_definition(scores, threshold, gap, hold, below):
    off = threshold + gap if below else threshold - gap
    states, cases = play(scores, threshold, off, hold, below)
    assert states == naive(scores, threshold, off, hold, below)
    assert cases == states.count(RAISED)


@given(st.lists(st.integers(0, 3).map(float), max_size=30), st.integers(0, 30))
@settings(max_examples=50, deadline=None)
def test_a_column_can_be_cut_anywhere(scores, cut):
    """Row by row with the kept (state, run), as a live stream does, gives the batch's states."""
    whole, _ = play(scores, 2, 1, hold=2)
    state, run, found = NONE, 0, []
    for score in scores:
        state, run = alarm_step(state, run, score, 2.0, 1.0, 2, False)
        found.append(state)
    assert found == whole
