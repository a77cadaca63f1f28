"""A forest bound once says the same bits as one that is handed over with every call."""

from __future__ import annotations

import numpy as np
import pytest
from numba.core.errors import TypingError
from packs import random_trees
from wheeltapper.forest import Forest, build_forest, margins
from wheeltapper.walker import Walker


def test_a_walker_says_what_margins_say_whoever_was_asked_before() -> None:
    rng = np.random.default_rng(5)
    sizes, parents = (20, 9, 0, 40, 17), (-1, 0, 1, -1, 3)
    forest = build_forest([(random_trees(rng, 4, n), p, 0.5) for n, p in zip(sizes, parents, strict=True)])
    heads = rng.integers(-1, 5, 300).astype(np.int32)
    heads[100:200] = np.sort(heads[100:200])  # runs of one head, which memory is asked for once
    rows = rng.normal(size=(300, 4)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.2] = np.nan
    out, one = np.empty(300, np.float32), np.empty(1, np.float32)
    walker = Walker(forest, 4)
    walker.margins_into(heads, rows, out)
    assert out.tobytes() == margins(forest, heads, rows).tobytes()
    for i in range(300):
        walker.margins_into(heads[i : i + 1], rows[i : i + 1], one)
        assert one.tobytes() == out[i : i + 1].tobytes()


def test_a_record_of_another_type_is_refused_before_anything_is_read_as_it() -> None:
    forest = build_forest([(random_trees(np.random.default_rng(1), 4, 2), -1, 0.5)])
    wider = forest._replace(head_base=forest.head_base.astype(np.float64))
    with pytest.raises(TypingError, match="expected a record of type"):
        Walker(Forest(*wider), 4)
