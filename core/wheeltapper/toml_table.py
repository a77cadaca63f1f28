"""A TOML table read with typed questions. What does not fit is noted in `Findings`, and reading goes on, so that a
person sees every slip of a file at once."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from wheeltapper.durations import DURATION_US_MAX, format_duration, parse_duration

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
NAME_CHARACTERS_MAX = 128
ENTRIES_MAX = 100_000  # of one array: bounds the work a hostile file can ask for
FINDINGS_SHOWN_MAX = 50

_KINDS = ((bool, "a truth value"), (int, "a whole number"), (float, "a number"), (str, "a text"))


@dataclass(slots=True)
class Findings:
    """What is wrong with one file, in the order in which it was found."""

    source: str
    lines: list[str] = field(default_factory=list)

    def add(self, key: str, found: str, allowed: str, mend: str) -> None:
        self.lines.append(f"{key}: found {found}; allowed: {allowed}; mend: {mend}")

    def text(self) -> str:
        """One line per finding, each naming the file."""
        shown = [f"{self.source}: {line}" for line in self.lines[:FINDINGS_SHOWN_MAX]]
        if len(self.lines) > FINDINGS_SHOWN_MAX:
            shown.append(f"{self.source}: … and {len(self.lines) - FINDINGS_SHOWN_MAX} more")
        return "\n".join(shown)


class Table:
    """One table of the file at dotted `path`. A question answers the value, or `fallback` where the value is missing or
    wrong; a missing key is a finding only where `required`."""

    def __init__(self, findings: Findings, path: str, data: Any, keys: Iterable[str] | None) -> None:
        self.findings = findings
        self.path = path
        self.data: Mapping[str, Any] = {}
        if not isinstance(data, dict):
            findings.add(path or "the file", describe(data), "a table", f"write [{path}] and its keys below it")
            return
        self.data = data
        known = list(data) if keys is None else list(keys)
        for key in data:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
                mend = f"did you mean {near[0]!r}?" if near else "remove it"
                findings.add(self.dotted(key), "an unknown key", f"one of {', '.join(known)}", mend)

    def __contains__(self, key: str) -> bool:
        return key in self.data

    def dotted(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def note(self, key: str, allowed: str, mend: str, found: str = "") -> None:
        """A finding about the value of `key` (or about what the caller found in it)."""
        self.findings.add(self.dotted(key), found or describe(self.data.get(key)), allowed, mend)

    def text(self, key: str, fallback: str = "", *, required: bool = False, length_max: int = 256) -> str:
        allowed = f"a text of at most {length_max} printable characters"
        if not self._has(key, required, allowed):
            return fallback
        value = self.data[key]
        if isinstance(value, str) and len(value) <= length_max and value.isprintable():
            return value
        self.note(key, allowed, f'write {key} = "…"')
        return fallback

    def name(self, key: str, fallback: str = "", *, required: bool = False, also: str = "") -> str:
        """A name: letters, digits, `_`, `.` and `-`; or exactly `also`."""
        allowed = NAME_ALLOWED + (f', or "{also}"' if also else "")
        if not self._has(key, required, allowed):
            return fallback
        value = self.data[key]
        if is_name(value) or (also and value == also):
            return str(value)
        self.note(key, allowed, f'write {key} = "pump-1"')
        return fallback

    def choice(self, key: str, among: Iterable[str], fallback: str = "", *, required: bool = False) -> str:
        known = list(among)
        allowed = f"one of {', '.join(known)}"
        if not self._has(key, required, allowed):
            return fallback
        value = self.data[key]
        if isinstance(value, str) and value in known:
            return value
        self.note(key, allowed, nearest(value, known, f'write {key} = "{known[0]}"'))
        return fallback

    def flag(self, key: str, fallback: bool) -> bool:
        value = self.data.get(key, fallback)
        if isinstance(value, bool):
            return value
        self.note(key, "true or false", f"write {key} = {str(fallback).lower()}")
        return fallback

    def whole(self, key: str, fallback: int, low: int, high: int, *, required: bool = False) -> int:
        allowed = f"a whole number from {low} to {high}"
        if not self._has(key, required, allowed):
            return fallback
        value = self.data[key]
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        self.note(key, allowed, f"write {key} = {min(max(fallback, low), high)}")
        return fallback

    def number(
        self, key: str, fallback: float, low: float, high: float, *, above_low: bool = False, required: bool = False
    ) -> float:
        """A finite number in [low, high], or in (low, high] with `above_low`."""
        allowed = f"a finite number {'above' if above_low else 'from'} {low:g} to {high:g}"
        if not self._has(key, required, allowed):
            return fallback
        value = self.data[key]
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            inside = low < value <= high if above_low else low <= value <= high  # both False for NaN
            if inside:
                return float(value)
        self.note(key, allowed, f"choose a number in that range for {key}")
        return fallback

    def duration(self, key: str, fallback: int, low_us: int = 0, *, required: bool = False) -> int:
        """Microseconds of a duration of at least `low_us`."""
        allowed = f'a duration such as "10min" or "6h", at least {format_duration(low_us)}'
        if not self._has(key, required, allowed):
            return fallback
        return duration_of(
            self.data[key], low_us, fallback, lambda said: self.note(key, said or allowed, f'write {key} = "6h"')
        )

    def moment(self, key: str) -> datetime | None:
        """A date and time with its offset, since 1970."""
        if key not in self.data:
            return None
        value = self.data[key]
        allowed = "a date and time with its offset, since 1970"
        if isinstance(value, datetime) and value.tzinfo is not None and value.timestamp() > 0:
            return value
        self.note(key, allowed, f"write {key} = 2024-05-01T00:00:00Z, without quotes")
        return None

    def array(self, key: str, *, required: bool = False, high: int = ENTRIES_MAX) -> list[Any]:
        """The entries of an array of at most `high` (and at least one where it is required)."""
        low = 1 if required else 0
        allowed = f"an array of {low} to {high} entries"
        if not self._has(key, required, allowed):
            return []
        value = self.data[key]
        if isinstance(value, list) and low <= len(value) <= high:
            return value
        found = f"an array of {len(value)} entries" if isinstance(value, list) else ""
        self.note(key, allowed, f"write {key} = […]", found)
        return []

    def names(self, key: str, *, required: bool = False, high: int = ENTRIES_MAX) -> tuple[str, ...]:
        """Different names, in the order written."""
        kept: list[str] = []
        for position, value in enumerate(self.array(key, required=required, high=high)):
            at = f"{key}[{position}]"
            if not is_name(value):
                self.note(at, NAME_ALLOWED, "rename it", describe(value))
            elif value in kept:
                self.note(at, "each name once", "remove the second", describe(value))
            else:
                kept.append(value)
        return tuple(kept)

    def table(self, key: str, keys: Iterable[str] | None) -> Table:
        """The table below `key`; an empty one where it is absent."""
        return Table(self.findings, self.dotted(key), self.data.get(key, {}), keys)

    def tables(self, key: str, keys: Iterable[str], *, high: int = ENTRIES_MAX) -> list[Table]:
        entries = self.array(key, high=high)
        return [Table(self.findings, f"{self.dotted(key)}[{i}]", entry, keys) for i, entry in enumerate(entries)]

    def _has(self, key: str, required: bool, allowed: str) -> bool:
        if key in self.data:
            return True
        if required:
            self.findings.add(self.dotted(key), "nothing", allowed, f"add {key} = …")
        return False


NAME_ALLOWED = (
    f"a name of letters, digits, _ . and -, starting with a letter or digit, at most {NAME_CHARACTERS_MAX} long"
)


def is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= NAME_CHARACTERS_MAX and NAME.fullmatch(value) is not None


def duration_of(value: Any, low_us: int, fallback: int, note: Callable[[str], None]) -> int:
    """Microseconds of a duration written as text; otherwise `note(what is allowed)` and the fallback."""
    if not isinstance(value, str):
        note("")
        return fallback
    try:
        microseconds = parse_duration(value)
    except ValueError as error:
        note(str(error).removeprefix("allowed: "))
        return fallback
    if low_us <= microseconds <= DURATION_US_MAX:
        return microseconds
    note("")
    return fallback


def describe(value: Any) -> str:
    """What stands in the file, as a person would call it."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return f"an array of {len(value)} entries"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    for kind, words in _KINDS:
        if isinstance(value, kind):
            shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "…"
            return f"{shown} ({words})"
    return f"{value} ({type(value).__name__})"


def nearest(value: Any, known: list[str], otherwise: str) -> str:
    """ "did you mean …?" where a known word is close to what was written."""
    near = difflib.get_close_matches(value, known, n=1, cutoff=0.6) if isinstance(value, str) else []
    return f"did you mean {near[0]!r}?" if near else otherwise
