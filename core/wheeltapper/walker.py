"""A forest asked from Python again and again, a few rows at a time: what a call costs beside the walk is kept low."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wheeltapper.forest import Forest, build_forest, frozen, margins_with
from wheeltapper.kernel import heapless_kernel
from wheeltapper.memory import keeper, table_for


class _Held(NamedTuple):
    forest: Forest
    wide: NDArray[np.float32]  # [2 F + 1] working memory


_put, _held_at = keeper(lambda: _Held(build_forest([]), np.empty(1, np.float32)))


@heapless_kernel
def _write(table: NDArray[np.uint8], held: _Held) -> bool:
    fits: bool = _put(table, held)
    return fits


@heapless_kernel
def _ask(
    table: NDArray[np.uint8],
    heads: NDArray[np.int32],
    rows: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    held = _held_at(table)
    margins_with(held.forest, heads, rows, held.wide, out)


class Walker:
    """One forest over rows of `features` features, ready to be asked. One owner: it is not thread-safe."""

    __slots__ = ("_held", "_table")

    def __init__(self, forest: Forest, features: int) -> None:
        self._held = _Held(frozen(forest), np.empty(2 * features + 1, np.float32))  # the table holds addresses only
        self._table = table_for(self._held)
        if not _write(self._table, self._held):
            raise RuntimeError(f"expected a record of at most {self._table.nbytes:,} bytes, found a larger one")

    def margins_into(self, heads: NDArray[np.int32], rows: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Like `forest.margins_into`, unchecked: heads int32[n], −1 gives NaN; rows float32[n, F]; out float32[n]."""
        _ask(self._table, heads, rows, out)
