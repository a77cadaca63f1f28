"""Contributions are Shapley values: those of the definition, in plain Python, and those of XGBoost's pred_contribs."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from packs import random_trees
from wheeltapper.forest import Trees, build_forest, margins, no_trees, plant
from wheeltapper.shapley import contributions, rule_for
from wheeltapper_trainer.boosting import trees_of


def expected_leaf(trees: Trees, tree: int, row: np.ndarray, known: set[int]) -> float:
    """A tree's answer where only the features in `known` are: both children of every other split, by their cover."""
    begin, end = trees.begin[tree], trees.begin[tree + 1]
    nodes, cover, features = trees.nodes[begin:end], trees.cover[begin:end].astype(float), len(row)

    def below(at: int) -> float:
        node = nodes[at]
        if node["feature"] == 2 * features:
            return float(node["value"])
        default_left, feature = divmod(int(node["feature"]), features)
        left = int(node["left"])
        if feature not in known:
            return (below(left) * cover[left] + below(left + 1) * cover[left + 1]) / cover[at]
        goes_left = bool(default_left) if np.isnan(row[feature]) else row[feature] < node["value"]
        return below(left if goes_left else left + 1)

    return below(0)


def by_definition(trees: Trees, row: np.ndarray) -> np.ndarray:
    """Shapley values by their definition: over all subsets of the other features; 2^F evaluations of every tree."""
    features = len(row)
    found = np.zeros(features)
    for tree in range(len(trees.depth)):
        worth = {
            subset: expected_leaf(trees, tree, row, set(subset))
            for size in range(features + 1)
            for subset in combinations(range(features), size)
        }
        for feature in range(features):
            for subset, value in worth.items():
                if feature in subset:
                    continue
                weight = math.factorial(len(subset)) * math.factorial(features - len(subset) - 1)
                joined = tuple(sorted((*subset, feature)))
                found[feature] += weight / math.factorial(features) * (worth[joined] - value)
    return found


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    features=st.integers(1, 5),
    splits=st.sampled_from([0, 1, 6, 25]),
    never=st.sampled_from([0.0, 0.3]),
)
def test_contributions_are_shapley_values_by_definition(seed, features, splits, never):
    rng = np.random.default_rng(seed)
    trees = random_trees(rng, features, 2, splits)
    cover = trees.cover.copy()
    leaf = trees.nodes["feature"] == 2 * features
    cover[leaf & (rng.random(len(cover)) < never)] = 0.0  # leaves that no training row reached
    trees = trees._replace(cover=cover)
    forest = build_forest([(trees, -1, 0.5)])
    rows = rng.normal(size=(3, features)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.2] = np.nan
    found, bias = contributions(forest, np.zeros(3, np.int32), rows)
    for row, values, mean in zip(rows, found, bias, strict=True):
        assert values == pytest.approx(by_definition(trees, row), abs=1e-9)
        empty = sum(expected_leaf(trees, tree, row, set()) for tree in range(len(trees.depth)))
        assert mean == pytest.approx(0.5 + empty, abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    depth=st.integers(1, 10),
    rounds=st.integers(1, 12),
    features=st.integers(1, 12),
    missing=st.sampled_from([0.0, 0.2, 0.95]),
    objective=st.sampled_from(["reg:squarederror", "binary:logistic"]),
    gamma=st.sampled_from([0.0, 1.0, 1e9]),
    more=st.integers(0, 6),
)
def test_contributions_are_xgboosts(seed, depth, rounds, features, missing, objective, gamma, more):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(int(rng.integers(2, 500)), features)).astype(np.float32)
    rows[rng.random(rows.shape) < missing] = np.nan
    label = (np.nan_to_num(rows).sum(axis=1) + rng.normal(size=len(rows))).astype(np.float32)
    if objective == "binary:logistic":
        label = (label > 0.3).astype(np.float32)
    parameters = {
        "objective": objective, "max_depth": depth, "gamma": gamma, "eta": 0.3, "seed": seed % 1000, "nthread": 1,
        "min_child_weight": 0.0, "subsample": 0.7, "base_score": 0.5,
    }  # fmt: skip
    matrix = xgboost.DMatrix(rows, label, nthread=1)
    first = xgboost.train(parameters, matrix, rounds)
    booster = xgboost.train(parameters, matrix, more, xgb_model=first) if more else first
    every = trees_of(booster, features)
    cut = int(every.begin[rounds])
    own = Trees(every.nodes[cut:], every.begin[rounds:] - cut, every.depth[rounds:], every.cover[cut:])
    base = 0.5 if objective == "reg:squarederror" else 0.0
    forest = build_forest([(trees_of(first, features), -1, base), (own, 0, 0.0)])
    heads = np.ones(len(rows), np.int32)
    found, bias = contributions(forest, heads, rows)
    said = booster.predict(matrix, pred_contribs=True)
    np.testing.assert_allclose(found, said[:, :-1], atol=1e-4)
    np.testing.assert_allclose(bias, said[:, -1], atol=1e-4)
    np.testing.assert_allclose(found.sum(axis=1) + bias, margins(forest, heads, rows), atol=1e-4)


