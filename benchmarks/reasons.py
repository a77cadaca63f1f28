"""What it costs to say why: exact contributions of every feature to one margin, against XGBoost's `pred_contribs`.

XGBoost is the judge: contributions must be its own within rounding before anything is timed. Both run on one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import xgboost as xgb
from wheeltapper.forest import Forest, build_forest, margins_into
from wheeltapper.shapley import contributions, contributions_into, rule_for, walk_for
from wheeltapper_trainer.boosting import trees_of

from benchmarks.harness import Row, alternate, compared, cpu_seconds, main, require

FEATURES, TREES, ROWS = 48, 100, 256
DEPTHS = (3, 5, 6, 8, 10)
PEER = "XGBoost pred_contribs"
FLOOR = "the score alone, a floor"
Array = np.ndarray[Any, Any]


class Case:
    """A forest of one depth, whose trees are nearly complete, and rows to explain; NaN included."""

    def __init__(self, depth: int) -> None:
        rng = np.random.default_rng(depth)
        x = rng.normal(size=(6_000, FEATURES)).astype(np.float32)
        y = x[:, :6].sum(axis=1) + x[:, 0] * x[:, 1] + rng.normal(size=len(x))
        x[rng.random(x.shape) < 0.05] = np.nan
        parameters = {"max_depth": depth, "eta": 0.1, "min_child_weight": 1, "nthread": 1, "base_score": 0.5}
        self.booster = xgb.train(parameters, xgb.DMatrix(x, y, nthread=1), TREES)
        self.forest: Forest = build_forest([(trees_of(self.booster, FEATURES), -1, 0.5)])
        self.rows = np.ascontiguousarray(x[:ROWS])
        self.matrix = xgb.DMatrix(self.rows, nthread=1)
        self.heads = np.zeros(ROWS, np.int32)
        self.values, self.bias = np.empty((ROWS, FEATURES)), np.empty(ROWS)
        self.work = (rule_for(self.forest), walk_for(self.forest), np.empty(2 * FEATURES + 1, np.float32))
        self.out = np.empty(ROWS, np.float32)

    def check(self) -> None:
        self.explain()
        said = self.booster.predict(self.matrix, pred_contribs=True)
        require(np.allclose(self.values, said[:, :-1], atol=1e-4), "contributions are XGBoost's")
        require(np.allclose(self.bias, said[:, -1], atol=1e-4), "so is the bias")
        self.score()
        require(np.allclose(self.values.sum(axis=1) + self.bias, self.out, atol=1e-4), "they add up to the margin")

    def explain(self) -> None:
        contributions_into(self.forest, self.heads, self.rows, *self.work, self.values, self.bias)

    def score(self) -> None:
        margins_into(self.forest, self.heads, self.rows, self.out)

    def peer(self) -> Array:
        return np.asarray(self.booster.predict(self.matrix, pred_contribs=True))

    def explain_one(self) -> None:
        contributions(self.forest, self.heads[:1], self.rows[:1])

    def peer_one(self) -> None:
        self.booster.predict(xgb.DMatrix(self.rows[:1], nthread=1), pred_contribs=True)


def _row_us(work: Callable[[], object], rows: int, calls: int = 1) -> float:
    """Microseconds of CPU per row."""
    return cpu_seconds(work, calls) / rows * 1e6


def measure(short: bool) -> list[Row]:
    rounds = 5 if short else 9
    found: list[Row] = []
    for depth in DEPTHS[:3] if short else DEPTHS:
        case = Case(depth)
        case.check()
        case.explain_one()
        times = alternate(
            {
                "ours": partial(_row_us, case.explain, ROWS),
                "peer": partial(_row_us, case.peer, ROWS),
                "score": partial(_row_us, case.score, ROWS, calls=10),
                "one": partial(_row_us, case.explain_one, 1, calls=20),
                "peer one": partial(_row_us, case.peer_one, 1, calls=20),
            },
            rounds,
        )
        name = f"{TREES} trees, depth {depth}, {len(case.forest.nodes):,} nodes"
        found.append(compared(f"a row of {ROWS}, {name}", "µs", times["ours"], PEER, times["peer"]))
        found.append(compared(f"one row from Python, {name}", "µs", times["one"], PEER, times["peer one"]))
        found.append(compared(f"a row of {ROWS}, {name}", "µs", times["ours"], FLOOR, times["score"]))
    return found


if __name__ == "__main__":
    main("reasons", (__doc__ or "").partition("\n")[0], measure)
