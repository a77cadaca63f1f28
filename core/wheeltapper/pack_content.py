"""What goes into a pack, as training hands it over, and the writer. Same content, same bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wheeltapper.forest import Forest, Trees, build_forest, margins
from wheeltapper.outputs import Why
from wheeltapper.pack_layout import sealed
from wheeltapper.pack_meta import FORMAT, Output, canonical_json, outputs_to_json
from wheeltapper.regimes import Regimes, no_regimes
from wheeltapper.spec import ClassSpec, features_of, to_json

QUANTILES = 17  # of a sketch: 0/16, 1/16 … 16/16


@dataclass(frozen=True, slots=True)
class HeadContent:
    """One head. parent: position of the head it continues among the content's heads, before it, or -1.

    base: where it starts without a parent; scale: (a, b) of docs/pack-v1.md; knots: float32[n, 2] or None.
    """

    class_index: int
    slot: int
    level: int  # position in spec.LEVELS
    trees: Trees
    base: float | np.float32 = 0.0
    parent: int = -1
    scale: tuple[float, float] = (1.0, 0.0)
    knots: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class ClassContent:
    """One asset class with F features, C sensors, s slots. `heads` answer for assets the pack does not know (-1: none).

    sketch: float32[F, 17] training quantiles; golden_rows: float32[g, F] with the heads asked, int32[g, s], and what
    XGBoost said, float32[g, s] (None: what the walk says, which proves only that the file is read as it was written).
    """

    spec: ClassSpec
    outputs: tuple[Output, ...]
    heads: tuple[int, ...]
    regimes: Regimes | None = None
    sketch: NDArray[np.float32] | None = None
    golden_rows: NDArray[np.float32] | None = None
    golden_heads: NDArray[np.int32] | None = None
    golden_margins: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class AssetContent:
    """One asset: for each slot of its class the head that answers (-1: none) and why; statics in the spec's order.

    start: what was usual for it, `ClassSpec.start_width` numbers, or () where that is unknown.
    """

    asset_id: str
    class_index: int
    heads: tuple[int, ...]
    reasons: tuple[Why, ...]
    statics: tuple[float, ...] = ()
    start: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class PackContent:
    """A whole fleet. kernels: `wheeltapper.features.KERNELS`; lineage: JSON, without times and paths.

    forest: all heads' trees, where they are laid out already (mapped from disk, when they are more than memory holds);
    the heads' own `trees` are not looked at then.
    """

    fleet: str
    seed: int
    kernels: str
    classes: tuple[ClassContent, ...]
    heads: Sequence[HeadContent] = ()
    assets: Sequence[AssetContent] = ()
    lineage: Mapping[str, Any] = field(default_factory=dict)
    forest: Forest | None = None


def sealed_content(content: PackContent) -> Iterator[bytes]:
    """The bytes of a pack, piece by piece and not yet read back; `wheeltapper.pack` writes and reads."""
    forest = content.forest
    if forest is None:
        forest = build_forest([(head.trees, head.parent, head.base) for head in content.heads])
    knots = [_knots(head) for head in content.heads]
    ends = np.cumsum([len(k) for k in knots], dtype=np.int64)
    assets = sorted(content.assets, key=lambda asset: asset.asset_id.encode())
    ids = [asset.asset_id.encode() for asset in assets]
    slots = max((len(c.heads) for c in content.classes), default=0)
    statics = max((len(c.spec.statics) for c in content.classes), default=0)
    meta = {
        "format": FORMAT,
        "fleet": content.fleet,
        "seed": content.seed,
        "kernels": content.kernels,
        "lineage": content.lineage,
        "classes": [
            {"name": c.spec.name, "spec": to_json(c.spec), "outputs": outputs_to_json(c.outputs)}
            for c in content.classes
        ],
    }
    arrays: dict[str, NDArray[Any]] = {
        "meta": np.frombuffer(canonical_json(meta), np.uint8),
        "nodes": forest.nodes,
        "node_cover": forest.node_cover,
        "tree_begin": forest.tree_begin,
        "tree_depth": forest.tree_depth,
        "head_trees": forest.head_trees,
        "head_parent": forest.head_parent,
        "head_base": forest.head_base,
        "head_class": np.array([h.class_index for h in content.heads], np.int32),
        "head_slot": np.array([h.slot for h in content.heads], np.int32),
        "head_level": np.array([h.level for h in content.heads], np.uint8),
        "head_scale": np.array([h.scale for h in content.heads], np.float32).reshape(-1, 2),
        "head_knots": np.stack([np.concatenate([np.zeros(1, np.int64), ends])[: len(knots)], ends], axis=1),
        "knots": np.concatenate([np.zeros((0, 2), np.float32), *knots]),
        "asset_ids": np.frombuffer(b"".join(ids), np.uint8),
        "asset_begin": np.concatenate([[0], np.cumsum([len(i) for i in ids], dtype=np.int64)]).astype(np.int64),
        "asset_class": np.array([a.class_index for a in assets], np.int32),
        "asset_heads": _padded([a.heads for a in assets], slots, -1, np.int32),
        "asset_reasons": _padded([a.reasons for a in assets], slots, 0, np.uint8),
        "asset_statics": _padded([a.statics for a in assets], statics, np.nan, np.float32),
        "class_heads": _padded([c.heads for c in content.classes], slots, -1, np.int32),
    }
    starts = max((c.spec.start_width for c in content.classes), default=0)
    if starts:
        arrays["asset_start"] = _padded([a.start for a in assets], starts, np.nan, np.float64)
    for k, one in enumerate(content.classes):
        features = len(features_of(one.spec))
        regimes = no_regimes(one.spec) if one.regimes is None else one.regimes
        rows = np.zeros((0, features), np.float32) if one.golden_rows is None else one.golden_rows
        asked = np.full((len(rows), len(one.heads)), -1, np.int32) if one.golden_heads is None else one.golden_heads
        said = one.golden_margins
        if said is None:
            said = np.zeros(asked.shape, np.float32)
            for slot in range(asked.shape[1]):
                said[:, slot] = np.where(asked[:, slot] < 0, 0, margins(forest, asked[:, slot], rows))
        arrays |= {
            f"c{k}.centroids": regimes.centroids,
            f"c{k}.regime_scale": regimes.scale,
            f"c{k}.mean": regimes.mean,
            f"c{k}.inverse_std": regimes.inverse_std,
            f"c{k}.sketch": np.full((features, QUANTILES), np.nan, np.float32) if one.sketch is None else one.sketch,
            f"c{k}.golden_rows": rows,
            f"c{k}.golden_heads": asked,
            f"c{k}.golden_margins": said,
        }
    return sealed(arrays, len(content.classes))


def _knots(head: HeadContent) -> NDArray[np.float32]:
    return np.zeros((0, 2), np.float32) if head.knots is None else np.asarray(head.knots, np.float32)


def _padded(rows: Sequence[Sequence[float]], width: int, fill: float, kind: type) -> NDArray[Any]:
    """Rows of unequal length as one array, filled up on the right."""
    out: NDArray[Any] = np.full((len(rows), width), fill, kind)
    for i, row in enumerate(rows):
        if len(row) > width:
            raise ValueError(f"expected at most {width} values, found {len(row)}: {row}")
        out[i, : len(row)] = row
    return out
