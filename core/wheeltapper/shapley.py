"""What each feature adds to a margin: exact path-dependent Shapley values of the forest that answered.

A feature that is left out sends a row down both children of a split, by their shares of the training cover. For one
leaf each feature on its path is then a factor: `hot` where the feature is known (1 if the row passes all of the path's
splits on it, else 0), `share` where it is not (the product of the covers' shares at those splits). Feature i is worth

    leaf · (hot_i − share_i) · ∫₀¹ ∏_{j ≠ i} (t · hot_j + (1 − t) · share_j) dt

(Owen's multilinear extension along its diagonal). The integrand is a polynomial in t of a lower degree than the path
has features, so a Gauss-Legendre rule of half as many points gives it exactly, and one walk down and up a tree serves
all its leaves and features. XGBoost's `pred_contribs=True` says the same, by another algorithm
(docs/decisions/0008-reasons-by-quadrature.md).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wheeltapper.forest import Forest, check_heads, spread
from wheeltapper.kernel import heapless_kernel

LANES = 4  # points that one walk handles: enough for trees of depth 8; deeper ones are walked again
Floats = NDArray[np.float64]


class Rule(NamedTuple):
    """Gauss-Legendre on [0, 1]: q points, a multiple of `LANES`, none at an end. rest: 1 − point."""

    weight: Floats
    point: Floats
    rest: Floats


class Walk(NamedTuple):
    """Working memory of one walk over a tree of up to m nodes. A node's edge is the one that leads to it."""

    down: Floats  # [m, LANES] weight × the factors of the path's features, without the one that is split on here
    up: Floats  # [m, LANES] sum over the leaves below of leaf × what their paths multiply `down` of the node with
    undo: Floats  # [m, LANES] 1 ÷ the factor that the feature split on here had before
    parent: NDArray[np.int32]  # [m]
    feature: NDArray[np.int32]  # [m] split on here
    same: NDArray[np.int32]  # [m] the nearest edge above that split on the same feature; 0: none
    share: Floats  # [m] of the feature of the edge, over all its edges of the path so far
    hot: NDArray[np.bool_]  # [m] likewise


