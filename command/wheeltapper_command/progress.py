"""Progress of long work on stderr: one live line on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_BAR_CELLS = 24
_TERMINAL_INTERVAL_S = 0.1
_LOG_INTERVAL_S = 5.0


class Progress:
    """Counts towards a total and shows rate and time left. `quiet` shows nothing."""

    def __init__(self, stream: TextIO | None = None, quiet: bool = False) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._quiet = quiet
        self._live = self._stream.isatty()
        self._label = ""
        self._unit = ""
        self._total = 0
        self._done = 0
        self._note = ""
        self._started = 0.0
        self._shown = 0.0

    def say(self, text: str) -> None:
        """One line that stays."""
        if not self._quiet:
            self._stream.write(("\r\x1b[2K" if self._live else "") + text + "\n")
            self._stream.flush()

    def start(self, label: str, total: int, unit: str) -> None:
        """Begin a count of `total` `unit`s; 0 means the total is unknown."""
        self._label, self._total, self._unit = label, total, unit
        self._done, self._note = 0, ""
        self._started = time.monotonic()
        self._shown = 0.0
        self._show()

    def advance(self, count: int = 1, note: str = "") -> None:
        self._done += count
        self._note = note
        interval = _TERMINAL_INTERVAL_S if self._live else _LOG_INTERVAL_S
        if time.monotonic() - self._shown >= interval:
            self._show()

    def finish(self, note: str = "") -> None:
        """The last state of the count, as a line that stays."""
        if self._quiet:
            return
        elapsed_s = time.monotonic() - self._started
        self.say(f"{self._label}: {self._done:,} {self._unit} in {clock(elapsed_s)}{' · ' + note if note else ''}")

    def _show(self) -> None:
        self._shown = time.monotonic()
        if self._quiet:
            return
        elapsed_s = self._shown - self._started
        rate = self._done / elapsed_s if elapsed_s > 0 else 0.0
        parts = [f"{self._label}"]
        if self._total:
            share = min(self._done / self._total, 1.0)
            filled = round(share * _BAR_CELLS)
            parts.append(f"[{'█' * filled}{'·' * (_BAR_CELLS - filled)}] {share:4.0%}")
            parts.append(f"{self._done:,}/{self._total:,} {self._unit}")
        else:
            parts.append(f"{self._done:,} {self._unit}")
        parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s")
        if self._total and rate > 0:
            parts.append(f"{clock((self._total - self._done) / rate)} left")
        if self._note:
            parts.append(self._note)
        line = "  ".join(parts)
        self._stream.write(f"\r\x1b[2K{line}" if self._live else f"{line}\n")
        self._stream.flush()


def clock(seconds: float) -> str:
    """A duration as a person reads it: 4.2 s, 3:05 min, 2:10 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
