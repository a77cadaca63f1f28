"""A history in time order, as columns: what a replay reads, whatever the files are."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from wheeltapper_command.errors import UsageError

from wheeltapper_gateway.gateway import microseconds


@dataclass(frozen=True, slots=True)
class HistoryClass:
    """One asset class of a history."""

    name: str
    sensors: tuple[str, ...]  # columns of its readings
    asset_ids: tuple[str, ...]  # sorted; an asset's number is its position
    attributes: Mapping[str, Mapping[str, float]]  # asset id → static attributes that are numbers


@dataclass(frozen=True, slots=True)
class Rows:
    """Readings of one class: asset numbers uint32[n], times int64[n] µs, values float32[n × sensors] row-major.
    `due_us` int64[n] never falls: when each row is sent; the times themselves unless the rows are shuffled."""

    assets: array[int]
    times: array[int]
    values: array[float]
    due_us: array[int]

    def __len__(self) -> int:
        return len(self.times)


@dataclass(frozen=True, slots=True, order=True)
class Event:
    time_us: int
    asset_id: str
    code: str  # "kind:code"


class HistorySource(Protocol):
    """A folder that can be read in time order."""

    classes: tuple[HistoryClass, ...]

    def events(self) -> list[Event]:
        """All events, in time order."""
        ...

    def span_us(self) -> tuple[int, int]:
        """The first and the last event time of the readings."""
        ...

    def slices(self, begin_us: int, sensors: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Rows]]:
        """Readings from `begin_us` on by class, sensors in the order asked for; each slice later than the one before,
        rows in the order of time, then of asset."""
        ...

    def count(self, begin_us: int, end_us: int) -> int:
        """How many readings there are in [begin, end)."""
        ...


def parse_time(text: str) -> int:
    """An ISO 8601 time (without a zone: UTC) or whole microseconds since 1970 UTC. Raises UsageError."""
    try:
        if text.lstrip("-").isdigit():
            return int(text)
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"expected a time such as 2026-01-31T08:00:00Z, found {text!r}") from error
    return microseconds(time if time.tzinfo else time.replace(tzinfo=UTC))
