"""A head is fitted by XGBoost, leaves as plain arrays, and scores the same bits on both sides."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import xgboost
from wheeltapper.errors import CommandError, Refused
from wheeltapper.forest import build_forest, margins
from wheeltapper.spec import ModelSpec
from wheeltapper_trainer import boosting
from wheeltapper_trainer.boosting import Check, Model, base_margin, fit, trees_of
from wheeltapper_trainer.ubjson import read_ubjson

SPEC = ModelSpec(rounds=12, asset_rounds=5, max_depth=4, eta=0.2)


def rows_of(seed: int, count: int = 600, features: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, features)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.1] = np.nan
    label = np.nan_to_num(rows[:, 0]) * 2 + np.nan_to_num(rows[:, 5]) + rng.normal(size=count) * 0.1
    return rows, label.astype(np.float32)


def scored(model: Model, rows: np.ndarray) -> np.ndarray:
    """The margin by our walk, through the chain of heads."""
    chain = [model]
    while chain[0].parent is not None:
        chain.insert(0, chain[0].parent)
    forest = build_forest([(one.added_trees(), i - 1, one.base) for i, one in enumerate(chain)])
    return margins(forest, np.full(len(rows), len(chain) - 1, np.int32), rows)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype == np.float32 and np.array_equal(a.view(np.uint32), b.view(np.uint32))


@pytest.mark.parametrize("objective", ["squared", "logistic"])
@pytest.mark.parametrize("columns", [None, [5, 0, 3]])
def test_a_continued_head_scores_the_same_bits_by_our_walk(objective, columns):
    rows, label = rows_of(1)
    if objective == "logistic":
        label = (label > 1).astype(np.float32)
    above = fit(rows[:300], label[:300], SPEC, objective=objective, seed=3)
    own = fit(rows[300:], label[300:], SPEC, objective=objective, seed=4, continues=above, columns=columns)
    asked = np.concatenate([rows, np.full((1, 8), np.nan, np.float32)])
    for model in (above, own):
        assert same_bits(scored(model, asked), model.margins(asked))
    assert (above.rounds, own.rounds) == (12, 5)
    assert len(own.trees().depth) == 17
    assert len(own.added_trees().depth) == 5
    assert not np.array_equal(own.margins(rows), above.margins(rows))
    used = set((own.added_trees().nodes["feature"][own.added_trees().nodes["feature"] < 16] % 8).tolist())
    assert used <= set(range(8) if columns is None else columns)
    assert set(np.flatnonzero(own.gains()).tolist()) == used


def test_continuing_is_xgboosts_own_where_that_is_exact():
    """On a plain DMatrix and without sampling, `xgb_model=` grows the very same trees (decision 5)."""
    rows, label = rows_of(2)
    spec = ModelSpec(rounds=9, asset_rounds=6, max_depth=3, subsample=1.0, colsample_bytree=1.0)
    above = fit(rows[:300], label[:300], spec, objective="squared", seed=1)
    own = fit(rows[300:], label[300:], spec, objective="squared", seed=1, continues=above)
    parameters = boosting._parameters(spec, "squared", 1)
    start = np.full(300, above.base, np.float32)
    exact = xgboost.DMatrix(rows[300:], label[300:], base_margin=start, nthread=1)
    chained = xgboost.train(parameters, exact, 6, xgb_model=above.booster)
    theirs, ours = trees_of(chained[9:], 8), own.added_trees()
    assert np.array_equal(theirs.nodes["feature"], ours.nodes["feature"])
    assert same_bits(theirs.nodes["value"].copy(), ours.nodes["value"].copy())


def test_same_arguments_same_trees_whatever_else_runs():
    rows, label = rows_of(3)
    alone = [fit(rows, label, SPEC, objective="squared", seed=s).trees().nodes.tobytes() for s in range(4)]
    together: dict[int, bytes] = {}

    def work(seed: int) -> None:
        together[seed] = fit(rows, label, SPEC, objective="squared", seed=seed).trees().nodes.tobytes()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[s] for s in range(4)] == alone
    assert len(set(alone)) == 4


def test_bytes_there_and_back():
    rows, label = rows_of(4)
    above = fit(rows, label, SPEC, objective="squared", seed=1)
    own = fit(rows[:99], label[:99], SPEC, objective="squared", seed=2, continues=above, columns=[1, 2])
    back = Model.from_bytes(own.to_bytes())
    assert same_bits(back.margins(rows), own.margins(rows))
    assert back.to_bytes() == own.to_bytes()
    assert np.array_equal(back.trees().nodes, own.trees().nodes)
    assert boosting._generic(back.booster)["nthread"] == "1"


def test_stops_early_at_the_best_round():
    rows, label = rows_of(5, count=200)
    noise = np.random.default_rng(0).normal(size=200).astype(np.float32)
    check = Check(rows, noise, patience=3)
    stopped = fit(rows, label, SPEC, objective="squared", seed=1, rounds=200, check=check)
    assert stopped.rounds < 50
    losses = []
    for rounds in range(1, stopped.rounds + 4):
        model = fit(rows, label, SPEC, objective="squared", seed=1, rounds=rounds)
        losses.append(np.mean((model.margins(rows) - noise) ** 2))
        assert same_bits(model.margins(rows), stopped.margins(rows)) == (rounds == stopped.rounds)
    assert np.argmin(losses) + 1 == stopped.rounds


def test_weights_count():
    rows, label = rows_of(6)
    weight = np.where(label > 0, 5, 1).astype(np.float32)
    plain, weighted = (fit(rows, label, SPEC, objective="squared", seed=1, weight=w) for w in (None, weight))
    assert weighted.base == np.float32(np.average(label.astype(np.float64), weights=weight))
    own = [fit(rows, label, SPEC, objective="squared", seed=1, continues=plain, weight=w) for w in (None, weight)]
    assert not np.array_equal(own[0].margins(rows), own[1].margins(rows))


def test_base_is_the_mean_or_its_log_odds():
    half = np.array([0, 1], np.float32)
    assert base_margin(half, None, "squared") == 0.5
    assert base_margin(half, None, "logistic") == 0
    assert base_margin(half, np.array([3, 1], np.float32), "logistic") == np.float32(np.log(0.25 / 0.75))
    assert np.isfinite(base_margin(np.zeros(5, np.float32), None, "logistic"))


def test_labels_that_never_vary_give_a_finite_head():
    rows, _ = rows_of(7, count=50)
    for objective in ("squared", "logistic"):
        model = fit(rows, np.zeros(50, np.float32), SPEC, objective=objective, seed=1)
        assert np.isfinite(model.margins(rows)).all()
        assert same_bits(scored(model, rows), model.margins(rows))
    none = fit(rows, np.ones(50, np.float32), SPEC, objective="squared", seed=1, rounds=0)
    assert none.margins(rows).tolist() == [1.0] * 50
    assert len(none.trees().depth) == 0


@pytest.mark.parametrize(
    ("rows", "label", "words"),
    [
        (np.zeros((0, 2)), np.zeros(0), "at least one row"),
        (np.zeros((2, 2)), np.array([1, np.nan]), "finite labels"),
        (np.zeros((2, 2)), np.array([0, 2]), "from 0 to 1"),
        (np.full((2, 2), np.inf), np.array([0, 1]), "inf"),
    ],
)
def test_rows_that_cannot_be_learnt_from(rows, label, words):
    with pytest.raises(CommandError, match=words) as refused:
        fit(rows.astype(np.float32), label.astype(np.float32), SPEC, objective="logistic", seed=1)
    assert "\n" not in str(refused.value)


def test_rows_of_another_width_are_refused():
    rows, label = rows_of(8)
    model = fit(rows, label, SPEC, objective="squared", seed=1)
    with pytest.raises(ValueError, match="rows of 8 features"):
        model.margins(rows[:, :7])


@pytest.mark.skipif(xgboost.build_info()["USE_CUDA"], reason="this XGBoost has CUDA")
def test_a_gpu_that_is_not_there_is_refused_before_training():
    rows, label = rows_of(9)
    with pytest.raises(Refused, match="expected an XGBoost with CUDA") as refused:
        fit(rows, label, ModelSpec(device="cuda"), objective="squared", seed=1)
    assert 'device = "cpu"' in refused.value.hint


def test_categorical_splits_are_refused():
    rows = np.random.default_rng(1).integers(0, 6, (300, 1)).astype(np.float32)
    label = np.isin(rows[:, 0], [1, 4]).astype(np.float32)
    matrix = xgboost.DMatrix(rows, label, feature_types=["c"], enable_categorical=True, nthread=1)
    booster = xgboost.train({"max_cat_to_onehot": 1, "nthread": 1}, matrix, 2)
    with pytest.raises(Refused, match="categorical"):
        trees_of(booster, 1)


def test_a_model_holds_no_training_rows():
    rows, label = rows_of(10, count=20_000)
    model = fit(rows, label, SPEC, objective="squared", seed=1)
    assert len(model.to_bytes()) < rows.nbytes / 10


def test_ubjson_reads_what_json_says():
    import json

    rows, label = rows_of(11)
    booster = fit(rows, label, SPEC, objective="squared", seed=1).booster

    def plain(value: object) -> object:
        if isinstance(value, np.ndarray):
            return [float(f"{x:.9g}") for x in value.tolist()] if value.dtype.kind == "f" else value.tolist()
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list) else value

    binary = plain(read_ubjson(bytes(booster.save_raw("ubj")))["learner"]["gradient_booster"])
    text = json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]

    def singles(tree: dict) -> list[bytes]:
        return [
            np.array(tree[name], np.float32).tobytes() for name in ("split_conditions", "base_weights", "sum_hessian")
        ]

    for ours, theirs in zip(binary["model"]["trees"], text["model"]["trees"], strict=True):
        assert singles(ours) == singles(theirs)
        assert ours["left_children"] == theirs["left_children"]
        assert ours["tree_param"] == theirs["tree_param"]
    assert binary["name"] == text["name"]
    with pytest.raises(ValueError, match="UBJSON mark"):
        read_ubjson(b"?")
