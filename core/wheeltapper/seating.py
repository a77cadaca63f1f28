"""Looking assets up in a pack, many at once: the heads that answer for them and their attributes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from wheeltapper.pack import Pack, PackClass

_FEW = 64  # bisecting is cheaper while so many times the assets asked for are fewer than those of the pack


class Seats(NamedTuple):
    """heads int32 [n, slots]: the asset's own, or its class's; statics float32 [n, S] and start float64
    [n, start_width], NaN where the pack says none."""

    heads: npt.NDArray[np.int32]
    statics: npt.NDArray[np.float32]
    start: npt.NDArray[np.float64]


def seats(pack: Pack, known: PackClass, asset_ids: Sequence[str]) -> Seats:
    """The seats of assets of the class `known`. Reads the pack only, so any thread may ask."""
    found = positions(pack, asset_ids)
    own = np.flatnonzero(found >= 0)
    own = own[pack.asset_class[found[own]] == known.index]
    heads = np.tile(np.asarray(known.heads, np.int32), (len(found), 1)).reshape(len(found), known.slots)
    statics = np.full((len(found), len(known.spec.statics)), np.nan, np.float32)
    heads[own] = pack.asset_heads[found[own], : known.slots]
    statics[own] = pack.asset_statics[found[own], : statics.shape[1]]
    start = np.full((len(found), known.spec.start_width), np.nan)
    start[own] = pack.asset_start[found[own], : start.shape[1]]
    return Seats(heads, statics, start)


def positions(pack: Pack, asset_ids: Sequence[str]) -> npt.NDArray[np.int64]:
    """Where the pack has each asset, int64 [n], −1 where it does not know it."""
    if len(asset_ids) * _FEW < pack.asset_count:
        return np.array([pack.asset_index(asset) for asset in asset_ids], np.int64)
    whole, begins = pack.asset_ids.tobytes(), pack.asset_begin.tolist()
    position = {whole[begin:end]: i for i, (begin, end) in enumerate(pairwise(begins))}
    return np.array([position.get(asset.encode(), -1) for asset in asset_ids], np.int64)
