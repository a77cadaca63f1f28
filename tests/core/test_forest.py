"""The only correct margin is XGBoost's: every comparison here is of bits, not of distances."""

from __future__ import annotations

import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from packs import random_trees
from wheeltapper.forest import NODE, build_forest, join, margins, no_trees, plant
from wheeltapper_trainer.boosting import trees_of

SUBNORMAL = np.float32(1e-42)


def bits(values: np.ndarray) -> list[int]:
    return np.ascontiguousarray(values, np.float32).view(np.uint32).tolist()


def base_of(booster: xgboost.Booster, objective: str, base_score: str) -> np.float32:
    """What a booster of no trees answers: XGBoost's own conversion of its base score into a margin."""
    one = xgboost.DMatrix(np.zeros((1, 1), np.float32), label=[0], nthread=1)
    empty = xgboost.train({"objective": objective, "base_score": base_score, "nthread": 1}, one, 0)
    return empty.predict(one, output_margin=True)[0]


def base_score_of(booster: xgboost.Booster) -> str:
    import json

    text = json.loads(booster.save_config())["learner"]["learner_model_param"]["base_score"]
    return text.strip("[]")  # a list since XGBoost 3.1


def awkward_rows(trees_nodes: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Training rows, rows that sit on thresholds and one step beside them, missing, signed zeros, subnormals."""
    features = rows.shape[1]
    thresholds = trees_nodes["value"][trees_nodes["feature"] < 2 * features][:20]
    edges = np.concatenate(
        [thresholds, np.nextafter(thresholds, np.float32(-np.inf)), [0.0, -0.0, SUBNORMAL, -SUBNORMAL]]
    )
    on_edges = np.repeat(edges.astype(np.float32)[:, None], features, axis=1)
    mixed = np.where(np.arange(features) % 2 == 0, on_edges, np.float32(np.nan))
    return np.concatenate([rows[:100], on_edges, mixed, np.full((1, features), np.nan, np.float32)])


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    depth=st.integers(1, 10),
    rounds=st.integers(1, 23),
    features=st.integers(1, 9),
    missing=st.sampled_from([0.0, 0.2, 0.95]),
    exponent=st.sampled_from([-38, -3, 0, 6, 30]),
    objective=st.sampled_from(["reg:squarederror", "binary:logistic"]),
    gamma=st.sampled_from([0.0, 1.0, 1e9]),
    more=st.integers(0, 9),
)
def test_margin_is_xgboosts(seed, depth, rounds, features, missing, exponent, objective, gamma, more):
    rng = np.random.default_rng(seed)
    rows = (rng.normal(size=(int(rng.integers(2, 400)), features)) * 10.0**exponent).astype(np.float32)
    rows[rng.random(rows.shape) < missing] = np.nan
    label = (np.nan_to_num(rows[:, 0]) / 10.0**exponent + rng.normal(size=len(rows))).astype(np.float32)
    if objective == "binary:logistic":
        label = (label > 0.3).astype(np.float32)
    parameters = {
        "objective": objective, "max_depth": depth, "gamma": gamma, "eta": 0.3, "seed": seed % 1000, "nthread": 1,
        "min_child_weight": 0.0, "subsample": 0.7,
    }  # fmt: skip
    matrix = xgboost.DMatrix(rows, label, nthread=1)
    first = xgboost.train(parameters, matrix, rounds)
    # A continued booster: one chain of trees to XGBoost, two heads to us.
    booster = xgboost.train(parameters, matrix, more, xgb_model=first) if more else first
    every = trees_of(booster, features)
    base = base_of(booster, objective, base_score_of(booster))
    cut = int(every.begin[rounds])
    child = (every.nodes[cut:], every.begin[rounds:] - cut, every.depth[rounds:], every.cover[cut:])
    forest = build_forest([(trees_of(first, features), -1, base), (type(every)(*child), 0, 0.0)])
    asked = awkward_rows(every.nodes, rows)
    found = margins(forest, np.ones(len(asked), np.int32), asked)
    expected = booster.predict(xgboost.DMatrix(asked, nthread=1), output_margin=True)
    assert bits(found) == bits(expected)
    infinite = asked[: features + 1].copy()
    infinite[infinite > 0] = np.inf
    infinite[infinite < 0] = -np.inf
    found = margins(forest, np.ones(len(infinite), np.int32), infinite)
    assert bits(found) == bits(booster.inplace_predict(infinite, predict_type="margin"))


def walk(nodes: np.ndarray, row: np.ndarray) -> np.float32:
    """One tree in plain Python, by the page docs/pack-v1.md."""
    features = len(row)
    at = 0
    while nodes[at]["feature"] < 2 * features:
        node = nodes[at]
        default_left, column = divmod(int(node["feature"]), features)
        left = bool(default_left) if np.isnan(row[column]) else row[column] < node["value"]
        at = int(node["left"]) + (0 if left else 1)
    return nodes[at]["value"]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 9), min_size=1, max_size=4))
def test_chain_of_heads_adds_parents_first(seed, sizes):
    rng = np.random.default_rng(seed)
    features = int(rng.integers(1, 6))
    parts = [random_trees(rng, features, size, 7) for size in sizes]
    base = np.float32(rng.normal())
    forest = build_forest([(part, number - 1, base + number) for number, part in enumerate(parts)])
    rows = rng.normal(size=(8, features)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.3] = np.nan
    for head in range(len(parts)):
        for row, found in zip(rows, margins(forest, np.full(8, head, np.int32), rows), strict=True):
            total = base
            for part in parts[: head + 1]:
                for a, b in zip(part.begin, part.begin[1:], strict=False):
                    total = np.float32(total + walk(part.nodes[a:b], row))
            assert bits(found) == bits(total)


@pytest.mark.parametrize("count", range(32))
def test_each_tree_of_a_head_is_added_once_and_none_of_its_neighbours(count):
    rng = np.random.default_rng(count)
    parts = [random_trees(rng, 3, size, 5) for size in (2, count, 2)]
    forest = build_forest([(part, -1, 0.25) for part in parts])
    rows = rng.normal(size=(5, 3)).astype(np.float32)
    for row, found in zip(rows, margins(forest, np.ones(5, np.int32), rows), strict=True):
        total = np.float32(0.25)
        for a, b in zip(parts[1].begin, parts[1].begin[1:], strict=False):
            total = np.float32(total + walk(parts[1].nodes[a:b], row))
        assert bits(found) == bits(total)


def test_plant_puts_children_side_by_side_and_drops_what_no_path_reaches():
    # Node 1 is deleted (pruned); children of 0 are 4 and 2, not neighbours.
    trees = plant(
        np.array([0, 5]),
        np.array([4, -1, -1, -1, -1], np.int32),
        np.array([2, -1, -1, -1, -1], np.int32),
        np.array([1, 0, 0, 0, 0], np.int32),
        np.array([0.5, 9, 2, 9, 4], np.float32),
        np.array([True, False, False, False, False]),
        np.array([7, 9, 5, 9, 2], np.float32),
        3,
    )
    assert trees.cover.tolist() == [7, 2, 5]
    assert trees.nodes.tolist() == [(0.5, 3 + 1, 1), (4.0, 6, 1), (2.0, 6, 2)]
    assert trees.begin.tolist() == [0, 3]
    assert trees.depth.tolist() == [1]


def test_node_is_eight_bytes():
    assert NODE.itemsize == 8


def test_join_keeps_order():
    rng = np.random.default_rng(3)
    parts = [random_trees(rng, 4, n) for n in (2, 0, 3)]
    whole = join(parts)
    assert whole.begin.tolist()[-1] == len(whole.nodes) == sum(len(p.nodes) for p in parts)
    assert np.array_equal(whole.nodes[whole.begin[2] :], parts[2].nodes)
    assert np.array_equal(whole.cover[whole.begin[2] :], parts[2].cover)
    assert len(join([]).depth) == 0


def test_no_trees_is_the_base_and_no_head_is_nan():
    forest = build_forest([(no_trees(), -1, 2.5)])
    found = margins(forest, np.array([0, -1], np.int32), np.zeros((2, 3), np.float32))
    assert found[0] == 2.5
    assert np.isnan(found[1])


@pytest.mark.parametrize(
    ("heads", "rows", "words"),
    [
        ([1], (1, 2), "expected heads from -1 to 0, found 1"),
        ([-2], (1, 2), "found -2"),
        ([0, 0], (1, 2), "one head per row"),
    ],
)
def test_margins_refuse_what_would_read_elsewhere(heads, rows, words):
    forest = build_forest([(no_trees(), -1, 2.5)])
    with pytest.raises(ValueError, match=words):
        margins(forest, np.array(heads, np.int32), np.zeros(rows, np.float32))


def test_margins_refuse_rows_of_another_width():
    rng = np.random.default_rng(1)
    forest = build_forest([(random_trees(rng, 4, 2), -1, 0.0), (no_trees(), 0, 0.0)])
    for head in (0, 1):
        with pytest.raises(ValueError, match="expected rows of 4 features, found 3"):
            margins(forest, np.array([head], np.int32), np.zeros((1, 3), np.float32))


def test_a_parent_stands_before_its_child():
    with pytest.raises(ValueError, match="head 0: expected a parent before it"):
        build_forest([(no_trees(), 0, 0.0)])


@pytest.mark.parametrize(
    ("count", "value", "words"), [(0, 1.0, "features"), (40_000, 1.0, "features"), (2, np.nan, "finite")]
)
def test_plant_refuses_what_the_layout_cannot_hold(count, value, words):
    one = np.array([-1], np.int32)
    with pytest.raises(ValueError, match=words):
        plant(
            np.array([0, 1]),
            one,
            one,
            np.zeros(1, np.int32),
            np.array([value], np.float32),
            np.zeros(1, bool),
            np.ones(1, np.float32),
            count,
        )


def test_plant_refuses_a_tree_of_too_many_nodes():
    size = 65_537
    none = np.full(size, -1, np.int32)
    zero = np.zeros(size, np.int32)
    floats = zero.astype(np.float32)
    with pytest.raises(ValueError, match="at most 65535 nodes"):
        plant(np.array([0, size]), none, none, zero, floats, zero.astype(bool), floats, 2)
