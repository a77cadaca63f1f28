"""Ten trees walked abreast: the inner loop of every margin.

A step waits for the one before it (node, value, comparison, next node: 18 to 20 cycles), so trees that do not wait for
one another are walked together. A node is loaded as one word and taken apart in registers: with a load for each of its
fields, the places of ten trees no longer fitted into registers, and eight left the processor waiting. Ten, and not
twelve, because people ask for round numbers of trees.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wheeltapper.kernel import inline_kernel, merged_kernel
from wheeltapper.memory import LINE, prefetch

ABREAST = 10  # trees that are walked together, and how many trees ahead memory is asked for
_FETCH_BYTES_MAX = 16_384  # asked for at once; more would push out of the nearest cache what is about to be read


@inline_kernel
def fetch_trees(nodes: NDArray[np.void], begin: NDArray[np.int64], first: np.uint64, end: np.uint64) -> None:
    """Ask for the nodes of trees first..end, without waiting. Trees stand in the order in which they are walked."""
    byte = begin[first] * 8
    stop = min(begin[end] * 8, byte + _FETCH_BYTES_MAX)
    while byte < stop:
        prefetch(nodes, byte)
        byte += LINE


@inline_kernel
def add_trees(
    nodes: NDArray[np.void],
    begin: NDArray[np.int64],
    depth: NDArray[np.uint8],
    first: np.uint64,
    end: np.uint64,
    wide: NDArray[np.float32],
    total: np.float32,
    far: bool,
) -> np.float32:
    """`total` and the leaves of trees first..end, added one after another; arrays as in `forest.Forest`.

    far: ask memory for the next ten while these are walked. Places are unsigned: for signed ones every step would ask
    whether it counts from the array's end.
    """
    words = nodes.view(np.uint64)
    n1, n2, n3, n4, n5 = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4), np.uint64(5)
    n6, n7, n8, n9, ten = np.uint64(6), np.uint64(7), np.uint64(8), np.uint64(9), np.uint64(ABREAST)
    tree = first
    while tree + ten <= end:
        if far:
            fetch_trees(nodes, begin, min(tree + ten, end), min(tree + ten + ten, end))
        a, b, c, d, e, f, g, h, i, j = _leaves(
            words, begin, depth, wide, tree, tree + n1, tree + n2, tree + n3, tree + n4,
            tree + n5, tree + n6, tree + n7, tree + n8, tree + n9,
        )  # fmt: skip
        total = total + _value(a) + _value(b) + _value(c) + _value(d) + _value(e)
        total = total + _value(f) + _value(g) + _value(h) + _value(i) + _value(j)
        tree += ten
    rest = end - tree
    if rest:
        # Where there are no more trees, the last one is walked once more and not added: that costs less than a walk of
        # the rest one by one.
        last = end - n1
        a, b, c, d, e, f, g, h, i, _ = _leaves(
            words, begin, depth, wide, tree, min(tree + n1, last), min(tree + n2, last), min(tree + n3, last),
            min(tree + n4, last), min(tree + n5, last), min(tree + n6, last), min(tree + n7, last),
            min(tree + n8, last), last,
        )  # fmt: skip
        total += _value(a)
        total = total + _value(b) if rest > n1 else total
        total = total + _value(c) if rest > n2 else total
        total = total + _value(d) if rest > n3 else total
        total = total + _value(e) if rest > n4 else total
        total = total + _value(f) if rest > n5 else total
        total = total + _value(g) if rest > n6 else total
        total = total + _value(h) if rest > n7 else total
        total = total + _value(i) if rest > n8 else total
    return total


@merged_kernel
def _leaves(
    words: NDArray[np.uint64],
    begin: NDArray[np.int64],
    depth: NDArray[np.uint8],
    wide: NDArray[np.float32],
    t0: np.uint64,
    t1: np.uint64,
    t2: np.uint64,
    t3: np.uint64,
    t4: np.uint64,
    t5: np.uint64,
    t6: np.uint64,
    t7: np.uint64,
    t8: np.uint64,
    t9: np.uint64,
) -> Any:
    """The nodes in which a row ends in ten trees, as words."""
    root_a, root_b, root_c = np.uint64(begin[t0]), np.uint64(begin[t1]), np.uint64(begin[t2])
    root_d, root_e, root_f = np.uint64(begin[t3]), np.uint64(begin[t4]), np.uint64(begin[t5])
    root_g, root_h, root_i = np.uint64(begin[t6]), np.uint64(begin[t7]), np.uint64(begin[t8])
    root_j = np.uint64(begin[t9])
    steps = max(depth[t0], depth[t1], depth[t2], depth[t3], depth[t4])
    steps = max(steps, depth[t5], depth[t6], depth[t7], depth[t8], depth[t9])
    a, b, c, d, e, f, g, h, i, j = (
        root_a, root_b, root_c, root_d, root_e, root_f, root_g, root_h, root_i, root_j,
    )  # fmt: skip
    for _ in range(steps):
        a = root_a + _next(words[a], wide)
        b = root_b + _next(words[b], wide)
        c = root_c + _next(words[c], wide)
        d = root_d + _next(words[d], wide)
        e = root_e + _next(words[e], wide)
        f = root_f + _next(words[f], wide)
        g = root_g + _next(words[g], wide)
        h = root_h + _next(words[h], wide)
        i = root_i + _next(words[i], wide)
        j = root_j + _next(words[j], wide)
    return words[a], words[b], words[c], words[d], words[e], words[f], words[g], words[h], words[i], words[j]


@merged_kernel
def _next(node: np.uint64, wide: NDArray[np.float32]) -> np.uint64:
    """The child a row goes to, counted from the tree's root. Less goes left; equal goes right, as in XGBoost.

    Nothing here is NaN: `wide` was spread, and a threshold is finite.
    """
    place = (node >> np.uint64(32)) & np.uint64(0xFFFF)
    return (node >> np.uint64(48)) + np.uint64(wide[place] >= _value(node))


@merged_kernel
def _value(node: np.uint64) -> np.float32:
    """A node's threshold, or a leaf's weight: the low half of its word."""
    value: np.float32 = np.uint32(node & np.uint64(0xFFFFFFFF)).view(np.float32)
    return value
