"""Reasons as text: signed, three digits, in the order given."""

from __future__ import annotations

from wheeltapper_command.reasons import reasons_text


def test_reasons_are_signed_and_short() -> None:
    assert reasons_text([("slope(vibration, 24h)", 0.41234), ("last(load)", -12.0)]) == (
        "slope(vibration, 24h) +0.412; last(load) -12"
    )
    assert reasons_text([]) == ""
