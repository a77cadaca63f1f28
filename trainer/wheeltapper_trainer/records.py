"""What a history holds, as plain arrays: assets, their readings, their events, and the digest of all three."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wheeltapper.errors import CommandError
from wheeltapper.spec import ANY_CODE, FleetSpec

Times = NDArray[np.int64]
Values = NDArray[np.float32]
Words = NDArray[np.str_]
Run = tuple[int, int, int]  # (row group, first row in it, rows)


class HistoryError(CommandError):
    """A history that cannot be read: the fault of who wrote it, named with file and column."""


@dataclass(frozen=True, slots=True)
class Asset:
    """One machine; `attributes` are its static numbers (NaN where an asset has none)."""

    asset_id: str
    asset_class: str
    attributes: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class AssetReadings:
    """One asset: times int64[n] in µs since 1970 UTC, never falling; values float32[n, sensors], NaN missing."""

    asset_id: str
    times: Times
    values: Values


@dataclass(frozen=True, slots=True)
class Events:
    """Events sorted by asset, then time, kind and code: four arrays of one length."""

    asset_ids: Words
    times: Times
    kinds: Words
    codes: Words

    @classmethod
    def of_rows(cls, rows: Sequence[tuple[str, int, str, str]]) -> Events:
        """From (asset_id, time µs, kind, code) in any order."""
        ordered = sorted(rows)
        return cls(
            np.array([row[0] for row in ordered], np.str_),
            np.array([row[1] for row in ordered], np.int64),
            np.array([row[2] for row in ordered], np.str_),
            np.array([row[3] for row in ordered], np.str_),
        )

    def __len__(self) -> int:
        return len(self.times)

    def of_asset(self, asset_id: str) -> Events:
        """The events of one asset, found by bisection."""
        key = np.str_(asset_id)
        return self.take(
            slice(int(np.searchsorted(self.asset_ids, key)), int(np.searchsorted(self.asset_ids, key, "right")))
        )

    def of_assets(self, asset_ids: Sequence[str]) -> Events:
        return self.take(np.isin(self.asset_ids, np.array(asset_ids, np.str_)))

    def times_of(self, kind: str, code: str = ANY_CODE) -> Times:
        """Times int64[k] of the events of `kind` and `code` (ANY_CODE: every code), as they stand."""
        wanted = (self.kinds == kind) & ((self.codes == code) | (code == ANY_CODE))
        return self.take(wanted).times

    def take(self, rows: Any) -> Events:
        """Some of the events: a slice, positions or a mask."""
        return Events(self.asset_ids[rows], self.times[rows], self.kinds[rows], self.codes[rows])


@dataclass(frozen=True, slots=True)
class Part:
    """Where one asset's rows lie: file, and (row group, first row in it, rows) for each row group it touches."""

    asset_id: str
    asset_class: str
    file: str
    groups: tuple[Run, ...]
    rows: int


@dataclass(frozen=True, slots=True)
class Excerpt:
    """What a task needs to know of a history to read some assets of one class. It does not grow with the fleet.

    Entries ascend by asset; `failed` names the components that ever failed on any asset of the class.
    """

    uri: str
    assets: tuple[Asset, ...]
    parts: tuple[Part, ...]
    events: Events
    failed: frozenset[str]

    def singles(self) -> list[Excerpt]:
        """The same, an asset at a time."""
        return [
            dataclasses.replace(self, assets=(asset,), parts=(part,), events=self.events.of_asset(asset.asset_id))
            for asset, part in zip(self.assets, self.parts, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Imported:
    """What a reader of foreign data found; `readings` ascend by asset id. `labels` are columns kept for evaluation:
    they stand beside the history and are never a sensor."""

    fleet: FleetSpec
    sensors: Mapping[str, Sequence[str]]  # of each asset class
    readings: Sequence[tuple[Asset, Times, Values]]
    events: Sequence[tuple[str, int, str, str]] = ()
    labels: Mapping[str, NDArray[Any]] | None = None


def content_digest(asset: Asset, sensors: Sequence[str], readings: AssetReadings, events: Events) -> str:
    """Hex sha256 of one asset's content: equal for equal readings, events and attributes, however they are stored.

    `events` are this asset's; `readings.values` has one column per name in `sensors`. Every NaN counts as the same.
    """
    digest = hashlib.sha256()

    def text(word: str) -> None:
        encoded = word.encode()
        digest.update(struct.pack("<q", len(encoded)) + encoded)

    text(asset.asset_id)
    text(asset.asset_class)
    for name in sorted(asset.attributes):
        value = asset.attributes[name]
        text(name)
        digest.update(b"nan" if math.isnan(value) else struct.pack("<d", value))
    digest.update(struct.pack("<qq", len(readings.times), len(sensors)))
    digest.update(np.ascontiguousarray(readings.times, "<i8").tobytes())
    for name, column in sorted(zip(sensors, range(len(sensors)), strict=True)):
        text(name)
        values = np.ascontiguousarray(readings.values[:, column], "<f4")
        digest.update(np.where(np.isnan(values), np.float32("nan"), values).tobytes())
    digest.update(struct.pack("<q", len(events)) + np.ascontiguousarray(events.times, "<i8").tobytes())
    for kind, code in zip(events.kinds, events.codes, strict=True):
        text(str(kind))
        text(str(code))
    return digest.hexdigest()
