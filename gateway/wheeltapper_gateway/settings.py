"""Every limit of a gateway, named with its unit and checked once; and the clock it lives by."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from wheeltapper_command.errors import UsageError

BATCH_ROWS_MAX = 4096
REASONS_MAX = 64  # a scorer gives no more
ASSETS_PER_OPEN = 10_000  # keeps an Open message far below gRPC's 4 MiB


@dataclass(frozen=True, slots=True)
class Settings:
    """How a gateway batches, waits, resends and drops."""

    batch_rows: int = 256  # rows a block has at most
    batch_seconds: float = (
        0.0  # how long a reading may wait for others; 0 = whatever waits goes as soon as there is credit
    )
    in_flight_blocks_max: int = 8  # blocks sent and not yet settled
    spool_bytes_max: int = 1 << 30  # beyond it the oldest unsent readings are dropped and counted
    # Answers kept for `answers()`, and as many revisions that wait for the answer they belong to; beyond it the oldest
    # are dropped and counted.
    answers_rows_max: int = 1_000_000
    live_seconds: float = 60.0  # what waited longer is backlog: sent after live readings, raises no live alarm
    backoff_seconds: float = 0.2  # full jitter: a wait is uniform in 0..min(backoff × 2^attempt, backoff_seconds_max)
    backoff_seconds_max: float = 30.0
    answer_timeout_seconds: float = 60.0  # silence with blocks in flight beyond it means a dead connection
    durable: bool = False  # settle on the server's durable Ack instead of on the ScoreBlock
    want_features: bool = False
    reasons: int = 0  # so many for each output of a row that raises an alarm; 0: none
    reasons_always: bool = False  # for every row

    def __post_init__(self) -> None:
        limits = {
            "batch_rows": (1, BATCH_ROWS_MAX),
            "batch_seconds": (0, 3600),
            "in_flight_blocks_max": (1, 4096),
            "spool_bytes_max": (1 << 16, 1 << 50),
            "answers_rows_max": (self.batch_rows, 1 << 40),
            "live_seconds": (self.batch_seconds, 1e9),
            "backoff_seconds": (0.001, 3600),
            "backoff_seconds_max": (self.backoff_seconds, 86_400),
            "answer_timeout_seconds": (0.1, 86_400),
            "reasons": (0, REASONS_MAX),
        }
        for name, (lowest, highest) in limits.items():
            value = getattr(self, name)
            if not lowest <= value <= highest:
                raise UsageError(f"{name}: expected {lowest} to {highest}, found {value}")


class Clock:
    """The time a gateway lives by. A test gives its own."""

    def time_us(self) -> int:
        """Microseconds since 1970 UTC."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    def wait(self, changed: threading.Condition, seconds: float) -> None:
        """Sleep until `changed` is notified, `seconds` at most. The caller holds `changed`."""
        changed.wait(seconds)


class Steady:
    """The wall clock as it was in the beginning, going on at its pace: whatever the other is set to meanwhile, what
    happened between is as old as it is. A machine that sleeps stops it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead_us = clock.time_us() - int(clock.monotonic() * 1e6)

    def now_us(self) -> int:
        """Microseconds since 1970 UTC, as far as the wall clock was right in the beginning."""
        return self._ahead_us + int(self._clock.monotonic() * 1e6)
