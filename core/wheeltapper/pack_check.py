"""The rules that make a pack safe to walk: everything a kernel follows as an index is proved in range here, once.

docs/pack-v1.md states them. Checks are NumPy or one compiled pass, so that half a gigabyte takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wheeltapper.errors import PackError
from wheeltapper.forest import FEATURES_MAX, NODES_MAX, Forest, margins
from wheeltapper.kernel import kernel
from wheeltapper.outputs import Why
from wheeltapper.pack_content import QUANTILES
from wheeltapper.spec import LEVELS, STATISTICS, ClassSpec, features_of

WINDOW_SLOTS_MAX = 10_000_000
_FAULTS = (
    "",
    "expected 1 to 65,535 nodes",
    "node {node}: not reached from the root",
    "node {node}: expected its children right after those before it",
    "node {node}: expected a child inside the tree",
    "node {node}: expected a feature its class has",
    "node {node}: expected a leaf that leads to itself",
    "node {node}: expected a finite threshold or weight",
    "expected the stated depth",
    "node {node}: expected a finite cover, of at least 0 and above it where the node splits",
)


def check_arrays(
    arrays: Mapping[str, NDArray[Any]], forest: Forest, specs: Sequence[ClassSpec], slots: Sequence[int]
) -> None:
    """Raise PackError unless every array obeys docs/pack-v1.md. `slots`: how many each class has."""
    for spec in specs:
        check_spec(spec)
    features = np.array([len(features_of(spec)) for spec in specs], np.int64)
    _check_shapes(arrays, specs, slots, features)
    _check_heads(arrays, slots)
    _check_trees(forest, arrays["head_class"], features)
    _check_knots(arrays["head_knots"], arrays["knots"])
    _check_assets(arrays, slots)


def check_golden(
    forest: Forest,
    name: str,
    rows: NDArray[np.float32],
    heads: NDArray[np.int32],
    said: NDArray[np.float32],
) -> None:
    """Raise PackError unless every golden row scores to the very bits that XGBoost gave."""
    for slot in range(heads.shape[1]):
        asked = heads[:, slot]
        found = margins(forest, asked, rows)
        wrong = (asked >= 0) & (found.view(np.uint32) != np.ascontiguousarray(said[:, slot]).view(np.uint32))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            where = f"class {name!r}, golden row {row}, slot {slot}"
            raise PackError(f"{where}: expected margin {said[row, slot]!r}, found {found[row]!r}")


def check_spec(spec: ClassSpec) -> None:
    """Raise PackError unless the spec's numbers and names can be compiled into kernels."""
    where = f"class {spec.name!r}"
    sensors = [sensor.name for sensor in spec.sensors]
    shown = [sensor.name for sensor in spec.sensors if sensor.feature]
    whole = (spec.cadence_us, spec.lateness, spec.skew_us, *spec.windows)
    if not all(type(number) is int and number >= 0 for number in whole):
        raise PackError(f"{where}: expected cadence, lateness, skew and windows as whole numbers, found {whole}")
    windows = (0, *spec.windows, WINDOW_SLOTS_MAX)
    if not all(a < b for a, b in pairwise(windows)) or spec.lateness > WINDOW_SLOTS_MAX:
        raise PackError(f"{where}: expected growing windows of 1 to {WINDOW_SLOTS_MAX - 1} slots, found {spec.windows}")
    if tuple(s for s in STATISTICS if s in spec.statistics) != spec.statistics:
        raise PackError(f"{where}: expected statistics of {STATISTICS} in that order, found {spec.statistics}")
    needed = "shift" in spec.statistics
    if needed != (spec.start is not None) or (needed and (type(spec.start) is not int or spec.start < 1)):
        raise PackError(f"{where}: expected a start of 1 slot at least where there are shifts, found {spec.start!r}")
    for target in spec.targets:
        if target.kind == "anomaly" and (
            not target.watched() or (target.shift is not None and not (needed and target.shift in spec.windows))
        ):
            raise PackError(f"{where}: expected a target that watches features of its class, found {target}")
    if not shown or len(set(sensors)) != len(sensors):
        raise PackError(f"{where}: expected sensors of different names and a feature at least, found {sensors}")
    regime = () if spec.regime is None else spec.regime.sensors
    for names, known in ((regime, sensors), *((target.sensors, shown) for target in spec.targets)):
        if not set(names) <= set(known):
            raise PackError(f"{where}: expected sensors of {known}, found {names}")
    if len(features_of(spec)) > FEATURES_MAX:
        raise PackError(f"{where}: expected at most {FEATURES_MAX} features, found {len(features_of(spec))}")


