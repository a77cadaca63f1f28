"""Figures added up a chunk at a time: what one look at everything would say, however the fleet is cut."""

import dataclasses
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trainer.pumps import HOUR, fleet, pump_spec
from wheeltapper.spec import AlarmSpec, Costs, Target
from wheeltapper_trainer import evaluation, metrics
from wheeltapper_trainer.cases import warnings_of
from wheeltapper_trainer.evaluation import evaluate
from wheeltapper_trainer.job import TEST, VALID, TrainJob
from wheeltapper_trainer.scores import ClassScores
from wheeltapper_trainer.tally import Tally
from wheeltapper_trainer.thresholds import Threshold, thresholds_of

WEEK = 168
COSTS = Costs(missed_failure=100.0, false_alarm=7.0, replacement=20.0)


def spec_of(**alarm):
    """A class with a remaining life, a failure and an anomaly."""
    alarm = AlarmSpec(**{"budget_per_asset_week": 1.0, "hold": 2, "lead_us": 4 * HOUR, **alarm})
    targets = (
        Target("rul", "rul", "bearing", cap=120.0),
        Target("failure", "failure:bearing", "bearing", horizon_us=48 * HOUR, lead_us=12 * HOUR, costs=COSTS),
        Target("anomaly", "anomaly", sensors=("vibration",)),
    )
    return pump_spec(targets=targets, alarm=alarm)


def asset_of(number, part, hours=6 * WEEK):
    """One asset's scores, which know something of its failures; some scores and some truths are missing."""
    random = np.random.default_rng([number, 5])
    times = np.arange(hours, dtype=np.int64) * HOUR
    failures = np.sort(random.choice(hours, int(random.integers(0, 3)), replace=False)) * HOUR
    if number % 2:  # this one fails soon after its last row
        failures = np.append(failures, (hours + 10) * HOUR)
    ahead = np.append(failures, 2 * hours * HOUR)[np.searchsorted(failures, times, side="right")] - times
    life = np.where(ahead > hours * HOUR, np.nan, ahead / HOUR)
    fails = (ahead <= 48 * HOUR).astype(np.float32)
    noise = random.normal(0, 1, (hours, 3))
    values = np.column_stack(
        [
            np.clip(life + 20 * noise[:, 0], 0, 120),
            1 / (1 + np.exp(3 - 2.5 * fails + noise[:, 1])),
            np.abs(noise[:, 2]) + fails,
        ]
    )
    values[random.random(hours) < 0.03] = np.nan
    labels = np.column_stack([np.minimum(life, 120), fails, fails])
    labels[-48:, 1:] = np.nan
    wide = (hours, 3)
    column = values.astype(np.float32)
    return ClassScores(
        asset_ids=np.array([f"a{number:02}"]),
        begin=np.array([0, hours]),
        times=times,
        labels=labels.astype(np.float32),
        raw_labels=np.column_stack([life, fails, fails]).astype(np.float32),
        parts=np.full(wide, part, np.uint8),
        levels=np.zeros(wide, np.uint8),
        values=column,
        class_values=column + np.float32(0.01),
        own_values=column,
        failure_begin=np.array([0, len(failures)]),
        failure_times=failures,
        failure_codes=np.full(len(failures), "bearing"),
        reasons=np.zeros((1, 3), np.uint8),
        tried=np.zeros((1, 3), np.bool_),
        losses=np.zeros((1, 3, 2), np.float32),
    )


def joined(assets):
    """Several assets as one chunk."""
    columns = {
        field.name: np.concatenate([getattr(one, field.name) for one in assets])
        for field in dataclasses.fields(ClassScores)
        if getattr(assets[0], field.name) is not None
    }
    for name in ("begin", "failure_begin"):
        columns[name] = np.cumsum([0, *(int(getattr(one, name)[1]) for one in assets)])
    return ClassScores(**columns)


ASSETS = [asset_of(number, TEST) for number in range(12)]


def document_of(monkeypatch, chunks, spec):
    monkeypatch.setattr(evaluation, "each_scores", lambda *_: iter(chunks))
    monkeypatch.setattr(evaluation, "_features", lambda *_: [])
    job = TrainJob("h", "r", dataclasses.replace(fleet(), classes=(spec,)), (), (("pump", 12),), 7)
    chosen = [
        Threshold("pump", t.name, level, 0.0, 0, 0) for t, level in zip(spec.targets, (30.0, 0.3, 2.5), strict=True)
    ]
    return evaluate(job, [], chosen)


