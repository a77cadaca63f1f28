"""Read XGBoost's UBJSON: its float32 arrays are stored as they are, so no decimal text rounds a threshold."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

_ARRAYS = {"i": ">i1", "U": ">u1", "I": ">i2", "l": ">i4", "L": ">i8", "d": ">f4", "D": ">f8"}
_SCALARS = {m: struct.Struct(f) for m, f in zip("iUIlLdD", (">b", ">B", ">h", ">i", ">q", ">f", ">d"), strict=True)}
_CONSTANTS = {"T": True, "F": False, "Z": None}


def read_ubjson(data: bytes) -> Any:
    """The document in `data`. A typed array becomes a NumPy array in native order; the rest plain Python."""
    return _Reader(data).value()


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def value(self) -> Any:
        return self._of(self._mark())

    def _of(self, mark: str) -> Any:
        scalar = _SCALARS.get(mark)
        if scalar is not None:
            self._at += scalar.size
            return scalar.unpack_from(self._data, self._at - scalar.size)[0]
        if mark in _CONSTANTS:
            return _CONSTANTS[mark]
        if mark == "S":
            return self._text()
        if mark == "[":
            return self._array()
        if mark == "{":
            return self._object()
        raise ValueError(f"byte {self._at - 1}: expected a UBJSON mark, found {mark!r}")

    def _mark(self) -> str:
        self._at += 1
        return self._data[self._at - 1 : self._at].decode("latin-1")

    def _peek(self) -> str:
        return self._data[self._at : self._at + 1].decode("latin-1")

    def _numbers(self, mark: str, count: int) -> np.ndarray[Any, Any]:
        kind = np.dtype(_ARRAYS[mark])
        found = np.frombuffer(self._data, kind, count, self._at)
        self._at += count * kind.itemsize
        return found.astype(kind.newbyteorder("="))

    def _text(self) -> str:
        size = int(self.value())
        self._at += size
        return self._data[self._at - size : self._at].decode()

    def _array(self) -> Any:
        if self._peek() == "$":
            self._at += 1
            kind = self._mark()
            return self._numbers(kind, self._count())
        if self._peek() == "#":
            return [self.value() for _ in range(self._count())]
        items = []
        while self._peek() != "]":
            items.append(self.value())
        self._at += 1
        return items

    def _object(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while self._peek() != "}":
            key = self._text()
            found[key] = self.value()
        self._at += 1
        return found

    def _count(self) -> int:
        if self._mark() != "#":
            raise ValueError(f"byte {self._at - 1}: expected '#' and a count")
        return int(self.value())
