"""What a scorer has done since it started, in whole numbers."""

from __future__ import annotations

import time
from bisect import bisect_left
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from wheeltapper_proto import scoring_pb2

STATUS_NAMES = {number: name.removeprefix("ROW_STATUS_").lower() for name, number in scoring_pb2.RowStatus.items()}
_BITS = {bit: name.removeprefix("HEALTH_").lower() for name, bit in scoring_pb2.Health.items() if bit}
HEALTH_NAMES = {bit.bit_length() - 1: name for bit, name in _BITS.items()}  # by position of the bit
BLOCK_SECONDS = (0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

_LISTED = {"rows": ("rows", STATUS_NAMES), "health": ("unhealthy", HEALTH_NAMES)}
_OTHERS = ("reasons", "block_seconds", "block_seconds_sum", "looked_at")


def _zeros(count: int) -> NDArray[np.int64]:
    return np.zeros(count, dtype=np.int64)


@dataclass(slots=True)
class Counters:
    streams: int = 0
    calls: int = 0
    blocks: int = 0
    refused: int = 0  # streams and calls ended with an error
    faults: int = 0  # of them, the server's own
    expired: int = 0  # blocks whose deadline had passed before they reached the kernel
    revisions: int = 0  # rows
    reloads: int = 0
    reloads_failed: int = 0
    looked_at: float = field(default_factory=time.monotonic)  # the registry, without a failure
    reasons: dict[str, int] = field(default_factory=dict)  # refusals by Reason
    journal_failures: int = 0
    journal_skipped: int = 0  # records that a failing disk did not keep
    snapshots: int = 0
    rows: NDArray[np.int64] = field(default_factory=lambda: _zeros(max(STATUS_NAMES) + 1))  # by RowStatus
    health: NDArray[np.int64] = field(default_factory=lambda: _zeros(8))  # rows by position of a Health bit
    block_seconds: NDArray[np.int64] = field(default_factory=lambda: _zeros(len(BLOCK_SECONDS) + 1))
    block_seconds_sum: float = 0.0

    def count_rows(self, status: NDArray[np.uint8], health: NDArray[np.uint8]) -> None:
        """One answered block, by the RowStatus and the Health bits of its rows."""
        self.blocks += 1
        if np.count_nonzero(status):
            self.rows += np.bincount(status, minlength=len(self.rows))
        else:
            self.rows[scoring_pb2.ROW_STATUS_OK] += len(status)
        if np.count_nonzero(health):
            self.health += np.unpackbits(health[:, None], axis=1, bitorder="little").sum(axis=0, dtype=np.int64)

    def count_refusal(self, reason: str) -> None:
        self.refused += 1
        self.reasons[reason] = self.reasons.get(reason, 0) + 1

    def count_seconds(self, seconds: float) -> None:
        """What one block cost."""
        self.block_seconds[bisect_left(BLOCK_SECONDS, seconds)] += 1
        self.block_seconds_sum += seconds

    def report(self) -> dict[str, int]:
        """Everything by name, statuses and bits that never occurred left out."""
        whole = {name: getattr(self, name) for name in self.__slots__ if name not in (*_LISTED, *_OTHERS)}
        for name, (prefix, names) in _LISTED.items():
            whole |= {f"{prefix}_{names[i]}": int(n) for i, n in enumerate(getattr(self, name)) if n}
        return {**whole, "rows": int(self.rows.sum())}
