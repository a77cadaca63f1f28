"""Thresholds: within the budget, worth their cases, and alarms matched with failures as the definition says."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import beta, chi2
from trainer.pumps import HOUR, pump_spec
from wheeltapper.spec import AlarmSpec, FleetSpec, Gate, Target
from wheeltapper_trainer.bounds import rate_at_most, rates_at_most, share_at_least
from wheeltapper_trainer.cases import WEEK_US, warnings_of
from wheeltapper_trainer.evaluation import evaluate, flat_metrics
from wheeltapper_trainer.gates import gate_results
from wheeltapper_trainer.job import TEST, VALID, Chunk, TrainJob
from wheeltapper_trainer.scores import ClassScores
from wheeltapper_trainer.thresholds import Threshold, thresholds_of

FAILURE = Target("failure", "failure:bearing", "bearing", horizon_us=10 * HOUR)
RUL = Target("rul", "rul", "bearing", cap=50.0)


def choose_threshold(spec, scores, output):
    """`output` of a class whose outputs all have the one column of `scores`."""
    count = len(spec.targets)
    wide = {
        name: np.repeat(getattr(scores, name), count, axis=1)
        for name in ("labels", "raw_labels", "parts", "levels", "values", "class_values", "own_values")
    }
    return thresholds_of(spec, lambda: [dataclasses.replace(scores, **wide)])[output]


def spec_of(target=FAILURE, **alarm):
    settings = {"budget_per_asset_week": 1.0, "hold": 1, "hysteresis": 0.8, "lead_us": 2 * HOUR}
    return pump_spec(targets=(target,), alarm=AlarmSpec(**{**settings, **alarm}))


def scores_of(columns, failures, part=VALID):
    """One output; `columns`: each asset's scores, one an hour; `failures`: each asset's hours of failure."""
    values = np.concatenate([np.asarray(c, np.float32) for c in columns])[:, None]
    lengths, counts = [len(c) for c in columns], [len(f) for f in failures]
    zeros = np.zeros(values.shape, np.uint8)
    return ClassScores(
        asset_ids=np.array([f"a{i}" for i in range(len(columns))]),
        begin=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        times=np.concatenate([np.arange(n, dtype=np.int64) * HOUR for n in lengths]),
        labels=values,
        raw_labels=values,
        parts=zeros + np.uint8(part),
        levels=zeros,
        values=values,
        class_values=values,
        own_values=values,
        failure_begin=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        failure_times=np.concatenate([np.asarray(f, np.float64) * HOUR for f in failures]).astype(np.int64),
        failure_codes=np.full(sum(counts), "bearing"),
        reasons=np.zeros((len(columns), 1), np.uint8),
        tried=np.zeros((len(columns), 1), np.bool_),
        losses=np.zeros((len(columns), 1, 2), np.float32),
    )


def calm(hours, *peaks):
    column = np.zeros(hours, np.float32)
    for at, height in peaks:
        column[at] = height
    return column


@pytest.mark.parametrize(
    ("raised", "lead"),
    [(84, -1), (85, 15), (95, 5), (98, 2), (99, -1), (100, -1)],
    ids=["before 1.5 horizons", "at 1.5 horizons", "in time", "at the lead", "too late", "with the failure"],
)
def test_a_failure_is_warned_of_from_one_and_a_half_horizons_to_the_lead(raised, lead):
    seen = warnings_of(spec_of(), scores_of([calm(200, (raised, 1.0))], [[100]]), 0, VALID, 0.5)
    assert seen.lead_us.tolist() == [lead * HOUR if lead >= 0 else -1]
    assert seen.false_cases.tolist() == [raised < 85]


def test_the_earliest_useful_case_gives_the_lead_and_each_case_is_judged():
    column = calm(200, (20, 1.0), (90, 1.0), (95, 1.0), (150, 1.0))
    seen = warnings_of(spec_of(), scores_of([column], [[100]]), 0, VALID, 0.5)
    assert seen.lead_us.tolist() == [10 * HOUR]
    assert seen.false_cases.tolist() == [True, False, False, True]


def test_only_the_asked_part_code_and_asset_count():
    scores = scores_of([calm(200, (95, 1.0)), calm(200)], [[100], [100]])
    seen = warnings_of(spec_of(), scores, 0, VALID, 0.5)
    assert seen.lead_us.tolist() == [5 * HOUR, -1]
    assert seen.failure_assets.tolist() == [0, 1]
    assert len(warnings_of(spec_of(), scores, 0, TEST, 0.5).lead_us) == 0
    other = dataclasses.replace(FAILURE, code="seal")
    assert len(warnings_of(spec_of(other), scores, 0, VALID, 0.5).lead_us) == 0


def test_low_scores_warn_of_little_life_left():
    column = 50 - calm(200, (95, 45.0))
    seen = warnings_of(spec_of(RUL), scores_of([column], [[100]]), 0, VALID, 10.0)
    assert seen.lead_us.tolist() == [5 * HOUR]


def test_the_budget_binds():
    """Ten assets over a week each, noise with 40 peaks: a budget of 0.3 leaves the three highest."""
    columns = [calm(169, *((10 + 30 * k, 1 + a + k / 10) for k in range(4))) for a in range(10)]
    found = choose_threshold(spec_of(budget_per_asset_week=0.3), scores_of(columns, [[]] * 10), 0)
    assert 0 < found.cases_per_asset_week <= 0.3
    seen = warnings_of(spec_of(), scores_of(columns, [[]] * 10), 0, VALID, found.threshold)
    assert len(seen.case_times) * WEEK_US / seen.observed_us.sum() == pytest.approx(found.cases_per_asset_week)


def test_outputs_share_the_budget():
    columns = [calm(169, *((10 + 30 * k, 1 + a + k / 10) for k in range(4))) for a in range(10)]
    two = pump_spec(targets=(FAILURE, FAILURE), alarm=AlarmSpec(budget_per_asset_week=0.3))
    assert choose_threshold(two, scores_of(columns, [[]] * 10), 0).cases_per_asset_week <= 0.15


def test_failures_are_worth_the_budget_and_noise_is_not():
    """Failures show at 3, noise at 2: warning of all failures needs no more than them."""
    columns = [calm(169, (90, 3.0), (20, 2.0), (140, 2.0)) for _ in range(10)]
    found = choose_threshold(spec_of(budget_per_asset_week=4.0), scores_of(columns, [[100]] * 10), 0)
    assert 2.0 < found.threshold <= 3.0
    assert (found.failures, found.warned) == (10, 10)


def test_a_budget_below_the_strictest_score_still_gives_a_threshold():
    columns = [calm(169, (50, 1.0)) for _ in range(4)]
    found = choose_threshold(spec_of(budget_per_asset_week=0.5), scores_of(columns, [[60]] * 4), 0)
    assert found.threshold > 1.0
    assert (found.cases_per_asset_week, found.failures, found.warned) == (0.0, 4, 0)


def test_hold_is_part_of_the_choice():
    spikes = [calm(169, (30, 5.0), (60, 5.0), (90, 2.0), (91, 2.0), (92, 2.0)) for _ in range(4)]
    found = choose_threshold(spec_of(hold=3, budget_per_asset_week=1.0), scores_of(spikes, [[100]] * 4), 0)
    assert found.threshold <= 2.0
    assert found.warned == 4


def test_nothing_to_score_never_alarms():
    found = choose_threshold(spec_of(), scores_of([np.full(50, np.nan)], [[20]]), 0)
    assert np.isnan(found.threshold)


def test_thresholds_are_float32():
    random = np.random.default_rng(0)
    found = choose_threshold(spec_of(), scores_of([random.random(300)], [[]]), 0)
    assert float(np.float32(found.threshold)) == found.threshold


# What is promised ---


def test_bounds_are_the_exact_ones():
    for count, weeks in ((0, 5.0), (1, 0.5), (7, 10.0), (400, 33.0)):
        spread_evenly = rate_at_most(count, count, max(1, count), weeks)
        assert spread_evenly == pytest.approx(chi2.ppf(0.95, 2 * count + 2) / 2 / weeks)
    for hits, total in ((1, 5), (5, 5), (30, 90)):
        assert share_at_least(hits, total) == pytest.approx(beta.ppf(0.05, hits, total - hits + 1))
    assert share_at_least(0, 4) == 0.0
    assert np.isnan(share_at_least(0, 0))
    assert np.isnan(rate_at_most(0, 0, 0, 0.0))


def test_ten_alarms_of_one_asset_are_one_bad_asset():
    lumped, spread = (rates_at_most(np.array(counts), 10.0) for counts in ([10] + [0] * 9, [1] * 10))
    assert lumped == pytest.approx(10 * chi2.ppf(0.95, 4) / 2 / 10.0)
    assert spread == pytest.approx(chi2.ppf(0.95, 22) / 2 / 10.0)


def restless(random, assets, hours=500):
    """Scores without memory, each asset's at its own level; a failure shows in one reading of the ten hours before."""
    levels = np.exp(0.25 * random.standard_normal(assets))
    columns = [random.exponential(level, hours).astype(np.float32) for level in levels]
    for column in columns:
        column[395] += 3.0
    return scores_of(columns, [[400]] * assets)


