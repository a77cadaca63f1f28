"""What a head costs, and its error on later readings: ours continue their class, a peer fits each machine from nothing.

`python -m benchmarks.training.heads ASSETS ROWS` prints one JSON object: CPU seconds and mean squared error of each.
Both see the same features and labels, and are judged on the last fifth of each machine's rows, which neither has seen.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost  # first, so that its scikit-learn wrapper is there for the peer
from wheeltapper.spec import ModelSpec
from wheeltapper_trainer.boosting import fit

from benchmarks.training.work import Size, examples, machine, spec_of

Floats = npt.NDArray[np.float32]
Machine = tuple[Floats, Floats, int]  # features, label, rows that teach
_TREES, _CLASS_ROWS = 100, 20_000
# Chosen on other machines (`work.machine` from 1,000 and 2,000 on), where its error lay on both sides of the wrapper's.
_MODEL = ModelSpec(
    rounds=200,
    asset_rounds=100,
    max_depth=4,
    eta=0.05,
    min_child_weight=1,
    subsample=1,
    colsample_bytree=0.5,
    max_bin=64,
)


def ours(fleet: Sequence[Machine]) -> list[Callable[[Floats], Floats]]:
    """One class head on some rows of every machine, then a few trees of each machine's own on top of it."""
    step = max(1, sum(teach for *_, teach in fleet) // _CLASS_ROWS)
    features = np.concatenate([x[:teach:step] for x, _, teach in fleet])
    label = np.concatenate([y[:teach:step] for _, y, teach in fleet])
    of_class = fit(features, label, _MODEL, objective="squared", seed=7)
    return [
        fit(x[:teach], y[:teach], _MODEL, objective="squared", seed=7, continues=of_class).margins
        for x, y, teach in fleet
    ]


def wrapper(fleet: Sequence[Machine]) -> list[Callable[[Floats], Floats]]:
    """scikit-learn's wrapper at its defaults, at the same number of trees, on one thread as everybody here."""
    return [
        xgboost.XGBRegressor(n_estimators=_TREES, n_jobs=1).fit(x[:teach], y[:teach]).predict for x, y, teach in fleet
    ]


def measure(assets: int, rows: int) -> dict[str, Any]:
    spec = spec_of(Size(assets, rows, _TREES)).classes[0]
    fleet: list[Machine] = []
    for number in range(assets):
        features, label = examples(spec, *machine(number, rows)[:2])
        fleet.append((features, label, len(label) * 4 // 5))
    found = {}
    for name, way in (("ours", ours), ("wrapper", wrapper)):
        begin = time.process_time()
        predictors = way(fleet)
        spent = time.process_time() - begin
        errors = [
            np.mean((predict(x[teach:]) - y[teach:]) ** 2)
            for predict, (x, y, teach) in zip(predictors, fleet, strict=True)
        ]
        found[name] = {"cpu": spent / assets, "error": float(np.mean(errors))}
    return found


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]))))
