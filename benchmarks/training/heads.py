"""What a head costs, and its error on later readings: ours continue their class, a peer fits each machine from nothing.

`python -m benchmarks.training.heads ASSETS ROWS` prints one JSON object: CPU seconds and mean squared errors of each.
Both see the same features and labels, and are judged from three rolling origins: taught by all rows before one, asked
for the next 15 % of the machine's history, which neither has seen.
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
_ORIGINS, _AHEAD = (0.55, 0.70, 0.85), 0.15  # shares of a machine's history
# The least mean error from these origins among twenty settings tried on twenty other machines (`work.machine` from
# 1,000 on; the first four fifths of their histories): .018 against .038 for the wrapper's defaults there.
_MODEL = ModelSpec(
    rounds=60,
    asset_rounds=60,
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
    machines = [examples(spec, *machine(number, rows)[:2]) for number in range(assets)]
    spent, errors = dict.fromkeys(_WAYS, 0.0), {name: list[float]() for name in _WAYS}
    for origin in _ORIGINS:
        ends = [(round(origin * len(y)), round((origin + _AHEAD) * len(y))) for _, y in machines]
        fleet = [(x[:end], y[:end], teach) for (x, y), (teach, end) in zip(machines, ends, strict=True)]
        for name, way in _WAYS.items():
            begin = time.process_time()
            predictors = way(fleet)
            spent[name] += time.process_time() - begin
            errors[name].append(float(np.mean([
                np.mean((predict(x[teach:]) - y[teach:]) ** 2)
                for predict, (x, y, teach) in zip(predictors, fleet, strict=True)
            ])))  # fmt: skip
    heads = assets * len(_ORIGINS)
    return {name: {"cpu": spent[name] / heads, "errors": errors[name]} for name in _WAYS}


_WAYS = {"ours": ours, "wrapper": wrapper}


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]))))
