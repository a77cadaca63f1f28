"""Rows sent late and twice on purpose are still legal, and none is lost."""

from __future__ import annotations

from array import array

from hypothesis import given, settings
from hypothesis import strategies as st
from wheeltapper_gateway.disorder import Disorder, disordered
from wheeltapper_gateway.rows import Rows


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50)), min_size=1, max_size=40, unique=True),
    st.integers(0, 10),
    st.booleans(),
    st.integers(0, 5),
)
def test_disorder_is_legal_and_loses_nothing(keys: list[tuple[int, int]], late: int, by_rows: bool, seed: int) -> None:
    keys = sorted(keys, key=lambda key: key[::-1])
    rows = Rows(
        array("I", [asset for asset, _ in keys]),
        times := array("q", [time for _, time in keys]),
        array("f", [value for asset, time in keys for value in (asset, time)]),
        times,
    )
    disorder = Disorder(0 if by_rows else late, late if by_rows else 0, 0.5, seed)
    sent = disordered(rows, disorder, 2)
    assert list(sent.due_us) == sorted(sent.due_us)
    pairs = list(zip(sent.assets, sent.times, strict=True))
    assert set(pairs) == set(keys)
    assert list(sent.values) == [float(value) for pair in pairs for value in pair]
    assert disordered(rows, disorder, 2) == sent
    for place, (asset, time) in enumerate(pairs):
        newer = {when for other, when in pairs[:place] if other == asset and when > time}
        if by_rows:
            assert len(newer) <= late
        else:
            assert all(when - time <= late for when in newer)
