"""A block on several cores: cut between assets, a thread for each part. No bit of an answer depends on the cut.

The kernels hold no lock of Python's, and what a row touches is its asset's; working memory is each thread's own. The
fleet has one owner all the same: who hands over a block gets it back when every part of it is done.
"""

from __future__ import annotations

import itertools
import math
import time
from concurrent.futures import ThreadPoolExecutor, wait

from wheeltapper.live_class import Block, LiveClass
from wheeltapper.scoring import Columns

_ROWS_MIN = 128  # smaller blocks are not worth a look
_HAND_OVER_S = 60e-6  # of Python's time a part costs, generously: parts grow with the square root of a block's work
_MEMORY = 0.1  # weight of the newest block where it was slower than those before


class Crew:
    """Up to `threads` threads, the caller's included; they start with the first block that is worth it."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._others = ThreadPoolExecutor(threads - 1, "score") if threads > 1 else None

    def score(self, live: LiveClass, n: int, block: Block, want_features: bool) -> list[Columns]:
        """Score a block of `n` rows of a class into its columns; the revisions, in order of asset and time."""
        if self._others is None or n < _ROWS_MIN:
            return live.score(0, n, block, want_features)
        cuts = live.cut(n, block, min(self._threads, int(math.sqrt(n * live.row_s / _HAND_OVER_S))))
        parts = [(begin, end, block, want_features, hand) for hand, (begin, end) in enumerate(itertools.pairwise(cuts))]
        live.make_hands(len(parts))
        others = [self._others.submit(live.score, *part) for part in parts[1:]]
        began = time.thread_time()
        try:
            revisions = live.score(*parts[0])
            live.row_s = _pace(live.row_s, (time.thread_time() - began) / cuts[1])
            for part, other in zip(parts[1:], others, strict=True):
                # No core was free for it so far: who waits might as well do it.
                revisions += live.score(*part) if other.cancel() else other.result()
        finally:
            # Also where a part failed: nobody else may touch the windows before. One that was cancelled counts as
            # waiting until a thread has looked at it.
            wait([other for other in others if not other.cancelled()])
        return revisions


def _pace(before: float, row_s: float) -> float:
    """What a row takes, now that the newest block took `row_s` a row: down at once, up slowly."""
    return before + _MEMORY * (row_s - before) if 0.0 < before < row_s else row_s
