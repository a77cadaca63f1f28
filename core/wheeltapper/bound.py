"""What the block path works on, bound into one table, and the two calls by which Python hands it a block."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from wheeltapper.answers import columns
from wheeltapper.features import scratch_for
from wheeltapper.forest import build_forest
from wheeltapper.kernel import heapless_kernel
from wheeltapper.memory import keeper, table_for
from wheeltapper.ordering import order_rows
from wheeltapper.regimes import no_regimes
from wheeltapper.scoring import Assets, Columns, Heads, Work, score_block, take_events
from wheeltapper.spec import ClassSpec, Sensor
from wheeltapper.windows import Plan, Windows, allocate, compile_plan

_SPARE_REVISIONS = 1024


class Room(NamedTuple):
    """Working memory over blocks of up to m rows, kept from call to call."""

    order: npt.NDArray[np.int64]  # [m]
    spare: npt.NDArray[np.int64]  # [m] for sorting
    revised: Columns  # of m rows, as late as the class allows, and some to spare


class Bound(NamedTuple):
    """Everything of one class that a block touches."""

    plan: Plan
    windows: Windows
    heads: Heads
    assets: Assets
    work: Work
    room: Room


def work_for(plan: Plan, slots: int) -> Work:
    """Working memory for one reading of a class of so many slots."""
    width = plan.features
    return Work(
        scratch_for(plan),
        np.empty(plan.minimum.size, np.float32),
        np.empty(width, np.float32),
        np.empty(2 * width + 1, np.float32),
        np.empty(max(slots, 1), np.float32),
    )


def room_for(plan: Plan, outputs: int, rows_max: int) -> Room:
    """Working memory for blocks of up to `rows_max` rows."""
    revised = columns(rows_max + plan.lateness + _SPARE_REVISIONS, outputs, plan.features)
    return Room(np.empty(rows_max, np.int64), np.empty(rows_max, np.int64), revised)


def _specimen() -> Bound:
    """One of the type that every class has: kernels are compiled once, whatever is bound."""
    spec = ClassSpec("", (Sensor(""),), 1, (), (), 0, 0, ())
    plan = compile_plan(spec, no_regimes(spec))
    forest = build_forest([])
    pair = np.zeros((0, 2), np.float32)
    pair.flags.writeable = False
    heads = Heads(
        kind=np.zeros(0, np.uint8),
        slots=np.zeros((0, 2), np.int64),
        cap=np.zeros(0, np.float64),
        threshold=np.zeros(0, np.float32),
        off=np.zeros(0, np.float32),
        hold=np.zeros(0, np.int64),
        actual=np.zeros(0, np.int64),
        moves=np.zeros(0, np.bool_),
        level=forest.tree_depth,
        scale=pair,
        knots_of=forest.head_trees,
        knots=pair,
        forest=forest,
    )
    assets = Assets(
        np.zeros((0, 1), np.int32), np.zeros((0, 1)), np.zeros((0, 1), np.uint8), np.zeros((0, 1), np.int64)
    )
    return Bound(plan, allocate(plan, 0), heads, assets, work_for(plan, 1), room_for(plan, 1, 1))


_put, _bound_at = keeper(_specimen)


@heapless_kernel
def _write(table: npt.NDArray[np.uint8], bound: Bound) -> bool:
    fits: bool = _put(table, bound)
    return fits


def bind(bound: Bound) -> npt.NDArray[np.uint8]:
    """The table by which kernels find `bound`. It holds addresses: keep `bound` as long as the table is used."""
    table = table_for(bound)
    if not _write(table, bound):
        raise RuntimeError(f"expected a record of at most {table.nbytes:,} bytes, found a larger one")
    return table


@heapless_kernel
def score_rows(
    table: npt.NDArray[np.uint8],
    start: int,
    end: int,
    is_ordered: bool,
    rows: npt.NDArray[np.int64],
    times: npt.NDArray[np.int64],
    values: npt.NDArray[np.float32],
    now_us: int,
    historical: bool,
    repeated: bool,
    out_rows: npt.NDArray[np.int64],
    out_times: npt.NDArray[np.int64],
    out_status: npt.NDArray[np.uint8],
    out_values: npt.NDArray[np.float32],
    out_levels: npt.NDArray[np.uint8],
    out_alarms: npt.NDArray[np.uint8],
    out_health: npt.NDArray[np.uint8],
    out_features: npt.NDArray[np.float32],
) -> tuple[int, int]:
    """`score_block` over the rows start … end of a block, once they are in order; table: of `bind`, with room for all.
    is_ordered: `room.order` holds their order already; else they are put in order first.

    The out columns are those of `Columns`, one by one, for a tuple costs a call more than its arrays. Returns (rows
    answered, revisions in `room.revised`); where it stopped early, it goes on with the rows answered as `start`.
    """
    plan, windows, heads, assets, work, room = _bound_at(table)
    if not is_ordered:
        order_rows(rows, times, room.order, room.spare)
    out = Columns(out_rows, out_times, out_status, out_values, out_levels, out_alarms, out_health, out_features)
    return score_block(
        plan, windows, heads, assets, work, room.order[:end], start, rows, times, values, now_us, historical, repeated,
        out, room.revised,
    )  # fmt: skip


@heapless_kernel
def take_rows(
    table: npt.NDArray[np.uint8],
    start: int,
    rows: npt.NDArray[np.int64],
    times: npt.NDArray[np.int64],
    features: npt.NDArray[np.uint64],
    now_us: int,
    repeated: bool,
    status: npt.NDArray[np.uint8],
) -> tuple[int, int]:
    """`take_events` over n rows in any order; otherwise as `score_rows`."""
    plan, windows, heads, assets, work, room = _bound_at(table)
    order = room.order[: rows.size]
    if start == 0:
        order_rows(rows, times, order, room.spare)
    return take_events(
        plan, windows, heads, assets, work, order, start, rows, times, features, now_us, repeated, status, room.revised
    )
