"""The words for a feature and for a reason: what those who keep machines would call them."""

from __future__ import annotations

_STATISTICS = {
    "mean": "mean of {source} over {window}",
    "std": "spread of {source} over {window}",
    "min": "lowest {source} over {window}",
    "max": "highest {source} over {window}",
    "range": "range of {source} over {window}",
    "slope": "slope of {source} over {window}",
    "ewma": "smoothed {source} over {window}",
    "delta": "change of {source} over {window}",
    "missing": "missing share of {source} over {window}",
    "shift": "mean of {source} over {window}, against its own start",
    "last": "latest {source}",
    "count": "number of {source} in {window}",
    "since": "hours since {source}",
    "static": "{source}, an attribute",
}


def feature_in_words(name: str, source: str, statistic: str) -> str:
    """ "slope(vibration, 24h)" of source "vibration" and statistic "slope" as "slope of vibration over 24h"."""
    _, _, window = name.removesuffix(")").rpartition(", ")
    return _STATISTICS[statistic].format(source=source.replace("_", " "), window=window)


def reason_in_words(name: str, source: str, statistic: str, contribution: float) -> str:
    """A reason as "slope of vibration over 24h pushes it up"."""
    return f"{feature_in_words(name, source, statistic)} pushes it {'up' if contribution > 0 else 'down'}"
