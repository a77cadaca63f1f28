"""Windows of a class whose ring has changed, filled from those of the class as it was."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wheeltapper.kernel import heapless_kernel
from wheeltapper.windows import EMPTY, Plan, Windows, place

_EMPTY = int(EMPTY)


@heapless_kernel
def carry_windows(
    old_plan: Plan,
    old: Windows,
    plan: Plan,
    new: Windows,
    count: int,
    column: npt.NDArray[np.int64],
    event: npt.NDArray[np.int64],
    row: npt.NDArray[np.float32],
) -> None:
    """Fill the windows of `count` assets of a changed class from those of the old one, reading by reading.

    column int64 [new ring columns]: the old ring's column of the same sensor, −1 = new; event likewise.
    """
    for a in range(count):
        for e in range(event.size):
            if event[e] >= 0:
                for k in range(old.events.shape[2]):
                    new.events[a, e, k] = old.events[a, event[e], k]
        if old.newest[a] == _EMPTY:
            continue
        for k in range(old_plan.slots):
            ring = (old.newest[a] + 1 + k) % old_plan.slots
            time = old.times[a, ring]
            if time == _EMPTY:
                continue
            for c in range(column.size):
                row[c] = old.values[a, ring, column[c]] if column[c] >= 0 else np.nan
            place(plan, new, a, time, row)
