"""Reasons as one cell of a table: the same text from a streamed replay and from scoring offline."""

from __future__ import annotations

from collections.abc import Iterable


def reasons_text(reasons: Iterable[tuple[str, float]]) -> str:
    """(feature, contribution) pairs, weightiest first, as "slope(vibration, 24h) +0.41; last(load) -0.0213"."""
    return "; ".join(f"{feature} {contribution:+.3g}" for feature, contribution in reasons)
