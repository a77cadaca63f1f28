"""What is known about each reading's future: censoring, replacements, caps, and failures of other components."""

import numpy as np
import pytest
from trainer.pumps import HOUR, pump_spec
from wheeltapper.spec import Target
from wheeltapper_trainer.labels import horizon_of, label_column
from wheeltapper_trainer.records import Events

NAN = float("nan")
TEN = np.arange(10, dtype=np.int64) * HOUR
FAILURE = Target("failure", "failure:bearing", "bearing", horizon_us=2 * HOUR)
RUL = Target("rul", "rul", "bearing", cap=4.0)
CODES = frozenset({"bearing", "seal"})


def events(*rows):
    return Events.of_rows([("a", round(hour * HOUR), kind, code) for hour, kind, code in rows])


def labels(target, *rows, spec=None, times=TEN, life_at_end=NAN):
    return label_column(spec or pump_spec(), target, times, events(*rows), CODES, life_at_end).tolist()


def same(found, expected):
    np.testing.assert_array_equal(np.array(found, np.float32), np.array(expected, np.float32))


def test_failure_is_positive_within_the_horizon_and_not_at_its_own_time():
    same(labels(FAILURE, (5, "failure", "bearing")), [0, 0, 0, 1, 1, 0, 0, 0, NAN, NAN])


def test_the_end_of_data_is_censored_not_negative():
    same(labels(FAILURE), [0] * 8 + [NAN, NAN])


def test_a_failure_behind_the_last_reading_still_counts():
    same(labels(FAILURE, (10, "failure", "bearing")), [0] * 8 + [1, 1])


def test_a_replacement_hides_the_future_and_is_no_failure():
    same(labels(FAILURE, (5, "maintenance", "bearing")), [0, 0, 0, 0, NAN, 0, 0, 0, NAN, NAN])


def test_a_replacement_before_a_failure_ends_the_life_unknown():
    found = labels(FAILURE, (4, "maintenance", "bearing"), (5, "failure", "bearing"))
    same(found, [0, 0, 0, NAN, 1, 0, 0, 0, NAN, NAN])


def test_a_repair_at_the_failures_own_time_does_not_hide_it():
    found = labels(FAILURE, (5, "failure", "bearing"), (5, "maintenance", "bearing"))
    assert found[3:5] == [1, 1]


def test_other_components_do_not_count():
    same(labels(FAILURE, (5, "failure", "seal"), (3, "maintenance", "seal")), [0] * 8 + [NAN, NAN])


def test_any_code_takes_every_component_that_ever_failed():
    anything = Target("failure", "failure", horizon_us=2 * HOUR)
    assert labels(anything, (5, "failure", "seal"))[3:5] == [1, 1]
    assert labels(anything, (5, "maintenance", "oil"))[4] == 0


def test_rul_counts_down_to_the_failure_from_its_cap():
    same(labels(RUL, (6, "failure", "bearing")), [4, 4, 4, 3, 2, 1] + [NAN] * 4)


def test_rul_is_its_cap_where_life_was_seen_to_last_that_long():
    same(labels(RUL), [4] * 6 + [NAN] * 4)
    same(labels(RUL, (5, "maintenance", "bearing")), [4, 4] + [NAN] * 3 + [4] + [NAN] * 4)


def test_a_disclosed_life_labels_the_end():
    same(labels(RUL, life_at_end=1.0), [4] * 7 + [3, 2, 1])


def test_readings_are_counted_where_a_slot_is_a_reading():
    spec = pump_spec(cadence_us=0)
    target = Target("rul", "rul", "bearing", cap=3.0)
    uneven = np.array([0, 1, 5, 6, 20, 21], np.int64) * HOUR
    same(labels(target, (20, "failure", "bearing"), spec=spec, times=uneven), [3, 3, 2, 1, NAN, NAN])
    # a failure between two readings: the life of the reading before it is over with that reading
    same(labels(target, (6.5, "failure", "bearing"), spec=spec, times=uneven), [3, 2, 1, 0, NAN, NAN])


def test_an_anomaly_looks_as_far_as_the_longest_failure_horizon():
    spec = pump_spec()
    assert horizon_of(spec, spec.targets[2]) == 48 * HOUR
    alone = pump_spec(targets=(Target("anomaly", "anomaly", sensors=("vibration",)),))
    assert horizon_of(alone, alone.targets[0]) == 0
    same(labels(alone.targets[0], spec=alone), [0] * 10)


@pytest.mark.parametrize("target", [FAILURE, RUL])
def test_no_readings_no_labels(target):
    assert labels(target, (1, "failure", "bearing"), times=np.empty(0, np.int64)) == []