def comb(depth: int, features: int, rng: np.random.Generator) -> Trees:
    """One tree in which every split has a leaf on a side: as deep as there are splits."""
    size = 2 * depth + 1
    left, right = np.full(size, -1, np.int32), np.full(size, -1, np.int32)
    inner = np.arange(depth) * 2
    left[inner], right[inner] = inner + 1, inner + 2
    cover = np.zeros(size)
    cover[0] = 1e6
    for at in inner:
        share = rng.uniform(0.01, 0.2)
        cover[at + 1], cover[at + 2] = share * cover[at], (1 - share) * cover[at]
    return plant(
        np.array([0, size]),
        left,
        right,
        rng.permutation(np.arange(size) % features).astype(np.int32),
        rng.normal(size=size).astype(np.float32),
        rng.random(size) < 0.5,
        cover.astype(np.float32),
        features,
    )


@pytest.mark.parametrize(("depth", "features"), [(8, 9), (9, 20), (40, 100), (255, 3), (255, 600)])
def test_deep_trees_add_up(depth, features):
    rng = np.random.default_rng(depth)
    forest = build_forest([(comb(depth, features, rng), -1, 0.0)])
    rows = rng.normal(-1.0, 2.0, size=(20, features)).astype(np.float32)
    heads = np.zeros(20, np.int32)
    found, bias = contributions(forest, heads, rows)
    assert len(rule_for(forest).point) >= depth / 2
    np.testing.assert_allclose(found.sum(axis=1) + bias, margins(forest, heads, rows), atol=1e-6)


def test_features_that_no_tree_asks_are_worth_nothing():
    rng = np.random.default_rng(2)
    trees = random_trees(rng, 3, 6)
    asked = set((trees.nodes["feature"][trees.nodes["feature"] < 6] % 3).tolist())
    found, _ = contributions(build_forest([(trees, -1, 0.0)]), np.zeros(9, np.int32), rng.normal(size=(9, 3)))
    assert set(np.flatnonzero(found.any(axis=0)).tolist()) <= asked


def test_a_head_without_trees_is_its_bias_and_no_head_is_nan():
    forest = build_forest([(no_trees(), -1, 2.5)])
    found, bias = contributions(forest, np.array([0, -1], np.int32), np.zeros((2, 3), np.float32))
    assert found[0].tolist() == [0, 0, 0]
    assert bias[0] == 2.5
    assert np.isnan(found[1]).all()
    assert np.isnan(bias[1])


def test_contributions_refuse_what_would_read_elsewhere():
    forest = build_forest([(random_trees(np.random.default_rng(1), 4, 2), -1, 0.0)])
    with pytest.raises(ValueError, match="expected rows of 4 features, found 3"):
        contributions(forest, np.zeros(1, np.int32), np.zeros((1, 3), np.float32))
    with pytest.raises(ValueError, match="expected heads from -1 to 0"):
        contributions(forest, np.ones(1, np.int32), np.zeros((1, 4), np.float32))
