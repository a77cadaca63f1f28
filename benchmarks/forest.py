"""What a margin costs: one forest and one row, and thousands of different forests with every row another asset.

XGBoost is the judge: margins must have its bits before anything is timed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xgboost as xgb
from wheeltapper.forest import Forest, Trees, build_forest, frozen, margins, margins_into
from wheeltapper.walker import Walker
from wheeltapper_trainer import boosting

from benchmarks.harness import Row, alternate, compared, cpu_seconds, main, require

FEATURES, TREES, OWN_TREES, DEPTH = 48, 100, 10, 6
BASE = 0.5
Array = np.ndarray[Any, Any]


def train(seed: int, trees: int = TREES) -> xgb.Booster:
    """A forest whose trees are nearly complete, NaN included."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4_000, FEATURES)).astype(np.float32)
    y = x[:, :6].sum(axis=1) + x[:, 0] * x[:, 1] + rng.normal(size=len(x))
    x[rng.random(x.shape) < 0.05] = np.nan
    parameters = {"max_depth": DEPTH, "eta": 0.1, "min_child_weight": 1, "nthread": 1, "base_score": BASE, "seed": seed}
    return xgb.train(parameters, xgb.DMatrix(x, y, nthread=1), trees)


def rows_of(count: int) -> Array:
    rng = np.random.default_rng(9)
    x = rng.normal(size=(count, FEATURES)).astype(np.float32)
    x[rng.random(x.shape) < 0.05] = np.nan
    return x


def trees_of(booster: xgb.Booster) -> Trees:
    return boosting.trees_of(booster, FEATURES)


def onnx_peer(booster: xgb.Booster) -> Callable[[Array], Array]:
    import onnxruntime as ort
    from onnxmltools import convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    model = convert_xgboost(booster, initial_types=[("x", FloatTensorType([None, FEATURES]))])
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda x: np.asarray(session.run(None, {"x": x})[0]).reshape(-1)


def treelite_peer(booster: xgb.Booster) -> Callable[[Array], Array]:
    import treelite

    model = treelite.frontend.from_xgboost(booster)
    return lambda x: np.asarray(treelite.gtil.predict(model, x, nthread=1)).reshape(-1)


def tl2cgen_peer(booster: xgb.Booster) -> Callable[[Array], Array]:
    import tl2cgen
    import treelite

    model = treelite.frontend.from_xgboost(booster)
    library = Path(tempfile.mkdtemp()) / "forest.so"
    tl2cgen.export_lib(model, toolchain="gcc", libpath=library, params={"parallel_comp": 2}, verbose=False)
    predictor = tl2cgen.Predictor(library, nthread=1)
    return lambda x: np.asarray(predictor.predict(tl2cgen.DMatrix(x))).reshape(-1)


def one_forest(short: bool) -> list[Row]:
    booster, x = train(0), rows_of(200)
    forest = build_forest([(trees_of(booster), -1, BASE)])
    head, one = np.zeros(1, np.int32), x[:1]
    truth = booster.inplace_predict(x, predict_type="margin")
    mine = margins(forest, np.zeros(len(x), np.int32), x)
    require(mine.tobytes() == truth.astype(np.float32).tobytes(), "margins have XGBoost's bits")
    walker, out = Walker(forest, FEATURES), np.empty(1, np.float32)
    works: dict[str, Callable[[], object]] = {
        "ours": lambda: walker.margins_into(head, one, out),
        "Booster.inplace_predict": lambda: booster.inplace_predict(one, predict_type="margin"),
    }
    for name, make in (("ONNX Runtime", onnx_peer), ("treelite GTIL", treelite_peer), ("tl2cgen", tl2cgen_peer)):
        try:
            peer = make(booster)
        except Exception as error:  # whatever keeps a peer from running here is its row's absence, said aloud
            print(f"{name} is left out: {type(error).__name__}: {str(error).splitlines()[0][:150]}")
            continue
        require(np.allclose(peer(x), truth, rtol=1e-4, atol=1e-4), f"{name} computes the same margins")
        works[name] = partial(peer, one)
    calls = 200 if short else 2_000

    def timed(work: Callable[[], object]) -> Callable[[], float]:
        return lambda: cpu_seconds(work, calls) * 1e6

    found = alternate({name: timed(work) for name, work in works.items()}, 5 if short else 15)
    case = f"one forest ({TREES} trees × depth {DEPTH}, {forest.nodes.nbytes:,} bytes), one row from Python"
    return [compared(case, "µs/row", found["ours"], name, found[name]) for name in works if name != "ours"]


