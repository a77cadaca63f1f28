"""A fleet's models in one verified, mapped file: `write_pack` makes one, `open_pack` reads it.

docs/pack-v1.md is the format; `pack_layout` holds its bytes, `pack_meta` its words, `pack_content` what the writer is
given, `pack_check` the rules that make the kernels safe.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wheeltapper.errors import NotFound, PackError
from wheeltapper.forest import Forest
from wheeltapper.outputs import Why
from wheeltapper.pack_check import check_arrays, check_golden
from wheeltapper.pack_content import AssetContent, ClassContent, HeadContent, PackContent, sealed_content
from wheeltapper.pack_layout import unseal
from wheeltapper.pack_meta import Output, read_meta
from wheeltapper.regimes import Regimes
from wheeltapper.spec import ClassSpec

__all__ = [
    "AssetContent",
    "ClassContent",
    "HeadContent",
    "Output",
    "Pack",
    "PackClass",
    "PackContent",
    "Why",
    "open_pack",
    "write_pack",
]


@dataclass(frozen=True, slots=True)
class PackClass:
    """One asset class of a pack, with F features and s slots. Arrays are read-only views of the file.

    heads: int32[s], who answers for an unknown asset, -1 none; sketch: float32[F, 17]; golden_rows: float32[g, F];
    golden_heads: int32[g, s]; golden_margins: float32[g, s].
    """

    index: int
    spec: ClassSpec
    outputs: tuple[Output, ...]
    regimes: Regimes
    heads: NDArray[np.int32]
    sketch: NDArray[np.float32]
    golden_rows: NDArray[np.float32]
    golden_heads: NDArray[np.int32]
    golden_margins: NDArray[np.float32]

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def features(self) -> int:
        return int(self.golden_rows.shape[1])

    @property
    def slots(self) -> int:
        return len(self.heads)


@dataclass(frozen=True, slots=True)
class Pack:
    """An open pack. H heads, A assets sorted by id, S the most slots, X the most static attributes of any class.

    head_class, head_slot: int32[H]; head_level: uint8[H]; head_scale: float32[H, 2]; head_knots: int64[H, 2] into
    knots: float32[K, 2]; asset_class: int32[A]; asset_heads: int32[A, S], -1 none; asset_reasons: uint8[A, S] (`Why`);
    asset_statics: float32[A, X]; asset_start: float64[A, Z], Z the widest start of any class; class_heads:
    int32[classes, S].
    """

    sha256: str
    size_bytes: int
    meta: dict[str, Any]
    fleet: str
    seed: int
    kernels: str
    lineage: dict[str, Any]
    classes: tuple[PackClass, ...]
    forest: Forest
    head_class: NDArray[np.int32]
    head_slot: NDArray[np.int32]
    head_level: NDArray[np.uint8]
    head_scale: NDArray[np.float32]
    head_knots: NDArray[np.int64]
    knots: NDArray[np.float32]
    asset_ids: NDArray[np.uint8]
    asset_begin: NDArray[np.int64]
    asset_class: NDArray[np.int32]
    asset_heads: NDArray[np.int32]
    asset_reasons: NDArray[np.uint8]
    asset_statics: NDArray[np.float32]
    asset_start: NDArray[np.float64]
    class_heads: NDArray[np.int32]

    @staticmethod
    def from_bytes(data: bytes, kernels: str | None = None) -> Pack:
        """A pack in memory, verified like a file. Raises PackError."""
        return _read(data, kernels)

    @property
    def asset_count(self) -> int:
        return len(self.asset_class)

    def asset_id(self, index: int) -> str:
        return self._id(index).decode()

    def asset_index(self, asset_id: str) -> int:
        """Position of an asset, or -1 where the pack does not know it. Bisects the mapped ids: no memory of its own."""
        wanted = asset_id.encode()
        found = bisect_left(range(self.asset_count), wanted, key=self._id)
        return found if found < self.asset_count and self._id(found) == wanted else -1

    def class_named(self, name: str) -> PackClass:
        """The class called `name`. Raises KeyError with the known names where there is none."""
        for one in self.classes:
            if one.name == name:
                return one
        raise KeyError(f"asset class {name!r} is not one of {[one.name for one in self.classes]}")

    def _id(self, index: int) -> bytes:
        return self.asset_ids[self.asset_begin[index] : self.asset_begin[index + 1]].tobytes()


def write_pack(content: PackContent) -> bytes:
    """The file for `content`: same content, same bytes. Reads it back before it hands it over.

    Raises ValueError where the content does not fit the format, PackError where it breaks a rule a reader would refuse.
    """
    data = b"".join(sealed_content(content))
    Pack.from_bytes(data)
    return data


def save_pack(content: PackContent, path: Path) -> None:
    """Write the file for `content` to `path`, in pieces, and read it back; the bytes are those of `write_pack`."""
    with path.open("wb") as file:
        for piece in sealed_content(content):
            file.write(piece)
    open_pack(path)


def open_pack(path: str | Path, kernels: str | None = None) -> Pack:
    """Map and verify the pack at `path`; `kernels`: refuse one trained with other feature code than this digest.

    The file must not change while it is open, as in a registry, where packs are immutable. Raises NotFound, PackError.
    """
    try:
        with Path(path).open("rb") as file:
            if not file.seek(0, 2):
                raise PackError(f"{path}: pack is cut short: found an empty file")
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise NotFound(f"{path}: expected a pack, found {error.strerror}") from error
    try:
        return _read(data, kernels)
    except PackError as error:
        raise PackError(f"{path}: {error}", error.hint) from error


def _read(data: Any, kernels: str | None) -> Pack:
    arrays, sha256 = unseal(data)
    meta = read_meta(arrays["meta"].tobytes())
    if kernels is not None and kernels != meta.kernels:
        raise PackError(
            f"pack was trained with feature kernels {meta.kernels}, this wheeltapper computes {kernels}",
            "train again with this version, or serve with the version that trained it",
        )
    specs = [spec for spec, _ in meta.classes]
    arrays.setdefault("asset_start", np.empty((len(arrays["asset_class"]), 0)))  # what a pack of version 1 has
    slots = [outputs[-1].end if outputs else 0 for _, outputs in meta.classes]
    forest = Forest(*(arrays[name] for name in Forest._fields))
    check_arrays(arrays, forest, specs, slots)
    classes = []
    for k, (spec, outputs) in enumerate(meta.classes):
        own = {name.partition(".")[2]: array for name, array in arrays.items() if name.startswith(f"c{k}.")}
        regimes = Regimes(own["centroids"], own["regime_scale"], own["mean"], own["inverse_std"])
        golden = (own["golden_rows"], own["golden_heads"], own["golden_margins"])
        check_golden(forest, spec.name, *golden)
        heads = arrays["class_heads"][k, : slots[k]]
        classes.append(PackClass(k, spec, outputs, regimes, heads, own["sketch"], *golden))
    shared = {name: array for name, array in arrays.items() if name in Pack.__dataclass_fields__ and name != "meta"}
    return Pack(
        sha256=sha256,
        size_bytes=len(data),
        meta=meta.document,
        fleet=meta.fleet,
        seed=meta.seed,
        kernels=meta.kernels,
        lineage=meta.lineage,
        classes=tuple(classes),
        forest=forest,
        **shared,
    )
