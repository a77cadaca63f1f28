"""The bytes of a pack: header, section table, sections, sha256. What they mean is `wheeltapper.pack`'s business.

docs/pack-v1.md is the page this follows.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wheeltapper.errors import PackError
from wheeltapper.forest import NODE

MAGIC = b"WTPACK\r\n"
VERSIONS = (1, 2)  # the second has LATER_SECTIONS too; a pack that needs none of them is of the first
ALIGNMENT = 64  # bytes; a cache line, and room for any vector load
TRAILER = 32  # bytes of sha256
SECTIONS_MAX = 1 << 20
PIECE_BYTES = 1 << 20

DTYPES: dict[str, np.dtype[Any]] = {
    "u1": np.dtype("u1"),
    "i4": np.dtype("<i4"),
    "i8": np.dtype("<i8"),
    "f4": np.dtype("<f4"),
    "f8": np.dtype("<f8"),
    "node": NODE,
}
_HEADER = struct.Struct("<8sIIQ40x")
_ENTRY = struct.Struct("<24s4sI4Q")

# name → (type, dimensions), in file order.
FLEET_SECTIONS = {
    "meta": ("u1", 1),
    "nodes": ("node", 1),
    "node_cover": ("f4", 1),
    "tree_begin": ("i8", 1),
    "tree_depth": ("u1", 1),
    "head_trees": ("i8", 2),
    "head_parent": ("i4", 1),
    "head_base": ("f4", 1),
    "head_class": ("i4", 1),
    "head_slot": ("i4", 1),
    "head_level": ("u1", 1),
    "head_scale": ("f4", 2),
    "head_knots": ("i8", 2),
    "knots": ("f4", 2),
    "asset_ids": ("u1", 1),
    "asset_begin": ("i8", 1),
    "asset_class": ("i4", 1),
    "asset_heads": ("i4", 2),
    "asset_reasons": ("u1", 2),
    "asset_statics": ("f4", 2),
    "class_heads": ("i4", 2),
}
LATER_SECTIONS = {"asset_start": ("f8", 2)}
CLASS_SECTIONS = {
    "centroids": ("f8", 2),
    "regime_scale": ("f8", 2),
    "mean": ("f4", 2),
    "inverse_std": ("f4", 2),
    "sketch": ("f4", 2),
    "golden_rows": ("f4", 2),
    "golden_heads": ("i4", 2),
    "golden_margins": ("f4", 2),
}


def section_kinds(class_count: int, version: int = 1) -> dict[str, tuple[str, int]]:
    """Every section of a pack of `class_count` classes, in file order: name → (type, dimensions)."""
    own = {f"c{k}.{name}": kind for k in range(class_count) for name, kind in CLASS_SECTIONS.items()}
    return {**_fleet_sections(version), **own}


def _fleet_sections(version: int) -> dict[str, tuple[str, int]]:
    return FLEET_SECTIONS if version == 1 else {**FLEET_SECTIONS, **LATER_SECTIONS}


def seal(arrays: Mapping[str, NDArray[Any]], class_count: int) -> bytes:
    """The file that holds `arrays`. Raises ValueError where one is missing or of another type: the caller's mistake."""
    return b"".join(sealed(arrays, class_count))


def sealed(arrays: Mapping[str, NDArray[Any]], class_count: int) -> Iterator[bytes]:
    """The file of `seal`, piece by piece, so that arrays may be mapped from disk and larger than memory."""
    version = VERSIONS[any(name in arrays for name in LATER_SECTIONS)]
    kinds = section_kinds(class_count, version)
    if list(arrays) != list(kinds):
        raise ValueError(f"expected sections {list(kinds)}, found {list(arrays)}")
    start = offset = _aligned(_HEADER.size + _ENTRY.size * len(kinds))
    table = bytearray()
    for name, (code, dimensions) in kinds.items():
        array = arrays[name]
        if array.dtype != DTYPES[code] or array.ndim != dimensions:
            raise ValueError(f"section {name}: expected {dimensions}-d {code}, found {array.ndim}-d {array.dtype}")
        shape = (*array.shape, 1)[:2]
        table += _ENTRY.pack(name.encode(), code.encode(), dimensions, *shape, offset, array.nbytes)
        offset = _aligned(offset + array.nbytes)
    head = _HEADER.pack(MAGIC, version, len(kinds), offset + TRAILER) + bytes(table)
    digest = hashlib.sha256()
    sections = (piece for name in kinds for piece in _padded(arrays[name]))
    for piece in chain([head + bytes(start - len(head))], sections):
        digest.update(piece)
        yield piece
    yield digest.digest()


