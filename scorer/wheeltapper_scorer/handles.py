"""The assets of a stream: a handle is the number that a gateway says, a row is where the fleet holds the asset."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

UNKNOWN = -1  # the row of a handle that the stream has not


class Handles:
    """Handles count from 0 in the order in which assets were added."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.rows = np.empty(0, dtype=np.int64)  # of the fleet, by handle
        self._ended = np.array([UNKNOWN])  # … and one that any handle beyond them means
        self._handle: dict[str, int] = {}
        self._order = np.empty(0, dtype=np.int64)

    def fresh(self, ids: Sequence[str]) -> list[int]:
        """Positions in `ids` of assets that the stream does not have."""
        return [i for i, asset in enumerate(ids) if asset not in self._handle]

    def add(self, ids: Sequence[str], rows: NDArray[np.int64]) -> None:
        """Give fresh assets the next handles."""
        self._handle.update((asset, len(self.ids) + i) for i, asset in enumerate(ids))
        self.ids += ids
        self.rows = np.concatenate((self.rows, rows.astype(np.int64)))
        self._ended = np.append(self.rows, UNKNOWN)
        self._order = np.argsort(self.rows)

    def of(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """The handles of assets that the stream has."""
        return np.array([self._handle[asset] for asset in ids], dtype=np.int64)

    def rows_of(self, handles: NDArray[np.uint32]) -> NDArray[np.int64]:
        """The fleet's rows of handles, UNKNOWN where the stream has none."""
        return self._ended.take(handles, mode="clip")

    def of_rows(self, rows: NDArray[np.int64]) -> NDArray[np.uint32]:
        """The handles of rows that the stream has."""
        return self._order[np.searchsorted(self.rows, rows, sorter=self._order)].astype(np.uint32)
