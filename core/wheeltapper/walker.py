"""A forest asked from Python again and again, a few rows at a time: what a call costs beside the walk is kept low."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wheeltapper.forest import Forest, build_forest, frozen, margins_with
from wheeltapper.kernel import heapless_kernel
from wheeltapper.memory import keeper, table_for

_put, _forest_at = keeper(lambda: build_forest([]))


@heapless_kernel
def _write(table: NDArray[np.uint8], forest: Forest) -> bool:
    fits: bool = _put(table, forest)
    return fits


@heapless_kernel
def _ask(
    table: NDArray[np.uint8],
    heads: NDArray[np.int32],
    rows: NDArray[np.float32],
    wide: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    margins_with(_forest_at(table), heads, rows, wide, out)


class Walker:
    """One forest over rows of `features` features, ready to be asked. One owner: it is not thread-safe."""

    __slots__ = ("_forest", "_table", "_wide")

    def __init__(self, forest: Forest, features: int) -> None:
        self._forest = frozen(forest)  # the table holds addresses only
        self._table = table_for(self._forest)
        if not _write(self._table, self._forest):
            raise RuntimeError(f"expected a record of at most {self._table.nbytes:,} bytes, found a larger one")
        self._wide = np.empty(2 * features + 1, np.float32)

    def margins_into(self, heads: NDArray[np.int32], rows: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Like `forest.margins_into`, unchecked: heads int32[n], −1 gives NaN; rows float32[n, F]; out float32[n]."""
        _ask(self._table, heads, rows, self._wide, out)
