"""What this machine has for us."""

from __future__ import annotations

import math
import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds of CPU, or max, in each so many of time


def available_cpus(quota: Path = _QUOTA) -> int:
    """The cores this process may use: those it may run on, and no more than its container's share of time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        time, period = quota.read_text().split()
        return min(cores, max(1, math.ceil(int(time) / int(period))))
    except (OSError, ValueError, ZeroDivisionError):  # no container, or no limit ("max")
        return cores
