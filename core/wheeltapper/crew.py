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
        parts = list(itertools.pairwise(cuts))
        live.make_hands(len(parts))
        others = [
            self._others.submit(live.score, begin, end, block, want_features, hand)
            for hand, (begin, end) in enumerate(parts[1:], 1)
        ]
        began = time.perf_counter()
        try:
            revisions = live.score(0, cuts[1], block, want_features)
            row_s = (time.perf_counter() - began) / cuts[1]
        finally:
            wait(others)  # also where this part failed: nobody else may touch the windows before
        slower = live.row_s and row_s > live.row_s
        live.row_s = live.row_s + _MEMORY * (row_s - live.row_s) if slower else row_s
        return revisions + [found for other in others for found in other.result()]