def _check_shapes(
    arrays: Mapping[str, NDArray[Any]], specs: Sequence[ClassSpec], slots: Sequence[int], features: NDArray[np.int64]
) -> None:
    heads, trees, assets = len(arrays["head_parent"]), len(arrays["tree_depth"]), len(arrays["asset_class"])
    most = max(slots, default=0)
    expected: dict[str, tuple[int, ...]] = {
        "node_cover": (len(arrays["nodes"]),),
        "tree_begin": (trees + 1,),
        "head_trees": (heads, 2),
        "head_base": (heads,),
        "head_class": (heads,),
        "head_slot": (heads,),
        "head_level": (heads,),
        "head_scale": (heads, 2),
        "head_knots": (heads, 2),
        "knots": (len(arrays["knots"]), 2),
        "asset_begin": (assets + 1,),
        "asset_heads": (assets, most),
        "asset_reasons": (assets, most),
        "asset_statics": (assets, max((len(spec.statics) for spec in specs), default=0)),
        "asset_start": (assets, max((spec.start_width for spec in specs), default=0)),
        "class_heads": (len(specs), most),
    }
    stored = sum(name.endswith(".sketch") for name in arrays)
    if stored != len(specs):
        raise PackError(f"meta describes {len(specs)} classes, the pack holds sections of {stored}")
    for k, spec in enumerate(specs):
        regimes, own = arrays[f"c{k}.centroids"].shape
        rows = len(arrays[f"c{k}.golden_rows"])
        asked = 0 if spec.regime is None else len(spec.regime.sensors)
        if (regimes > 0 and own != asked) or (spec.regime is None and regimes > 0) or regimes > 254:
            raise PackError(f"c{k}.centroids: expected at most 254 × {asked}, found {regimes} × {own}")
        expected |= {
            f"c{k}.regime_scale": (own, 2),
            f"c{k}.mean": (regimes + 1, len(spec.sensors)),
            f"c{k}.inverse_std": (regimes + 1, len(spec.sensors)),
            f"c{k}.sketch": (int(features[k]), QUANTILES),
            f"c{k}.golden_rows": (rows, int(features[k])),
            f"c{k}.golden_heads": (rows, slots[k]),
            f"c{k}.golden_margins": (rows, slots[k]),
        }
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise PackError(f"section {name!r}: expected shape {shape}, found {arrays[name].shape}")


def _check_heads(arrays: Mapping[str, NDArray[Any]], slots: Sequence[int]) -> None:
    trees, parent, level = arrays["head_trees"], arrays["head_parent"], arrays["head_level"]
    owner, slot = arrays["head_class"], arrays["head_slot"]
    count = np.append(np.array(slots, np.int64), 0)  # one more, so that an empty pack still indexes
    number = np.arange(len(parent))
    _refuse((owner < 0) | (owner >= len(slots)), "head {0}: expected a class of the pack, found {1}", owner)
    _refuse((slot < 0) | (slot >= count[owner]), "head {0}: expected a slot of its class, found {1}", slot)
    _refuse((level < 1) | (level >= len(LEVELS)), "head {0}: expected level 1 to 3, found {1}", level)
    _refuse((parent < -1) | (parent >= number), "head {0}: expected a parent before it or -1, found {1}", parent)
    child = np.flatnonzero(parent >= 0)
    above = parent[child]
    alien = (owner[child] != owner[above]) | (slot[child] != slot[above]) | (level[child] <= level[above])
    _refuse(alien, "head {1}: expected a parent of its own class and slot and a lower level", child)
    begins = np.concatenate([[0], trees[:-1, 1]]) if len(trees) else np.zeros(0, np.int64)
    _refuse(
        (trees[:, 0] != begins) | (trees[:, 1] < trees[:, 0]), "head {0}: expected its trees next, found {1}", trees
    )
    last = int(trees[-1, 1]) if len(trees) else 0
    if last != len(arrays["tree_depth"]):
        raise PackError(f"expected the heads to own all {len(arrays['tree_depth'])} trees, found {last}")
    base, scale = arrays["head_base"], arrays["head_scale"]
    _refuse(~np.isfinite(base), "head {0}: expected a finite base, found {1}", base)
    _refuse(~np.isfinite(scale).all(axis=1), "head {0}: expected a finite scale, found {1}", scale)


def _check_trees(forest: Forest, head_class: NDArray[np.int32], features: NDArray[np.int64]) -> None:
    begin = forest.tree_begin
    if begin[0] != 0 or begin[-1] != len(forest.nodes) or not _grows(begin):
        raise PackError(f"tree_begin: expected to grow from 0 to {len(forest.nodes)}, found otherwise")
    owned = forest.head_trees[:, 1] - forest.head_trees[:, 0]
    tree_features = np.repeat(features[head_class], owned) if len(owned) else np.zeros(0, np.int64)
    fault, tree, node = _tree_fault(forest.nodes, forest.node_cover, begin, forest.tree_depth, tree_features)
    if fault:
        raise PackError(f"tree {tree}: {_FAULTS[fault].format(node=node)}, found otherwise")