def test_streamed_figures_are_those_of_everything_at_once(monkeypatch):
    spec = spec_of()
    found = document_of(monkeypatch, [joined(ASSETS[:5]), joined(ASSETS[5:])], spec)["classes"][0]["outputs"]
    whole = joined(ASSETS)
    rul, failure = (output["levels"]["answering"] for output in found[:2])
    label, raw, value = whole.labels[:, 0], whole.raw_labels[:, 0], whole.values[:, 0]
    last = whole.begin[1:] - 1
    assert rul["rmse"]["value"] == pytest.approx(metrics.rmse(label, value))
    assert rul["mae"]["value"] == pytest.approx(metrics.mae(label, value))
    assert rul["rmse_raw"]["value"] == pytest.approx(metrics.rmse(raw, value))
    assert rul["rmse_last"]["value"] == pytest.approx(metrics.rmse(label[last], value[last]))
    assert rul["phm08_last_raw"]["value"] == pytest.approx(metrics.phm08(raw[last], value[last]))
    label, value = whole.labels[:, 1], whole.values[:, 1]
    assert failure["brier"]["value"] == pytest.approx(metrics.brier(label, value))
    assert failure["pr_auc"]["value"] == pytest.approx(metrics.pr_auc(label, value), rel=1e-3)
    assert failure["roc_auc"]["value"] == pytest.approx(metrics.roc_auc(label, value), rel=1e-4)
    bins = metrics.calibration_bins(label, value)
    assert failure["calibration_error"]["value"] == pytest.approx(metrics.calibration_error(bins), abs=2e-3)
    for figure in (*rul.values(), *failure.values()):
        if figure["low"] is not None:
            assert figure["low"] <= figure["value"] <= figure["high"]


def test_how_assets_are_cut_changes_no_figure(monkeypatch):
    spec = spec_of(inspections_per_week=3)
    whole = document_of(monkeypatch, [joined(ASSETS)], spec)
    assert document_of(monkeypatch, ASSETS[::-1], spec) == whole
    monkeypatch.setattr("wheeltapper_trainer.figures.SAMPLE_ROWS_MAX", 40)
    few = document_of(monkeypatch, [joined(ASSETS)], spec)
    assert few != whole
    assert document_of(monkeypatch, ASSETS[::-1], spec) == few


def test_a_lead_of_its_own_goes_before_the_classs(monkeypatch):
    spec = spec_of()
    outputs = document_of(monkeypatch, ASSETS, spec)["classes"][0]["outputs"]
    assert [output["lead_required_hours"] for output in outputs] == [4.0, 12.0, 4.0]
    assert min(outputs[1]["lead_hours"]) >= 12


def test_costs_are_what_was_missed_false_and_replaced(monkeypatch):
    spec = spec_of()
    outputs = document_of(monkeypatch, ASSETS, spec)["classes"][0]["outputs"]
    failure = outputs[1]["levels"]["answering"]
    weeks = 12 * (6 * WEEK - 1) / WEEK
    false = failure["false_per_asset_week"]["value"] * weeks
    spent = (
        100 * (failure["failures"]["value"] - failure["warned"]["value"]) + 20 * failure["warned"]["value"] + 7 * false
    )
    assert failure["cost_per_asset_month"]["value"] == pytest.approx(spent / (weeks / 52.1775 * 12))
    assert "cost_per_asset_month" not in outputs[0]["levels"]["answering"]


def spent_at(spec, assets, output, threshold):
    counts = np.zeros(4)
    for one in assets:
        seen = warnings_of(spec, one, output, VALID, threshold)
        counts += [len(seen.lead_us), (seen.lead_us >= 0).sum(), len(seen.case_times), seen.false_cases.sum()]
    return 100 * (counts[0] - counts[1]) + 20 * counts[1] + 7 * counts[3]


def test_a_threshold_by_costs_is_cheaper_than_any_other():
    spec = spec_of()
    assets = [asset_of(number, VALID) for number in range(12)]
    rul, failure, anomaly = thresholds_of(spec, lambda: assets)
    assert (rul.by, failure.by, anomaly.by) == ("budget", "costs", "budget")
    cheapest = spent_at(spec, assets, 1, failure.threshold)
    seen = np.concatenate([one.values[:, 1] for one in assets])
    others = np.quantile(seen[np.isfinite(seen)], np.linspace(0.5, 1, 200))
    assert cheapest <= min(spent_at(spec, assets, 1, float(other)) for other in others) * 1.02
    assert cheapest < spent_at(spec, assets, 1, 2.0)  # than never to warn
    assert (rul.threshold, anomaly.threshold) != (failure.threshold, failure.threshold)


@pytest.mark.parametrize(("false_alarm", "raises"), [(0.001, True), (1e9, False)])
def test_dear_false_alarms_silence_an_output_and_cheap_ones_do_not(false_alarm, raises):
    spec = spec_of(costs=Costs(100.0, false_alarm))
    assets = [asset_of(number, VALID) for number in range(6)]
    for one in assets:  # rises every other day, whatever happens
        one.values[:, 2] = np.arange(len(one.values)) % 50
    found = thresholds_of(spec, lambda: assets)[2]
    assert (found.cases_per_asset_week > 0) == raises
    assert (found.warned > 0) == raises


