"""The windows of the asset that comes next, asked of memory while this one is scored.

Thousands of assets in turn: every reading's windows lie in memory, in no cache. Which lines it will touch is known from
its time alone, so they are asked for an asset ahead, as a forest's trees are (`forest.fetch`). It changes no bit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wheeltapper.kernel import inline_kernel
from wheeltapper.memory import LINE, prefetch
from wheeltapper.windows import GROUP, Plan, Windows

_CACHED_BYTES = 262_144  # of kept sums, a quarter of a fleet's windows: fewer are in a cache, and asking would cost


@inline_kernel
def fetch_windows(plan: Plan, windows: Windows, a: int, time: int) -> None:
    """Ask for what a reading of asset `a` at `time`, µs, will touch: its kept groups, and the ends of its windows.

    Windows of readings are read from end to end, which the processor foresees by itself.
    """
    if plan.cadence_us == 0 or 8 * windows.sums.size < _CACHED_BYTES:
        return
    groups, row = plan.slots // GROUP, plan.width * 4
    _fetch(windows.sums, a * groups * 6 * row, groups * 6 * row)
    _fetch(windows.bounds, a * groups * 2 * row, groups * 2 * row)
    slot = time // plan.cadence_us
    begin = slot - slot % GROUP
    _fetch(windows.values, (a * plan.slots + begin % plan.slots) * row, (slot - begin + 1) * row)
    for w in range(plan.windows.size):
        first = slot - plan.windows[w] + 1
        _fetch(windows.values, (a * plan.slots + first % plan.slots) * row, (GROUP - first % GROUP) * row)


@inline_kernel
def _fetch(array: npt.NDArray[np.generic], byte: int, count: int) -> None:
    end = byte + count
    while byte < end:
        prefetch(array, byte)
        byte += LINE
