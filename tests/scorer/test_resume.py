"""Where a gateway may go on: never behind a hole, and bounded."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import opening
from wheeltapper_scorer.resume import ResumePoints
from wheeltapper_scorer.session import Session
from wheeltapper_scorer.settings import Settings


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 30)), max_size=60), st.integers(0, 2))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_a_resume_point_never_skips_what_was_not_answered(answers, epoch):
    points = ResumePoints(gateways_max=3)
    answered: dict[int, set[int]] = {}
    for at, sequence in answers:
        points.answered("gw", at, sequence)
        answered.setdefault(at, set()).add(sequence)
    expected = next(n for n in range(40) if n + 1 not in answered.get(epoch, ()))
    assert points.resume("gw", epoch) == expected


def test_resume_points_are_bounded():
    points = ResumePoints(gateways_max=2)
    for name in ("a", "b", "a", "c"):
        points.answered(name, 1, 1)
    assert [points.resume(name, 1) for name in "abc"] == [1, 0, 1]
    for sequence in range(10_000, 2, -1):
        points.answered("a", 1, sequence)
    points.answered("a", 1, 2)
    assert 2 <= points.resume("a", 1) <= 10_000


def test_answers_move_the_resume_point(fleet):
    points = ResumePoints(10)
    session = Session(fleet, Settings(), points)
    session.open(opening("x"))
    for sequence in (1, 2, 4):
        session.answered(sequence)
    assert Session(fleet, Settings(), points).open(opening("x")).resume_sequence == 2
    assert Session(fleet, Settings(), points).open(opening("x", epoch=2)).resume_sequence == 0
