"""What a scorer has done since it started, in whole numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from wheeltapper_proto import scoring_pb2

_STATUSES = {number: name.removeprefix("ROW_STATUS_").lower() for name, number in scoring_pb2.RowStatus.items()}


@dataclass(slots=True)
class Counters:
    streams: int = 0
    calls: int = 0
    blocks: int = 0
    refused: int = 0  # streams and calls ended with an error
    faults: int = 0  # of them, the server's own
    revisions: int = 0  # rows
    reloads: int = 0
    reloads_failed: int = 0
    rows: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(max(_STATUSES) + 1, dtype=np.int64)
    )  # by RowStatus

    def count_rows(self, status: NDArray[np.uint8]) -> None:
        """One answered block, by the RowStatus of its rows."""
        self.blocks += 1
        self.rows += np.bincount(status, minlength=len(self.rows))

    def report(self) -> dict[str, int]:
        """Everything by name, statuses that never occurred left out."""
        whole = {name: getattr(self, name) for name in self.__slots__ if name != "rows"}
        statuses = {f"rows_{_STATUSES[i]}": int(n) for i, n in enumerate(self.rows) if n}
        return {**whole, "rows": int(self.rows.sum()), **statuses}
