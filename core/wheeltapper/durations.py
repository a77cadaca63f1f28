"""Durations as people write them ("10min", "6h", "1h30min") and as the product counts them: whole microseconds."""

from __future__ import annotations

import re

UNITS_US = {"d": 86_400_000_000, "h": 3_600_000_000, "min": 60_000_000, "s": 1_000_000, "ms": 1_000, "us": 1}
DURATION_US_MAX = 100 * 366 * UNITS_US["d"]  # a century: what is longer is a slip of the keyboard

_PART = re.compile(r"([0-9]{1,18})(min|ms|us|d|h|s)")
_WHOLE = re.compile(r"(?:[0-9]{1,18}(?:min|ms|us|d|h|s))+")


def parse_duration(text: str) -> int:
    """Microseconds of "7d", "250ms" or "1h30min" (whole numbers, largest unit first).

    Raises ValueError saying what is wrong, without naming where the text stood.
    """
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"allowed: whole numbers with the units {', '.join(UNITS_US)}, such as 10min, 6h or 1h30min")
    parts = _PART.findall(text)
    sizes = [UNITS_US[unit] for _, unit in parts]
    if sorted(set(sizes), reverse=True) != sizes:
        raise ValueError("allowed: each unit once, the largest first, such as 1h30min")
    microseconds = sum(int(count) * UNITS_US[unit] for count, unit in parts)
    if microseconds > DURATION_US_MAX:
        raise ValueError("allowed: at most 36600d (a century)")
    return microseconds


def format_duration(microseconds: int) -> str:
    """The shortest single-unit text that `parse_duration` reads back to the same number: 3_600_000_000 → "1h"."""
    for unit, size in UNITS_US.items():
        if microseconds and microseconds % size == 0:
            return f"{microseconds // size}{unit}"
    return "0s"