def contributions(forest: Forest, heads: NDArray[np.int32], rows: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """What each feature adds to the margin of head heads[i] for row i, and what the margin is without any.

    heads: int32[n], -1 gives NaN; rows: float32[n, F], NaN where missing. Returns float64[n, F] and float64[n], which
    add up to `margins` but for rounding. Raises ValueError as `margins` does.
    """
    heads, rows = check_heads(forest, heads, rows)
    values, bias = np.empty(rows.shape, np.float64), np.empty(len(heads), np.float64)
    wide = np.empty(2 * rows.shape[1] + 1, np.float32)
    contributions_into(forest, heads, rows, rule_for(forest), walk_for(forest), wide, values, bias)
    return values, bias


def rule_for(forest: Forest) -> Rule:
    """A rule that is exact for every tree of the forest."""
    points = (int(forest.tree_depth.max(initial=1)) + 1) // 2
    return _rule(-(-points // LANES) * LANES)


@lru_cache(maxsize=32)  # depth 255 needs 128 points
def _rule(points: int) -> Rule:
    at, weight = np.polynomial.legendre.leggauss(points)
    return Rule(weight / 2, (1 + at) / 2, (1 - at) / 2)


def walk_for(forest: Forest) -> Walk:
    """Working memory for any tree of the forest."""
    nodes = int(np.diff(forest.tree_begin).max(initial=1))
    return Walk(
        down=np.empty((nodes, LANES)),
        up=np.empty((nodes, LANES)),
        undo=np.empty((nodes, LANES)),
        parent=np.empty(nodes, np.int32),
        feature=np.empty(nodes, np.int32),
        same=np.empty(nodes, np.int32),
        share=np.empty(nodes),
        hot=np.empty(nodes, np.bool_),
    )


@heapless_kernel
def contributions_into(
    forest: Forest,
    heads: NDArray[np.int32],
    rows: NDArray[np.float32],
    rule: Rule,
    walk: Walk,
    wide: NDArray[np.float32],
    values: Floats,
    bias: Floats,
) -> None:
    """The batch driver of `contribute`; unchecked. wide: float32[2 F + 1]; values: float64[n, F]; bias: float64[n]."""
    for i in range(heads.size):
        if heads[i] < 0:
            values[i, :] = np.nan
            bias[i] = np.nan
        else:
            spread(rows[i], wide)
            bias[i] = contribute(forest, heads[i], wide, rule, walk, values[i])


@heapless_kernel
def contribute(forest: Forest, head: int, wide: NDArray[np.float32], rule: Rule, walk: Walk, out: Floats) -> float:
    """Write what each feature adds to the margin of `head` into `out`, float64[F]; returns the margin without any.

    `wide` is the row, spread to float32[2 F + 1].
    """
    out[:] = 0.0
    bias = 0.0
    above = head
    while above >= 0:
        head = above
        for tree in range(forest.head_trees[head, 0], forest.head_trees[head, 1]):
            begin, end = forest.tree_begin[tree], forest.tree_begin[tree + 1]
            nodes, cover = forest.nodes[begin:end], forest.node_cover[begin:end]
            mean = np.float64(nodes[0].value)
            if nodes.size > 1:
                for first in range(0, rule.weight.size, LANES):
                    point, rest = rule.point[first : first + LANES], rule.rest[first : first + LANES]
                    mean = _walk_down(nodes, cover, wide, rule.weight[first : first + LANES], point, rest, walk)
                    _walk_up(nodes, cover, wide, point, rest, walk, out)
            bias += mean
        above = forest.head_parent[head]
    return bias + np.float64(forest.head_base[head])


@heapless_kernel
def _walk_down(
    nodes: NDArray[np.void],
    cover: NDArray[np.float32],
    wide: NDArray[np.float32],
    weight: Floats,
    point: Floats,
    rest: Floats,
    walk: Walk,
) -> np.float64:
    """Fill `walk`, of `up` only the leaves. Returns the tree's mean leaf, weighted by cover."""
    features = wide.size // 2
    down, up, undo, share, hot = walk.down, walk.up, walk.undo, walk.share, walk.hot
    mean = 0.0
    for q in range(LANES):
        down[0, q] = weight[q]
    for i in range(nodes.size):
        node = nodes[i]
        if node.feature == 2 * features:
            mean += np.float64(node.value) * np.float64(cover[i])
            for q in range(LANES):
                up[i, q] = node.value
            continue
        feature = np.int32(node.feature - features if node.feature >= features else node.feature)
        same = i
        while same > 0 and walk.feature[walk.parent[same]] != feature:
            same = walk.parent[same]
        walk.feature[i] = feature
        walk.same[i] = same
        left = np.int64(node.left)
        warm = left + np.int64(not wide[node.feature] < node.value)  # where the row goes
        cold = 2 * left + 1 - warm
        walk.parent[warm] = walk.parent[cold] = i
        before = share[same] if same > 0 else 1.0
        warm_ratio = np.float64(cover[warm]) / np.float64(cover[i])
        cold_ratio = np.float64(cover[cold]) / np.float64(cover[i])
        warm_share, cold_share = before * warm_ratio, before * cold_ratio
        share[warm], share[cold] = warm_share, cold_share
        hot[warm], hot[cold] = same == 0 or hot[same], False
        if not hot[warm]:  # the row left the path at an earlier split on this feature: only shares shrink
            for q in range(LANES):
                down[warm, q] = down[i, q] * warm_ratio
                down[cold, q] = down[i, q] * cold_ratio
            continue
        if same > 0:
            for q in range(LANES):
                undo[i, q] = 1.0 / (point[q] + rest[q] * before)
                down[i, q] *= undo[i, q]
        for q in range(LANES):
            down[warm, q] = down[i, q] * (point[q] + rest[q] * warm_share)
            down[cold, q] = down[i, q] * (rest[q] * cold_share)
    return mean / np.float64(cover[0])


@heapless_kernel
def _walk_up(
    nodes: NDArray[np.void],
    cover: NDArray[np.float32],
    wide: NDArray[np.float32],
    point: Floats,
    rest: Floats,
    walk: Walk,
    out: Floats,
) -> None:
    """Sum up the leaves below each split and credit its feature with what it makes of them, in place of what the same
    feature's earlier split on the path will claim for them."""
    features = wide.size // 2
    down, up, undo = walk.down, walk.up, walk.undo
    for i in range(nodes.size - 1, -1, -1):
        node = nodes[i]
        if node.feature == 2 * features:
            continue
        left = np.int64(node.left)
        warm = left + np.int64(not wide[node.feature] < node.value)
        cold = 2 * left + 1 - warm
        if not walk.hot[warm]:
            for q in range(LANES):
                total = np.float64(cover[warm]) * up[warm, q] + np.float64(cover[cold]) * up[cold, q]
                up[i, q] = total / np.float64(cover[i])
            continue
        same = walk.same[i]
        warm_share, cold_share = walk.share[warm], walk.share[cold]
        claimed = 1.0 - walk.share[same] if same > 0 else 0.0
        credit = 0.0
        for q in range(LANES):
            with_row, without_row = up[warm, q], up[cold, q]
            total = (point[q] + rest[q] * warm_share) * with_row + rest[q] * cold_share * without_row
            if same > 0:
                total *= undo[i, q]
            credit += down[i, q] * ((1.0 - warm_share) * with_row - cold_share * without_row - claimed * total)
            up[i, q] = total
        out[walk.feature[i]] += credit