@kernel
def _tree_fault(
    nodes: NDArray[np.void],
    cover: NDArray[np.float32],
    begin: NDArray[np.int64],
    depth: NDArray[np.uint8],
    features: NDArray[np.int64],
) -> tuple[int, int, int]:
    """(position in _FAULTS, tree, node) of the first fault, or zeros."""
    level = np.zeros(NODES_MAX, np.int64)
    for tree in range(depth.shape[0]):
        root = begin[tree]
        size = begin[tree + 1] - root
        if size > NODES_MAX:
            return 1, tree, 0
        filled = 1
        deepest = 0
        level[0] = 0
        for i in range(size):
            node = nodes[root + i]
            left = np.int64(node.left)
            if i >= filled:
                return 2, tree, i
            if not np.isfinite(node.value):
                return 7, tree, i
            if not 0.0 <= cover[root + i] < np.inf:
                return 9, tree, i
            if node.feature == 2 * features[tree]:
                if left != i:
                    return 6, tree, i
                deepest = max(deepest, level[i])
            elif node.feature > 2 * features[tree]:
                return 5, tree, i
            elif left != filled:
                return 3, tree, i
            elif filled + 2 > size:
                return 4, tree, i
            elif cover[root + i] == 0.0:
                return 9, tree, i  # a reason divides by it
            else:
                level[filled] = level[filled + 1] = level[i] + 1
                filled += 2
        if deepest != depth[tree]:
            return 8, tree, 0
    return 0, 0, 0


def _check_knots(ranges: NDArray[np.int64], knots: NDArray[np.float32]) -> None:
    begin, end = ranges[:, 0], ranges[:, 1]
    _refuse((begin < 0) | (end < begin) | (end > len(knots)), "head {0}: expected knots of the pack, found {1}", ranges)
    if not np.isfinite(knots).all() or (len(knots) and not (knots[:, 1].min() >= 0 and knots[:, 1].max() <= 1)):
        raise PackError("knots: expected finite margins and probabilities from 0 to 1, found others")
    grows = np.append(np.diff(knots[:, 0]) > 0, True)  # knot i below knot i + 1
    stalls = np.concatenate([[0], np.cumsum(~grows)])  # of the knots before each
    inner = np.maximum(end - 1, begin)
    _refuse(stalls[inner] != stalls[begin], "head {0}: expected knots of growing margins, found {1}", ranges)


def _check_assets(arrays: Mapping[str, NDArray[Any]], slots: Sequence[int]) -> None:
    begin, blob, owner = arrays["asset_begin"], arrays["asset_ids"].tobytes(), arrays["asset_class"]
    if begin[0] != 0 or begin[-1] != len(blob) or not _grows(begin):
        raise PackError(f"asset_begin: expected to grow from 0 to {len(blob)}, found otherwise")
    ids = [blob[a:b] for a, b in pairwise(begin.tolist())]
    for i, (one, following) in enumerate(pairwise(ids)):
        if one >= following:
            raise PackError(f"asset {i + 1}: expected ids in growing order, found {following!r} after {one!r}")
    try:
        for one in ids:
            one.decode()
    except UnicodeDecodeError as error:
        raise PackError(f"asset ids: expected UTF-8, found {error}") from error
    _refuse((owner < 0) | (owner >= len(slots)), "asset {0}: expected a class of the pack, found {1}", owner)
    reasons = arrays["asset_reasons"]
    _refuse((reasons > max(Why)).any(axis=1), f"asset {{0}}: expected reasons up to {max(Why)}, found {{1}}", reasons)
    _check_answering(arrays["asset_heads"], owner, arrays, slots, "asset")
    classes = np.arange(len(slots), dtype=np.int32)
    _check_answering(arrays["class_heads"], classes, arrays, slots, "class")
    for k, count in enumerate(slots):
        golden = arrays[f"c{k}.golden_heads"]
        owners = np.full(len(golden), k, np.int32)
        _check_answering(golden, owners, arrays, [count] * (k + 1), f"class {k}, golden row")


def _check_answering(
    heads: NDArray[np.int32],
    owner: NDArray[np.int32],
    arrays: Mapping[str, NDArray[Any]],
    slots: Sequence[int],
    what: str,
) -> None:
    """Each row's heads answer for its class and, in column s, for slot s."""
    head_class, head_slot = arrays["head_class"], arrays["head_slot"]
    beyond = (heads < -1) | (heads >= len(head_class))
    _refuse(beyond.any(axis=1), what + " {0}: expected heads of the pack, found {1}", heads)
    counts = np.array(slots, np.int64)
    for slot in range(heads.shape[1]):
        column = heads[:, slot]
        row = np.flatnonzero(column >= 0)
        alien = (
            (head_class[column[row]] != owner[row]) | (head_slot[column[row]] != slot) | (slot >= counts[owner[row]])
        )
        _refuse(alien, what + " {1}: expected a head of its class for slot " + str(slot), row)


def _grows(begin: NDArray[np.int64]) -> bool:
    return bool((begin[1:] > begin[:-1]).all())  # compared, for a difference could wrap around


def _refuse(wrong: Any, message: str, found: NDArray[Any]) -> None:
    """Raise PackError for the first wrong item; {0} is its position, {1} what stands there."""
    at = np.flatnonzero(wrong)
    if at.size:
        raise PackError(message.format(int(at[0]), found[at[0]]))