def different(parts: list[Trees], count: int) -> Forest:
    """`count` heads: the trained ones behind one another, again and again, each copy in memory of its own."""
    laps = -(-count // len(parts))
    one = build_forest([(trees, -1, BASE) for trees in parts])
    shifts = np.arange(laps, dtype=np.int64)
    begin = (one.tree_begin[:-1] + shifts[:, None] * len(one.nodes)).ravel()
    heads = (one.head_trees + shifts[:, None, None] * len(one.tree_depth)).reshape(-1, 2)
    return frozen(
        Forest(
            np.tile(one.nodes, laps), np.zeros(0, np.float32), np.append(begin, laps * len(one.nodes)),
            np.tile(one.tree_depth, laps), heads, np.tile(one.head_parent, laps), np.tile(one.head_base, laps),
        )
    )  # fmt: skip


def continued(parent: Trees, forest: Forest) -> Forest:
    """The heads of `forest`, each continuing one class head, which becomes the last."""
    last = len(forest.head_parent)
    trees = len(forest.tree_depth)
    return frozen(
        Forest(
            np.concatenate([forest.nodes, parent.nodes]), forest.node_cover,
            np.concatenate([forest.tree_begin, parent.begin[1:] + len(forest.nodes)]),
            np.concatenate([forest.tree_depth, parent.depth]),
            np.concatenate([forest.head_trees, [[trees, trees + len(parent.depth)]]]),
            np.append(np.full(last, last, np.int32), np.int32(-1)),
            np.append(forest.head_base, np.float32(BASE)),
        )
    )  # fmt: skip


def many_forests(short: bool) -> list[Row]:
    count = 2_000 if short else 10_000
    boosters = [train(seed) for seed in range(4 if short else 10)]
    own = [train(100 + seed, OWN_TREES) for seed in range(len(boosters))]
    whole = different([trees_of(b) for b in boosters], count)
    small = continued(trees_of(boosters[0]), different([trees_of(b) for b in own], count))
    x, heads = rows_of(count), np.arange(count, dtype=np.int32)
    shuffled = np.random.default_rng(3).permutation(count).astype(np.int32)
    found_margins = margins(whole, heads, x)
    for k, booster in enumerate(boosters):
        same = heads[heads % len(boosters) == k]
        truth = booster.inplace_predict(x[same], predict_type="margin").astype(np.float32)
        require(found_margins[same].tobytes() == truth.tobytes(), "every head's margins have XGBoost's bits")
    out, looped = np.empty(count, np.float32), min(count, 400)

    def ours(forest: Forest, order: Array) -> Callable[[], float]:
        return lambda: cpu_seconds(lambda: margins_into(forest, order, x, out)) / count * 1e6

    def loop() -> object:
        singles = [x[i : i + 1] for i in range(looped)]
        return [
            boosters[i % len(boosters)].inplace_predict(one, predict_type="margin") for i, one in enumerate(singles)
        ]

    words = whole.nodes.view(np.uint64)
    works = {
        "sorted": ours(whole, heads),
        "shuffled": ours(whole, shuffled),
        "class and own trees": ours(small, heads),
        "loop over Boosters": lambda: cpu_seconds(loop) / looped * 1e6,
        "reading every forest's bytes once: floor": lambda: cpu_seconds(words.max) / count * 1e6,
    }
    found = alternate(works, 3 if short else 9)
    each = f"{whole.nodes.nbytes // count:,} bytes each"
    cases = {
        "sorted": f"{count:,} different forests ({each}), every row another asset, sorted by asset",
        "shuffled": f"{count:,} different forests ({each}), every row another asset, in no order",
        "class and own trees": f"{count:,} assets, each the class's {TREES} trees and {OWN_TREES} of its own",
    }
    peer, floor = list(works)[3:]
    rows = [compared(case, "µs/row", found[k], peer, found[peer]) for k, case in cases.items()]
    return rows + [compared(cases[k], "µs/row", found[k], floor, found[floor]) for k in ("sorted", "shuffled")]


def measure(short: bool) -> list[Row]:
    return [*one_forest(short), *many_forests(short)]


if __name__ == "__main__":
    main("forest", "What a margin costs, in one forest and in thousands.", measure)
