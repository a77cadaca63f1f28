"""What Python itself may hold the event loop for, made short once everything that stays is loaded."""

from __future__ import annotations

import gc
import sys

_SWITCH_S = 0.000_5  # after which a thread that prepares a release gives way to the loop; Python's own is 5 ms


def shorten() -> None:
    """Call it before the port opens. The collector looks at what comes from here on only: a look at Numba's modules and
    all that was compiled holds every thread for a tenth of a second, and finds nothing."""
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(_SWITCH_S)
