"""Legal disorder on purpose: rows late within a bound and rows sent twice, the same for the same seed.

The features law says that neither changes a bit of an answer; a replay with disorder proves it.
"""

from __future__ import annotations

import random
from array import array
from collections import defaultdict
from dataclasses import dataclass

from wheeltapper_gateway.rows import Rows


@dataclass(frozen=True, slots=True)
class Disorder:
    """Each row is late by up to `late_us`, or by up to `late_rows` readings of its own asset; `duplicate_share` of the
    rows is sent a second time, late within the same bound."""

    late_us: int = 0
    late_rows: int = 0
    duplicate_share: float = 0.0
    seed: int = 0

    def __bool__(self) -> bool:
        return bool(self.late_us or self.late_rows or self.duplicate_share)


def disordered(rows: Rows, disorder: Disorder, width: int) -> Rows:
    """The rows of one slice in another order of sending. A row stays inside its slice."""
    if not disorder:
        return rows
    chance = random.Random(disorder.seed ^ (rows.times[0] if rows.times else 0))  # noqa: S311 - no secret
    picked = list(range(len(rows)))
    picked += [i for i in picked if chance.random() < disorder.duplicate_share]
    due = (
        _late_by_rows(rows, picked, disorder.late_rows, chance)
        if disorder.late_rows
        else [rows.times[i] for i in picked]
    )
    if disorder.late_us:
        due = [time + chance.randint(0, disorder.late_us) for time in due]
    # Equal times, and the two copies of a row, fall in any order.
    order = sorted(range(len(picked)), key=lambda k: (due[k], chance.random()))
    sent = [picked[k] for k in order]
    values = array("f")
    for i in sent:
        values.extend(rows.values[i * width : (i + 1) * width])
    return Rows(
        array("I", [rows.assets[i] for i in sent]),
        array("q", [rows.times[i] for i in sent]),
        values,
        array("q", [due[k] for k in order]),
    )


def _late_by_rows(rows: Rows, picked: list[int], late_rows: int, chance: random.Random) -> list[int]:
    """For each picked row the time of a row of its asset, up to `late_rows` further."""
    times_of: dict[int, list[int]] = defaultdict(list)
    place = []
    for asset, time in zip(rows.assets, rows.times, strict=True):
        place.append(len(times_of[asset]))
        times_of[asset].append(time)
    due = []
    for i in picked:
        own = times_of[rows.assets[i]]
        due.append(own[min(place[i] + chance.randint(0, late_rows), len(own) - 1)])
    return due
