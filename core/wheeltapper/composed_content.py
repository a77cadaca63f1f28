"""The content of a composed pack: heads, golden rows, classes and assets gathered from the packs they come from.

Heads stand as training lays them out (of all classes, then of assets, class by class in the order of ids), and a head
that nothing answers with is left behind: taking everything from one trained pack gives that pack's bytes again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wheeltapper.composed_lineage import lineage_of, unmixed
from wheeltapper.composition import Parts, Source
from wheeltapper.forest import Trees
from wheeltapper.outputs import Why
from wheeltapper.pack import Pack
from wheeltapper.pack_content import AssetContent, ClassContent, HeadContent, PackContent
from wheeltapper.spec import LEVELS

_ASSET = LEVELS.index("asset")


class _Heads:
    """The heads taken so far, in the order of the composed pack."""

    def __init__(self) -> None:
        self.taken: list[HeadContent] = []
        self.numbers: dict[tuple[str, int], int] = {}  # (source, its head) → the head's number here
        self.brought: dict[tuple[int, str], Source] = {}  # (class, source): heads above assets' from it
        self._shared: dict[tuple[int, int], list[int]] = {}  # (class, slot) → heads above assets

    def take(self, source: Source, head: int, class_index: int, of_asset: bool) -> int:
        """The number that `head` of `source` has here, with all that it continues; -1 stays -1."""
        if head < 0:
            return -1
        key = (source.sha256, head)
        if key not in self.numbers:
            parent = self.take(source, int(source.pack.forest.head_parent[head]), class_index, of_asset)
            self.numbers[key] = self._put(_head(source.pack, head, class_index, parent), source, of_asset)
        return self.numbers[key]

    def _put(self, head: HeadContent, source: Source, of_asset: bool) -> int:
        number = len(self.taken)
        if head.level < _ASSET:
            shared = self._shared.setdefault((head.class_index, head.slot), [])
            for other in shared:
                if _bits(head) == _bits(self.taken[other]):
                    return other
            shared.append(number)
            if of_asset:
                self.brought[head.class_index, source.sha256] = source
        self.taken.append(head)
        return number


def content_of(parts: Parts) -> PackContent:
    """What `write_pack` makes the composed pack of. Raises Refused where an asset is in two of its classes."""
    heads = _Heads()
    index = {name: k for k, name in enumerate(parts.classes)}
    answering = [
        tuple(heads.take(source, head, index[name], of_asset=False) for head in source.known(name).heads.tolist())
        for name, source in parts.classes.items()
    ]
    assets = [_asset(heads, source, asset, index[name]) for name, asset, source in parts.members()]
    classes = [
        _class(heads, source, name, index[name], answering[index[name]]) for name, source in parts.classes.items()
    ]
    pure = unmixed(parts)
    return PackContent(
        fleet=parts.base.pack.fleet,
        seed=(pure or parts.base).pack.seed,
        kernels=parts.base.pack.kernels,
        classes=tuple(classes),
        heads=heads.taken,
        assets=assets,
        lineage=lineage_of(parts),
    )


def _asset(heads: _Heads, source: Source, asset: str, class_index: int) -> AssetContent:
    pack = source.pack
    i = pack.asset_index(asset)
    known = pack.classes[int(pack.asset_class[i])]
    return AssetContent(
        asset,
        class_index,
        tuple(
            heads.take(source, head, class_index, of_asset=True) for head in pack.asset_heads[i, : known.slots].tolist()
        ),
        tuple(Why(reason) for reason in pack.asset_reasons[i, : known.slots].tolist()),
        tuple(pack.asset_statics[i, : len(known.spec.statics)].tolist()),
        tuple(pack.asset_start[i, : known.spec.start_width].tolist()),
    )


def _class(heads: _Heads, source: Source, name: str, class_index: int, answering: tuple[int, ...]) -> ClassContent:
    """A class as its source has it, with golden rows for what its re-pointed assets brought along."""
    known = source.known(name)
    brought = [other for (k, _), other in heads.brought.items() if k == class_index and other.sha256 != source.sha256]
    golden = [_golden(heads, one, name) for one in (source, *brought)]
    rows, asked, said = (np.concatenate(arrays) for arrays in zip(*golden, strict=True))
    return ClassContent(known.spec, known.outputs, answering, known.regimes, known.sketch, rows, asked, said)


def _golden(
    heads: _Heads, source: Source, name: str
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
    """A class's golden rows, the heads they ask by their numbers here, and what was said; none that ask nobody."""
    known = source.known(name)
    numbers = [[heads.numbers.get((source.sha256, head), -1) for head in row] for row in known.golden_heads.tolist()]
    asked = np.array(numbers, np.int32).reshape(known.golden_heads.shape)
    some = (asked >= 0).any(axis=1)
    said = np.where(asked < 0, np.float32(0), known.golden_margins)
    return known.golden_rows[some], asked[some], said[some]


def _head(pack: Pack, head: int, class_index: int, parent: int) -> HeadContent:
    begin, end = pack.head_knots[head].tolist()
    a, b = pack.head_scale[head].tolist()
    return HeadContent(
        class_index=class_index,
        slot=int(pack.head_slot[head]),
        level=int(pack.head_level[head]),
        trees=_trees(pack, head),
        base=pack.forest.head_base[head],
        parent=parent,
        scale=(a, b),
        knots=pack.knots[begin:end] if end > begin else None,
    )


def _trees(pack: Pack, head: int) -> Trees:
    """One head's own trees, as views of the pack."""
    forest = pack.forest
    first, end = forest.head_trees[head].tolist()
    begin = forest.tree_begin[first : end + 1]
    nodes = slice(int(begin[0]), int(begin[-1]))
    return Trees(forest.nodes[nodes], begin - begin[0], forest.tree_depth[first:end], forest.node_cover[nodes])


def _bits(head: HeadContent) -> tuple[object, ...]:
    """Everything that decides what a head of its class and slot gives for a row."""
    numbers = (head.level, head.parent, head.scale, np.float32(head.base).tobytes())
    knots = b"" if head.knots is None else head.knots.tobytes()
    trees = head.trees
    return (*numbers, knots, trees.nodes.tobytes(), trees.begin.tobytes(), trees.depth.tobytes(), trees.cover.tobytes())