def test_the_promise_holds_where_the_rows_that_chose_promise_too_much():
    """Forty small fleets, each threshold then held against what it does on a large one."""
    spec = spec_of(budget_per_asset_week=1.0)
    large = restless(np.random.default_rng(1_000), 100)
    more_alarms = fewer_warned = alarms_kept = warned_kept = 0
    for draw in range(40):
        found = choose_threshold(spec, restless(np.random.default_rng(draw), 8), 0)
        seen = warnings_of(spec, large, 0, VALID, found.threshold)
        rate = len(seen.case_times) * WEEK_US / seen.observed_us.sum()
        share = (seen.lead_us >= 0).mean()
        more_alarms += rate > found.cases_per_asset_week
        fewer_warned += share < found.warned / found.failures
        alarms_kept += rate <= found.promise.cases_per_asset_week_high
        warned_kept += share >= found.promise.warned_share_low
    assert min(more_alarms, fewer_warned) >= 20
    assert min(alarms_kept, warned_kept) >= 36


def test_the_promise_is_counted_on_assets_that_did_not_choose():
    """The asset with the lowest peak is warned of because it was seen: the others' threshold lies above it."""
    columns = [calm(169, (95, 1.0 + a)) for a in range(8)]
    found = choose_threshold(spec_of(budget_per_asset_week=1.5), scores_of(columns, [[100]] * 8), 0)
    assert (found.failures, found.warned) == (8, 8)
    assert found.promise.warned_share_low < share_at_least(8, 8)


