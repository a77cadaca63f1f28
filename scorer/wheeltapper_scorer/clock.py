"""The time as a scorer reads it: an argument, so that a simulation of a scorer can be a function of its seed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


def _now_us() -> int:
    return time.time_ns() // 1_000


@dataclass(frozen=True, slots=True)
class Clock:
    """The system's clocks, unless told otherwise."""

    seconds: Callable[[], float] = time.monotonic  # never steps back: what work costs, how long blocks wait
    now_us: Callable[[], int] = _now_us  # µs since 1970 UTC: when a block was taken
