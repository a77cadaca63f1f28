"""Event-time windows: a ring of slots per asset, and the rules by which a reading finds its slot.

The law: what a window says is a pure function of the set of readings inside it. Whatever order they came in, however
often, in one block or one by one, the ring holds the same bytes. Sums are kept per *group* of 16 slots at fixed places
of the cadence grid and are always the sum of the group's own slots in slot order, so nothing drifts, nothing remembers
a spike, and it does not matter where a stream began.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from wheeltapper.kernel import heapless_kernel, inline_kernel, merged_kernel
from wheeltapper.lanes import WIDTH, choose, load, store, widen, zeros_4, zeros_8
from wheeltapper.regimes import Regimes
from wheeltapper.spec import STATISTICS, ClassSpec, features_of

GROUP = 16  # slots; the group's presence mask is 16 bits wide
EVENTS_KEPT = 32  # newest events remembered per event feature; counts saturate there
EMPTY = np.iinfo(np.int64).min  # an event time that no reading has
NO_REGIME = 255  # of a slot without a reading
FULL_GROUP = 0xFFFF  # all 16 slots have all sensors
_EMPTY = int(EMPTY)
# Through int(…), which is a number like any other: for a literal Numba compiles every callee once more.
_START = 0


class RowStatus(IntEnum):
    """How a row was answered; the numbers of `RowStatus` on the wire."""

    OK = 0
    DUPLICATE = 1
    SUPERSEDED = 2
    TOO_LATE = 3
    FUTURE = 4
    UNKNOWN_HANDLE = 5
    WRONG_WIDTH = 6
    NO_MODEL = 7
    TAKEN = 8
    UNKNOWN_CODE = 9
    BLOCKED = 10


# Plain numbers for the kernels.
_OK, _DUPLICATE, _SUPERSEDED, _TOO_LATE = (
    int(RowStatus[name]) for name in ("OK", "DUPLICATE", "SUPERSEDED", "TOO_LATE")
)


class Plan(NamedTuple):
    """A class as the kernels see it: numbers and arrays only."""

    cadence_us: int  # 0: one slot per reading
    slots: int  # of the ring, a multiple of GROUP
    lateness: int  # slots
    skew_us: int
    windows: npt.NDArray[np.int64]  # slots, ascending
    asked: npt.NDArray[np.bool_]  # per STATISTICS
    order: npt.NDArray[
        np.int64
    ]  # column c of the ring is sensor order[c] of the class: those with features stand first
    sensors: int  # how many have features
    width: int  # of a row of sensors in memory: all of them, padded to whole lanes
    minimum: npt.NDArray[np.float32]
    maximum: npt.NDArray[np.float32]
    regime_sensors: npt.NDArray[np.int64]
    centroids: npt.NDArray[np.float64]
    regime_scale: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float32]  # [regimes + 1, width]
    inverse_std: npt.NDArray[np.float32]  # [regimes + 1, width]
    event_windows: npt.NDArray[np.int64]  # µs, all event features' windows end to end
    event_begin: npt.NDArray[np.int64]  # [events + 1] into event_windows
    event_since: npt.NDArray[np.bool_]
    statics: int
    features: int


class Windows(NamedTuple):
    """State of `capacity` assets of one class. Row a of every array belongs to asset a.

    Rows of sensors are as wide as the plan says: what stands beyond the last sensor means nothing.
    """

    values: npt.NDArray[np.float32]  # [a, slot, sensor] as received, NaN = missing
    times: npt.NDArray[np.int64]  # [a, slot] event time, EMPTY = no reading
    regime: npt.NDArray[np.uint8]  # [a, slot]
    newest: npt.NDArray[np.int64]  # [a] slot number of the newest reading, EMPTY = none yet
    full: npt.NDArray[np.bool_]  # [a, slot] every sensor of the slot is there
    sums: npt.NDArray[np.float64]  # [a, group, (Σx, Σx², Σ position·x), sensor]
    bounds: npt.NDArray[np.float32]  # [a, group, (low, high), sensor]
    presence: npt.NDArray[np.uint16]  # [a, group, sensor] one bit per slot that is not full
    fullness: npt.NDArray[np.uint16]  # [a, group] one bit per full slot
    events: npt.NDArray[np.int64]  # [a, event feature, EVENTS_KEPT] ascending, EMPTY in front
    statics: npt.NDArray[np.float32]  # [a, attribute]


def compile_plan(spec: ClassSpec, regimes: Regimes) -> Plan:
    """The kernel's view of a class and its learnt regimes."""
    order = sorted(range(len(spec.sensors)), key=lambda i: not spec.sensors[i].feature)
    sensors = [spec.sensors[i] for i in order]
    names = [s.name for s in sensors]
    # One group more than the longest window plus the allowed lateness: a new group clears its place 16 slots at once.
    need = spec.windows[-1] + spec.lateness + GROUP if spec.windows else 1 + spec.lateness + GROUP
    windows_us = [w for event in spec.events for w in event.windows_us]
    begins = np.cumsum([0, *(len(event.windows_us) for event in spec.events)])
    regime_sensors = spec.regime.sensors if spec.regime else ()
    width = -(-len(order) // WIDTH) * WIDTH
    return Plan(
        cadence_us=spec.cadence_us,
        slots=-(-need // GROUP) * GROUP,
        lateness=spec.lateness,
        skew_us=spec.skew_us,
        windows=np.array(spec.windows, np.int64),
        asked=np.array([s in spec.statistics for s in STATISTICS], np.bool_),
        order=np.array(order, np.int64),
        sensors=sum(s.feature for s in sensors),
        width=width,
        minimum=np.array([s.minimum for s in sensors], np.float32),
        maximum=np.array([s.maximum for s in sensors], np.float32),
        regime_sensors=np.array([names.index(s) for s in regime_sensors], np.int64),
        centroids=np.array(regimes.centroids, np.float64),
        regime_scale=np.array(regimes.scale, np.float64),
        mean=_padded(regimes.mean[:, order], width),
        inverse_std=_padded(regimes.inverse_std[:, order], width),
        event_windows=np.array(windows_us, np.int64),
        event_begin=np.array(begins, np.int64),
        event_since=np.array([event.since for event in spec.events], np.bool_),
        statics=len(spec.statics),
        features=len(features_of(spec)),
    )


def _padded(rows: npt.NDArray[np.float32], width: int) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(np.pad(rows, ((0, 0), (0, width - rows.shape[1]))), np.float32)


def allocate(plan: Plan, capacity: int) -> Windows:
    """Empty windows for `capacity` assets. Pages are touched only when an asset's row is reset for its first use."""
    width, groups = plan.width, plan.slots // GROUP
    return Windows(
        values=np.empty((capacity, plan.slots, width), np.float32),
        times=np.empty((capacity, plan.slots), np.int64),
        regime=np.empty((capacity, plan.slots), np.uint8),
        newest=np.full(capacity, EMPTY, np.int64),
        full=np.empty((capacity, plan.slots), np.bool_),
        sums=np.empty((capacity, groups, 3, width), np.float64),
        bounds=np.empty((capacity, groups, 2, width), np.float32),
        presence=np.empty((capacity, groups, width), np.uint16),
        fullness=np.empty((capacity, groups), np.uint16),
        events=np.full((capacity, plan.event_since.size, EVENTS_KEPT), EMPTY, np.int64),
        statics=np.full((capacity, plan.statics), np.nan, np.float32),
    )


def grow(windows: Windows, plan: Plan, capacity: int) -> Windows:
    """A larger copy; what was known stays at its row."""
    larger = allocate(plan, capacity)
    before: list[npt.NDArray[np.generic]] = list(windows)
    after: list[npt.NDArray[np.generic]] = list(larger)
    for old, new in zip(before, after, strict=True):
        new[: len(old)] = old
    return larger


@heapless_kernel
def clear_group(windows: Windows, a: int, group: int) -> None:
    width = windows.values.shape[2]
    for slot in range(group * GROUP, (group + 1) * GROUP):
        windows.times[a, slot] = _EMPTY
        windows.regime[a, slot] = NO_REGIME
        windows.full[a, slot] = False
        for c in range(width):
            windows.values[a, slot, c] = np.nan
    _clear_sums(windows, a, group)


@merged_kernel
def _clear_sums(windows: Windows, a: int, group: int) -> None:
    windows.fullness[a, group] = 0
    for c in range(windows.values.shape[2]):
        windows.presence[a, group, c] = 0
        windows.bounds[a, group, 0, c] = np.inf
        windows.bounds[a, group, 1, c] = -np.inf
    for k in range(3):
        for c in range(windows.values.shape[2]):
            windows.sums[a, group, k, c] = 0.0


@heapless_kernel
def clear(plan: Plan, windows: Windows, a: int) -> None:
    """Forget the readings of asset `a` (its events and attributes stay)."""
    windows.newest[a] = _EMPTY
    for group in range(plan.slots // GROUP):
        clear_group(windows, a, group)


@heapless_kernel
def regime_of(plan: Plan, row: npt.NDArray[np.float32]) -> int:
    """Nearest centroid in standardised units; the fleet-wide row where a regime sensor is missing."""
    regimes = plan.centroids.shape[0]
    best, nearest = np.inf, regimes
    for r in range(regimes):
        distance = 0.0
        for j in range(plan.regime_sensors.size):
            x = (np.float64(row[plan.regime_sensors[j]]) - plan.regime_scale[j, 0]) * plan.regime_scale[j, 1]
            distance += (x - plan.centroids[r, j]) * (x - plan.centroids[r, j])
        if distance < best:
            best, nearest = distance, r
    return int(nearest)


@merged_kernel
def _add_to_group(
    values: npt.NDArray[np.float32],
    mean: npt.NDArray[np.float32],
    inverse_std: npt.NDArray[np.float32],
    normalised: bool,
    position: float,
    sums: npt.NDArray[np.float64],
    bounds: npt.NDArray[np.float32],
    c: int,
    zero: float,
) -> None:
    """Add a slot's sensors from c on, as many as `zero` has lanes, to their group. A missing one adds 0.0"""
    width = values.size
    x = load(values, c, zero)
    if normalised:
        x = (x - load(mean, c, zero)) * load(inverse_std, c, zero)
    low, high = load(bounds, c, zero), load(bounds, width + c, zero)
    store(bounds, c, choose(x < low, x, low))
    store(bounds, width + c, choose(x > high, x, high))
    x = widen(x)
    x = choose(x == x, x, 0.0)  # noqa: PLR0124  not NaN
    store(sums, c, load(sums, c, zero) + x)
    store(sums, width + c, load(sums, width + c, zero) + x * x)
    store(sums, 2 * width + c, load(sums, 2 * width + c, zero) + position * x)


@merged_kernel
def add_slot(plan: Plan, windows: Windows, a: int, slot: int) -> None:
    """Add one slot to its group's sums. Adding slots in ascending order is the group's only definition."""
    ring = slot % plan.slots
    group = ring // GROUP
    position = np.float64(ring % GROUP)
    bit = np.uint16(1 << ring % GROUP)
    regime = windows.regime[a, ring]
    row, mean, inverse_std = windows.values[a, ring], plan.mean[regime], plan.inverse_std[regime]
    sums, bounds = windows.sums[a, group], windows.bounds[a, group]
    normalised = plan.centroids.shape[0] > 0
    c = int(_START)
    while c + 8 <= row.size:
        _add_to_group(row, mean, inverse_std, normalised, position, sums, bounds, c, zeros_8())
        c += 8
    if c < row.size:
        _add_to_group(row, mean, inverse_std, normalised, position, sums, bounds, c, zeros_4())
    if windows.full[a, ring]:
        windows.fullness[a, group] |= bit
    else:
        presence = windows.presence[a, group]
        for c in range(row.size):
            if row[c] == row[c]:
                presence[c] |= bit


@heapless_kernel
def rebuild_group(plan: Plan, windows: Windows, a: int, slot: int) -> None:
    """Sums of the group of `slot`, from its own slots."""
    first = slot % plan.slots // GROUP * GROUP
    group = first // GROUP
    _clear_sums(windows, a, group)
    for ring in range(first, first + GROUP):
        if windows.times[a, ring] != _EMPTY:
            add_slot(plan, windows, a, ring)


@merged_kernel
def write_slot(plan: Plan, windows: Windows, a: int, slot: int, time: int, row: npt.NDArray[np.float32]) -> None:
    ring = slot % plan.slots
    windows.times[a, ring] = time
    windows.regime[a, ring] = regime_of(plan, row)
    full = True
    for c in range(row.size):
        windows.values[a, ring, c] = row[c]
        full &= row[c] == row[c]
    windows.full[a, ring] = full


@inline_kernel
def place(plan: Plan, windows: Windows, a: int, time: int, row: npt.NDArray[np.float32]) -> tuple[int, int, int]:
    """Put one reading into its slot.

    Returns (RowStatus, slot number, event time of the reading that lost its slot or EMPTY). A slot number is valid for
    OK and DUPLICATE. `row` float32 [sensors], in the ring's order, has NaN for everything missing or invalid.
    """
    if plan.cadence_us == 0:
        return _place_by_order(plan, windows, a, time, row)
    slot = time // plan.cadence_us
    newest = windows.newest[a]
    lost = _EMPTY
    ahead = newest == _EMPTY or slot > newest
    if ahead:
        if newest == _EMPTY or slot - newest >= plan.slots:
            clear(plan, windows, a)
        else:
            for group in range(newest // GROUP + 1, slot // GROUP + 1):
                clear_group(windows, a, group % (plan.slots // GROUP))
        windows.newest[a] = slot
    else:
        if newest - slot > plan.lateness:
            return _TOO_LATE, slot, _EMPTY
        lost = windows.times[a, slot % plan.slots]
        if lost == time:
            return _DUPLICATE, slot, _EMPTY
        if lost > time:
            return _SUPERSEDED, slot, _EMPTY
    write_slot(plan, windows, a, slot, time, row)
    if ahead:
        add_slot(plan, windows, a, slot)
    else:
        rebuild_group(plan, windows, a, slot)
    return _OK, slot, lost


@merged_kernel
def _place_by_order(
    plan: Plan, windows: Windows, a: int, time: int, row: npt.NDArray[np.float32]
) -> tuple[int, int, int]:
    """Cadence "reading": slots are the readings themselves in order of event time; a late one moves the later ones up.

    Slot numbers count from 0 and only their differences matter: no sum is kept per group, because the place of a group
    would depend on where the stream began.
    """
    newest = windows.newest[a]
    if newest == _EMPTY:
        clear(plan, windows, a)
        newest = -1
    slot = newest + 1
    oldest = max(0, newest + 1 - plan.slots)
    while slot > oldest and windows.times[a, (slot - 1) % plan.slots] > time:
        slot -= 1
    if slot > oldest and windows.times[a, (slot - 1) % plan.slots] == time:
        if newest - (slot - 1) > plan.lateness:
            return _TOO_LATE, slot - 1, _EMPTY
        return _DUPLICATE, slot - 1, _EMPTY
    if newest + 1 - slot > plan.lateness:
        return _TOO_LATE, slot, _EMPTY
    for later in range(newest + 1, slot, -1):
        windows.times[a, later % plan.slots] = windows.times[a, (later - 1) % plan.slots]
        windows.regime[a, later % plan.slots] = windows.regime[a, (later - 1) % plan.slots]
        windows.full[a, later % plan.slots] = windows.full[a, (later - 1) % plan.slots]
        for c in range(row.size):
            windows.values[a, later % plan.slots, c] = windows.values[a, (later - 1) % plan.slots, c]
    windows.newest[a] = newest + 1
    write_slot(plan, windows, a, slot, time, row)
    return _OK, slot, _EMPTY


@heapless_kernel
def take_event(windows: Windows, a: int, event: int, time: int) -> bool:
    """Remember an event of asset `a` for event feature `event`, in order of time. False: known already, or too old."""
    kept = windows.events[a, event]
    if time <= kept[0]:
        return False
    after = kept.size - 1
    while kept[after] > time:
        after -= 1
    if kept[after] == time:
        return False
    for i in range(after):
        kept[i] = kept[i + 1]
    kept[after] = time
    return True
