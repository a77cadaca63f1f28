"""The state of a live fleet as bytes and back: windows and open alarms, a run of assets at a time.

Bytes are in the layout of one ring. `ring_of` names that layout, and bytes of another one must not be put back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wheeltapper.errors import Refused
from wheeltapper.live import RING_FIELDS, LiveFleet, event_names, ring_names
from wheeltapper.windows import EMPTY

_NOTHING = (0, 0)  # of the rows: only how they are laid out
_RING = {"values", "times", "regime", "full", "sums", "bounds", "presence", "fullness"}  # cleared by the first reading


@dataclass(frozen=True, slots=True)
class ClassState:
    """What the bytes of a class mean: its ring, its outputs in order, and the assets in order of their rows."""

    name: str
    ring: str
    outputs: list[str]
    assets: list[str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def describe(fleet: LiveFleet) -> list[ClassState]:
    """Every class of the fleet as it stands."""
    return [
        ClassState(name, ring_of(fleet, name), fleet.outputs(name), fleet.assets(name)) for name in fleet.class_names()
    ]


def ring_of(fleet: LiveFleet, asset_class: str) -> str:
    """Hex digest of everything that the bytes of a class's windows depend on, their sensors and events by name."""
    held = fleet.held(asset_class, _NOTHING)
    names = (ring_names(held), event_names(held.known.spec), held.known.spec.statics)
    digest = hashlib.sha256(repr(names).encode())
    for name in RING_FIELDS:
        shaped = np.asarray(getattr(held.plan, name))
        digest.update(repr((shaped.dtype.str, shaped.shape)).encode())
        digest.update(shaped.tobytes())
    for column in _columns(fleet, asset_class, _NOTHING):
        digest.update(repr((column.dtype.str, column.shape[1:])).encode())
    return digest.hexdigest()


def save_rows(fleet: LiveFleet, asset_class: str, begin: int, end: int) -> bytes:
    """The windows and alarms of the assets in rows [begin, end), column behind column.

    The ring of an asset without a reading is zeros here: in memory nobody has written it, and it may hold anything.
    """
    windows = fleet.held(asset_class, (begin, end)).windows
    unread = np.flatnonzero(windows.newest[begin:end] == EMPTY)
    parts = []
    for name, column in windows._asdict().items():
        part = column[begin:end]
        if name in _RING and len(unread):
            part = part.copy()
            part[unread] = 0
        parts.append(part)
    parts += [column[begin:end] for column in _alarms(fleet, asset_class, _NOTHING)]
    return b"".join(part.tobytes() for part in parts)


def restore(fleet: LiveFleet, state: ClassState, begin: int, end: int, data: memoryview) -> None:
    """Put back what `save_rows` gave for rows [begin, end) of `state`, whose assets are open in the fleet.

    Alarms of outputs that the fleet does not have are left out. Raises Refused where ring or length differ.
    """
    if ring_of(fleet, state.name) != state.ring:
        raise Refused(f"expected windows laid out for class {state.name!r} as it is, found other ones")
    rows = fleet.open_assets(state.name, state.assets[begin:end])
    at = 0
    for column in _columns(fleet, state.name):
        part, at = _part(data, at, column.dtype, (len(rows), *column.shape[1:]))
        column[rows] = part
    shown = fleet.outputs(state.name)
    for column in _alarms(fleet, state.name):
        part, at = _part(data, at, column.dtype, (len(rows), len(state.outputs)))
        for before, output in enumerate(state.outputs):
            if output in shown:
                column[rows, shown.index(output)] = part[:, before]
    if at != len(data):
        raise Refused(f"expected {at:,} bytes of {len(rows)} assets, found {len(data):,}")


def runs(fleet: LiveFleet, state: ClassState, bytes_max: int) -> Iterator[tuple[int, int]]:
    """[begin, end) of rows whose bytes come to `bytes_max` at most, one row at least."""
    row_bytes = sum(column[:1].nbytes for of in (_columns, _alarms) for column in of(fleet, state.name, _NOTHING))
    step = max(1, bytes_max // max(row_bytes, 1))
    for begin in range(0, len(state.assets), step):
        yield begin, min(begin + step, len(state.assets))


def _columns(fleet: LiveFleet, asset_class: str, read: tuple[int, int] | None = None) -> list[npt.NDArray[Any]]:
    return list(fleet.held(asset_class, read).windows)


def _alarms(fleet: LiveFleet, asset_class: str, read: tuple[int, int] | None = None) -> list[npt.NDArray[Any]]:
    assets = fleet.held(asset_class, read).assets
    return [assets.alarm, assets.run]


def _part(data: memoryview, at: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> tuple[npt.NDArray[Any], int]:
    size = int(np.prod(shape)) * dtype.itemsize
    if at + size > len(data):
        raise Refused(f"expected at least {at + size:,} bytes of window state, found {len(data):,}")
    return np.frombuffer(data[at : at + size], dtype).reshape(shape), at + size