def _padded(array: NDArray[Any]) -> Iterator[bytes]:
    """One section's bytes up to the next section, at most PIECE_BYTES at a time."""
    rows = max(1, PIECE_BYTES // max(1, array[:1].nbytes))
    for begin in range(0, len(array), rows):
        yield array[begin : begin + rows].tobytes()
    yield bytes(_aligned(array.nbytes) - array.nbytes)


def unseal(data: Any) -> tuple[dict[str, NDArray[Any]], str]:
    """The sections of a file as read-only views of `data` (bytes or a map), and its sha256 in hex.

    Every offset, length and type is checked before it is used, and the digest before anything is believed. Raises
    PackError with what was expected and found.
    """
    size = len(data)
    smallest = _HEADER.size + TRAILER
    if size < smallest:
        raise PackError(f"pack is cut short: expected at least {smallest} bytes, found {size}", _COPY_AGAIN)
    magic, version, count, length = _HEADER.unpack_from(data, 0)
    if magic != MAGIC:
        raise PackError(f"not a pack: expected the magic {MAGIC!r}, found {magic!r}")
    if version not in VERSIONS:
        raise PackError(
            f"pack is of version {version}, this wheeltapper reads versions {VERSIONS[0]} and {VERSIONS[1]}",
            "train again with this version, or install the wheeltapper that wrote the pack",
        )
    if length != size:
        raise PackError(f"pack has the wrong length: expected {length} bytes, found {size}", _COPY_AGAIN)
    if count > SECTIONS_MAX or _aligned(_HEADER.size + _ENTRY.size * count) > size - TRAILER:
        raise PackError(f"pack of {size} bytes cannot hold the {count} sections it states")
    entries = [_ENTRY.unpack_from(data, _HEADER.size + _ENTRY.size * i) for i in range(count)]
    shared = len(_fleet_sections(version))
    own = count - shared
    if own < 0 or own % len(CLASS_SECTIONS):
        raise PackError(f"pack has {count} sections: expected {shared} and {len(CLASS_SECTIONS)} for each class")
    placed = _placed(entries, section_kinds(own // len(CLASS_SECTIONS), version), size)
    stated = bytes(data[size - TRAILER :])
    with memoryview(data) as view, view[: size - TRAILER] as covered:
        found = hashlib.sha256(covered).digest()
    if found != stated:
        raise PackError(f"pack is altered: expected sha256 {stated.hex()}, found {found.hex()}", _COPY_AGAIN)
    arrays = {
        name: np.ndarray(shape, dtype, buffer=data, offset=offset) for name, (shape, dtype, offset) in placed.items()
    }
    return arrays, found.hex()


def _placed(
    entries: Sequence[tuple[Any, ...]], kinds: Mapping[str, tuple[str, int]], size: int
) -> dict[str, tuple[tuple[int, ...], np.dtype[Any], int]]:
    """Shape, type and offset of every section, once each table entry is the only legal one for its shape."""
    placed: dict[str, tuple[tuple[int, ...], np.dtype[Any], int]] = {}
    offset = _aligned(_HEADER.size + _ENTRY.size * len(entries))
    for (name, (code, dimensions)), entry in zip(kinds.items(), entries, strict=True):
        rows, columns = entry[3], entry[4]
        dtype = DTYPES[code]
        nbytes = rows * columns * dtype.itemsize
        stated = (entry[0].rstrip(b"\0"), entry[1].rstrip(b"\0"), *entry[2:])
        legal = (name.encode(), code.encode(), dimensions, rows, columns, offset, nbytes)
        if stated != legal or (dimensions == 1 and columns != 1):
            raise PackError(f"pack's section table is wrong at {name!r}: expected {legal}, found {stated}")
        if max(rows, columns, offset + nbytes) > size - TRAILER:
            raise PackError(f"section {name!r} of {rows} × {columns} ends beyond the pack's {size - TRAILER} bytes")
        placed[name] = ((rows,) if dimensions == 1 else (rows, columns), dtype, offset)
        offset = _aligned(offset + nbytes)
    if offset != size - TRAILER:
        raise PackError(f"pack's sections end at {offset}: expected {size - TRAILER}, where its sha256 stands")
    return placed


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


_COPY_AGAIN = "copy the pack again from the registry; `wheeltapper release verify` checks the registry's own"
