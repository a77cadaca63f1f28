"""Read XGBoost's UBJSON: its float32 arrays are stored as they are, so no decimal text rounds a threshold."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

# Marks are compared as the bytes they are: a head has tens of thousands of them.
_ARRAYS = {
    ord(m): np.dtype(f) for m, f in zip("iUIlLdD", (">i1", ">u1", ">i2", ">i4", ">i8", ">f4", ">f8"), strict=True)
}
_NATIVE = {mark: kind.newbyteorder("=") for mark, kind in _ARRAYS.items()}
_SCALARS = {
    ord(m): struct.Struct(f) for m, f in zip("iUIlLdD", (">b", ">B", ">h", ">i", ">q", ">f", ">d"), strict=True)
}
_CONSTANTS = {ord("T"): True, ord("F"): False, ord("Z"): None}
_TEXT, _OPEN, _CLOSE, _BEGIN, _END, _KIND, _COUNT = b"S[]{}$#"


def read_ubjson(data: bytes) -> Any:
    """The document in `data`. A typed array becomes a NumPy array in native order; the rest plain Python.

    ValueError where a mark is not UBJSON's, IndexError or struct.error where the document ends too early.
    """
    return _value(data, 0)[0]


def _value(data: bytes, at: int) -> tuple[Any, int]:
    """What begins at `at`, and where it ends; so do the functions below."""
    mark = data[at]
    at += 1
    scalar = _SCALARS.get(mark)
    if scalar is not None:
        return scalar.unpack_from(data, at)[0], at + scalar.size
    if mark == _TEXT:
        return _text(data, at)
    if mark == _OPEN:
        return _array(data, at)
    if mark == _BEGIN:
        return _object(data, at)
    if mark in _CONSTANTS:
        return _CONSTANTS[mark], at
    raise ValueError(f"byte {at - 1}: expected a UBJSON mark, found {chr(mark)!r}")


def _text(data: bytes, at: int) -> tuple[str, int]:
    size, at = _value(data, at)
    return data[at : at + size].decode(), at + size


def _array(data: bytes, at: int) -> tuple[Any, int]:
    if data[at] == _KIND:
        mark = data[at + 1]
        count, at = _counted(data, at + 2)
        kind = _ARRAYS[mark]
        return np.frombuffer(data, kind, count, at).astype(_NATIVE[mark]), at + count * kind.itemsize
    items = []
    if data[at] == _COUNT:
        count, at = _counted(data, at)
        for _ in range(count):
            item, at = _value(data, at)
            items.append(item)
        return items, at
    while data[at] != _CLOSE:
        item, at = _value(data, at)
        items.append(item)
    return items, at + 1


def _object(data: bytes, at: int) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    while data[at] != _END:
        key, at = _text(data, at)
        found[key], at = _value(data, at)
    return found, at + 1


def _counted(data: bytes, at: int) -> tuple[int, int]:
    if data[at] != _COUNT:
        raise ValueError(f"byte {at}: expected '#' and a count")
    return _value(data, at + 1)
