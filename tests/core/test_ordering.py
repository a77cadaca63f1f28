"""Rows of a block are handled by asset, then time; NumPy's stable sort is the judge."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from wheeltapper.ordering import order_rows


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 4), st.integers(-3, 3)), max_size=70), st.booleans())
def test_order_is_that_of_a_stable_sort(pairs: list[tuple[int, int]], in_order: bool) -> None:
    pairs = sorted(pairs) if in_order else pairs
    rows, times = (np.array([pair[k] for pair in pairs], np.int64) for k in (0, 1))
    order, spare = np.full(80, 99, np.int64), np.empty(80, np.int64)
    order_rows(rows, times, order, spare)
    assert order[: len(pairs)].tolist() == np.lexsort((times, rows)).tolist()
    assert (order[len(pairs) :] == 99).all()
