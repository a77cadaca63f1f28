"""What offline scoring costs a reading: a simulated fleet's history from Parquet to Parquet, on one core and on two.

Peers: the same history as people score one today, pandas rolling features and a loop over Boosters, asset by asset;
and a floor, the block path alone on readings that are in memory already, which no way of reading or writing can beat.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import xgboost as xgb
from wheeltapper.config import load_fleet
from wheeltapper.features import KERNELS
from wheeltapper.live import LiveFleet
from wheeltapper.pack import (
    AssetContent,
    ClassContent,
    HeadContent,
    Output,
    Pack,
    PackContent,
    Why,
    open_pack,
    write_pack,
)
from wheeltapper.regimes import no_regimes
from wheeltapper.spec import ClassSpec, features_of
from wheeltapper_command.progress import Progress
from wheeltapper_trainer import boosting
from wheeltapper_trainer.history import History, read_table
from wheeltapper_trainer.offline import Order, score_history
from wheeltapper_trainer.simulate import simulate

from benchmarks.harness import Row, alternate, compared, cpu_seconds, main, require

TREES, OWN_TREES, DEPTH = 100, 10, 5
STATISTICS = ("mean", "std", "max")  # what pandas rolls, too
NOW_US = 4_000_000_000_000_000
Array = np.ndarray[Any, Any]


def boosters_of(spec: ClassSpec, assets: int) -> tuple[xgb.Booster, list[xgb.Booster]]:
    """A class forest, and one that continues it for each asset, on random rows: speed needs no truth."""
    rng = np.random.default_rng(len(spec.name))
    x = rng.normal(50, 40, (2_000, len(features_of(spec)))).astype(np.float32)
    y = x[:, :6].sum(axis=1) + rng.normal(size=len(x))
    parameters = {"max_depth": DEPTH, "eta": 0.1, "nthread": 1, "base_score": 0.0}
    known = xgb.train(parameters, xgb.DMatrix(x, y, nthread=1), TREES)
    own = xgb.DMatrix(x[:300], y[:300], nthread=1)
    return known, [xgb.train({**parameters, "seed": k}, own, OWN_TREES, xgb_model=known) for k in range(min(assets, 4))]


def pack_of(history: Path, folder: Path) -> tuple[Pack, Path, dict[str, xgb.Booster]]:
    """A pack with one remaining-life output a class and a head for every asset; the Booster of each asset."""
    heads: list[HeadContent] = []
    classes: list[ClassContent] = []
    assets: list[AssetContent] = []
    judged: dict[str, xgb.Booster] = {}
    opened = History.open(history)
    for index, read in enumerate(load_fleet(history / "fleet.toml").classes):
        spec = plain(read)
        width = len(features_of(spec))
        ids = opened.asset_ids(spec.name)
        known, own = boosters_of(spec, len(ids))
        first = len(heads)
        heads.append(HeadContent(index, 0, 2, boosting.trees_of(known, width), base=0.0))
        for k, asset_id in enumerate(ids):
            trees = boosting.trees_of(own[k % len(own)][TREES:], width)
            assets.append(AssetContent(asset_id, index, (len(heads),), (Why.OWN_HEAD_KEPT,)))
            heads.append(HeadContent(index, 0, 3, trees, parent=first))
            judged[asset_id] = own[k % len(own)]
        output = Output("rul", "rul", 0, 1, unit="h", cap=spec.targets[0].cap)
        classes.append(ClassContent(spec, (output,), (first,), no_regimes(spec)))
    content = PackContent("offline", 1, KERNELS, tuple(classes), tuple(heads), tuple(assets), {})
    path = folder / "fleet.pack"
    path.write_bytes(write_pack(content))
    return open_pack(path), path, judged


def plain(spec: ClassSpec) -> ClassSpec:
    """The class with what pandas can compute: rolling statistics, neither events nor regimes."""
    return dataclasses.replace(
        spec, statistics=STATISTICS, events=(), statics=(), regime=None, targets=spec.targets[:1]
    )


def by_pandas(history: History, pack: Pack, boosters: dict[str, xgb.Booster], most: int) -> dict[str, Array]:
    """Remaining life of the first `most` assets, as features of pandas and a loop over Boosters give it."""
    import pandas as pd

    found = {}
    for asset in history.assets()[:most]:
        spec = pack.class_named(asset.asset_class).spec
        sensors = [s.name for s in spec.sensors]
        [readings] = history.read([asset.asset_id], sensors)
        grid = pd.DatetimeIndex(readings.times // spec.cadence_us * spec.cadence_us * 1_000)
        frame = pd.DataFrame(readings.values, grid, sensors)
        low, high = (np.array([getattr(s, end) for s in spec.sensors]) for end in ("minimum", "maximum"))
        frame = frame.where((frame >= low) & (frame <= high))
        columns = [frame]
        for window in spec.windows:
            rolled = frame.rolling(pd.Timedelta(microseconds=window * spec.cadence_us), min_periods=1)
            columns += [rolled.mean(), rolled.std(ddof=0), rolled.max()]
        x = np.concatenate([column.to_numpy(np.float32) for column in columns], axis=1)
        cap = pack.class_named(asset.asset_class).outputs[0].cap
        margin = boosters[asset.asset_id].inplace_predict(x, predict_type="margin")
        found[asset.asset_id] = np.clip(margin, 0.0, cap)
    return found


def kernels_alone(fleet: LiveFleet, blocks: list[tuple[str, Array, Array, Array]]) -> None:
    for block in blocks:
        fleet.score(*block, NOW_US)


def measure(short: bool) -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        history = folder / "history"
        simulate(history, 40 if short else 120, 60 if short else 120, 7, Progress(quiet=True))
        return _measured(folder, history, 3 if short else 7)


def _measured(folder: Path, place: Path, rounds: int) -> list[Row]:
    pack, path, boosters = pack_of(place, folder)
    history, out = History.open(place), folder / "answers.parquet"
    readings = sum(part.rows for part in history.plan())

    def ours(cpus: int) -> dict[str, Any]:
        order = Order(str(place), out, cpus=cpus, pack_path=path)
        return score_history(order, pack, 1, Progress(quiet=True))

    ours(2)
    twice = out.read_bytes()
    ours(1)
    require(out.read_bytes() == twice, "one core and two write the same bytes")
    table = read_table(out)
    assets = 6
    peer = by_pandas(history, pack, boosters, assets)
    near = [
        np.isclose(rows["score"], peer[asset_id], rtol=1e-3, atol=1e-3).mean()
        for asset_id, rows in _by_asset(table)
        if asset_id in peer and len(rows["score"]) == len(peer[asset_id])
    ]
    # A threshold of a tree may fall between two ways of rounding a sum.
    require(len(near) > 0 and min(near) > 0.97, "pandas and the Boosters say the same")
    sizes = {part.asset_id: part.rows for part in history.plan()}
    peer_rows = sum(sizes[asset_id] for asset_id in peer)

    blocks = []
    fleets = [LiveFleet(pack, 1) for _ in range(rounds + 1)]
    for asset in history.assets():
        spec = pack.class_named(asset.asset_class).spec
        [read] = history.read([asset.asset_id], [s.name for s in spec.sensors])
        for fleet in fleets:
            rows = fleet.open_assets(asset.asset_class, [asset.asset_id])
        blocks.append((asset.asset_class, np.repeat(rows, len(read.times)), read.times, read.values))

    def rate(rows: int, work: Callable[[], object]) -> Callable[[], float]:
        def timed() -> float:
            begin = time.perf_counter()
            work()
            return rows / (time.perf_counter() - begin)

        return timed

    works = {
        "one": lambda: readings / cpu_seconds(lambda: ours(1)),
        "pandas": lambda: peer_rows / cpu_seconds(lambda: by_pandas(history, pack, boosters, assets)),
        "kernels": lambda: readings / cpu_seconds(lambda: kernels_alone(fleets.pop(), blocks)),
        "one by the clock": rate(readings, lambda: ours(1)),
        "two by the clock": rate(readings, lambda: ours(2)),
    }
    found = alternate(works, rounds)
    pandas = "pandas rolling features and a loop over Boosters"
    floor = "the block path alone, readings in memory: floor"
    case = f"{readings:,} readings of {len(sizes)} assets, Parquet to Parquet, {TREES} + {OWN_TREES} trees"
    core, clock = "readings/s and core", "readings/s"
    one, two, more = found["one by the clock"], found["two by the clock"], True
    return [
        compared(case, core, found["one"], pandas, found["pandas"], more_is_better=more),
        compared(case, core, found["one"], floor, found["kernels"], more_is_better=more),
        compared(f"{case}, on two cores", clock, two, "itself on one core", one, more_is_better=more),
    ]


def _by_asset(table: dict[str, Array]) -> list[tuple[str, dict[str, Array]]]:
    ids = table["asset_id"].tolist()
    scores, at, found = table["score:rul"], 0, []
    for asset_id, run in groupby(ids):
        count = len(list(run))
        found.append((asset_id, {"score": scores[at : at + count]}))
        at += count
    return found


if __name__ == "__main__":
    main("offline", "What scoring a history costs a reading.", measure)