def test_without_a_failure_on_validation_the_budget_stands_in():
    spec = spec_of(costs=COSTS)
    none = {
        "failure_begin": np.zeros(2, np.int64),
        "failure_times": np.empty(0, np.int64),
        "failure_codes": np.empty(0, "U1"),
    }
    assets = [dataclasses.replace(asset_of(number, VALID), **none) for number in range(6)]
    assert {found.by for found in thresholds_of(spec, lambda: assets)} == {"budget"}


def test_an_inspection_takes_the_worst_scores_of_each_week():
    week, score = np.array([1, 0, 0, 1, 0, 1]), np.array([1, 3, 2, 3, 1, 3], np.float32)
    assert metrics.inspected(week, score, 1).tolist() == [False, True, False, True, False, False]
    assert metrics.inspected(week, score, 2).tolist() == [False, True, True, True, False, True]
    assert metrics.inspected(week, score, 9).all()
    assert metrics.inspected(week[:0], score[:0], 1).tolist() == []


@pytest.mark.parametrize("inspections", [1, 4])
def test_precision_of_inspections_is_counted_week_by_week(monkeypatch, inspections):
    """The slow way: at the end of each week the assets with the highest last score, and whether they fail then."""
    spec = spec_of(inspections_per_week=inspections)
    output = document_of(monkeypatch, ASSETS, spec)["classes"][0]["outputs"][1]
    monday = 4 * 24  # 1970 began on a Thursday
    found = []
    for begin in range(monday - WEEK, 6 * WEEK, WEEK):
        last = []
        for one in ASSETS:
            rows = np.arange(max(begin, 0), min(begin + WEEK, 6 * WEEK))
            rows = rows[np.isfinite(one.values[rows, 1]) & np.isfinite(one.labels[rows, 1])]
            if len(rows):
                last.append((-one.values[rows[-1], 1], one.asset_ids[0], one.labels[rows[-1], 1]))
        found += [failed for _, _, failed in sorted(last)[:inspections]]
    assert output["inspections_per_week"] == inspections
    assert output["levels"]["answering"]["inspection_precision"]["value"] == pytest.approx(np.mean(found))


@pytest.mark.parametrize("stage", ["thresholds", "evaluation"])
def test_memory_does_not_grow_with_the_fleet(monkeypatch, stage):
    spec = spec_of()

    part = VALID if stage == "thresholds" else TEST

    def one_of(number):
        """As few different scores as calibrated probabilities are, so that the tally is full from the start."""
        one = asset_of(number, part, 30 * WEEK)
        return dataclasses.replace(
            one, values=(few := np.round(one.values * 64) / 64), class_values=few, own_values=one.own_values * 0
        )

    def fleet_of(chunks):
        return lambda *_: map(one_of, range(chunks))

    def peak(chunks):
        tracemalloc.start()
        if stage == "thresholds":
            thresholds_of(spec, fleet_of(chunks))
        else:
            document_of(monkeypatch, fleet_of(chunks)(), spec)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    monkeypatch.setattr("wheeltapper_trainer.figures.SAMPLE_ROWS_MAX", 500)
    peak(1)  # what is compiled and imported once
    assert peak(12) < 1.3 * peak(3)


FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(FLOATS, st.sampled_from([0.0, 1.0, float("nan")])), max_size=40), st.integers(0, 40))
def test_a_tally_is_the_same_however_it_is_fed(rows, cut):
    scores, labels = (np.array([row[i] for row in rows], np.float32) for i in (0, 1))
    at_once, in_two = Tally(), Tally()
    at_once.add(scores, labels)
    in_two.add(scores[cut:], labels[cut:])
    in_two.add(scores[:cut], labels[:cut])
    for name in ("rows", "hits", "low", "high"):
        np.testing.assert_array_equal(getattr(at_once, name), getattr(in_two, name))
    known = np.isfinite(scores) & np.isfinite(labels)
    assert (at_once.rows.sum(), at_once.hits.sum()) == (known.sum(), (labels[known] == 1).sum())
    assert all(high < low for high, low in zip(at_once.high, at_once.low[1:], strict=False))
    for low, high in zip(at_once.low.astype(float), at_once.high.astype(float), strict=True):
        assert high - low <= max(abs(low), abs(high)) / 8192 + 1e-40


def test_candidates_go_from_the_strictest_to_half_of_all_rows():
    tally = Tally()
    tally.add(np.linspace(0.1, 0.9, 2_000, dtype=np.float32))
    for below, strictest, laxest in ((False, 0.9, 0.5), (True, 0.1, 0.5)):
        found = tally.strictest_first(160, below)
        assert (found[0], found[-1]) == pytest.approx((strictest, laxest), rel=1e-3)
        assert all((b > a) == below for a, b in pairwise(found))
    assert len(Tally().strictest_first(160, False)) == 0