def test_how_assets_are_cut_changes_no_promise():
    spec, random = spec_of(budget_per_asset_week=1.0), np.random.default_rng(3)
    whole = restless(random, 6)
    parts = []
    for asset in range(6):
        rows = slice(whole.begin[asset], whole.begin[asset + 1])
        names = ("labels", "raw_labels", "parts", "levels", "values", "class_values", "own_values", "times")
        parts.append(
            dataclasses.replace(
                whole,
                **{name: getattr(whole, name)[rows] for name in names},
                **{
                    name: getattr(whole, name)[asset : asset + 1]
                    for name in ("asset_ids", "reasons", "tried", "losses")
                },
                begin=np.array([0, rows.stop - rows.start]),
                failure_begin=np.array([0, 1]),
                failure_times=whole.failure_times[asset : asset + 1],
                failure_codes=whole.failure_codes[asset : asset + 1],
            )
        )
    assert str(thresholds_of(spec, lambda: parts)) == str(thresholds_of(spec, lambda: [whole]))  # NaN equals itself


def test_one_asset_promises_what_its_own_rows_allow():
    found = choose_threshold(spec_of(), scores_of([calm(169, (95, 3.0))], [[100]]), 0)
    assert found.promise.warned_share_low == share_at_least(1, 1)
    assert found.promise.cases_per_asset_week_high == pytest.approx(chi2.ppf(0.95, 4) / 2, rel=0.01)


def test_a_gate_may_ask_for_what_is_sure(monkeypatch):
    """No false alarm in three asset-weeks is a figure of 0, and no proof of fewer than one a week."""
    columns = [calm(168, (95, 3.0)) for _ in range(3)]
    spec, scores = spec_of(), scores_of(columns, [[100]] * 3, TEST)
    monkeypatch.setattr("wheeltapper_trainer.evaluation.each_scores", lambda *_: [scores])
    monkeypatch.setattr("wheeltapper_trainer.evaluation._features", lambda *_: [])
    gates = tuple(
        Gate("failure:bearing", metric, *bounds)
        for metric, bounds in {
            "false_alarms_per_asset_week": (0.5,),
            "false_alarms_per_asset_week_high": (0.5,),
            "failures_warned_share": (float("inf"), 0.9),
            "failures_warned_share_low": (float("inf"), 0.9),
        }.items()
    )
    fleet = FleetSpec("f", (spec,), gates=gates)
    job = TrainJob("", "", fleet, (), ((spec.name, 3),), 7)
    document = evaluate(job, [Chunk(spec.name, (), 0, "")], [Threshold(spec.name, FAILURE.name, 2.0, 0.0, 0, 0)])
    results = gate_results(fleet, flat_metrics(document))
    assert [gate["passed"] for gate in results] == [True, False, True, False]
    assert document["totals"]["false_alarms_per_asset_week_high"] == pytest.approx(results[1]["found"])
    assert results[1]["found"] == pytest.approx(1.0, rel=0.01)
