"""The one door to XGBoost: fit a head, continue one, and hand its trees over as plain arrays.

A head starts at a margin this module chooses: a constant base, or for a head that continues another, that head's exact
margin per row (`base_margin`). XGBoost's own `xgb_model=` re-reads the rows through the bins of the new matrix, whose
cuts are not the old model's, so its starting margins are not the ones that will be served
(docs/decisions/0005-continue-from-exact-margins.md).
"""

from __future__ import annotations

import base64
import functools
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wheeltapper.errors import CommandError, Refused
from wheeltapper.forest import Trees, join, no_trees, plant
from wheeltapper.spec import ModelSpec

from wheeltapper_trainer.ubjson import read_ubjson


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Keep an optional package from being imported inside; one that is there already stays in sight."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # Python's own word for "not installed"
    try:
        yield
    finally:
        del sys.modules[name]


# For wrappers that nothing here uses XGBoost imports scikit-learn, and with it pandas: 3.6 s of every worker's start.
with _hidden("sklearn"):
    import xgboost

OBJECTIVES = {"squared": "reg:squarederror", "logistic": "binary:logistic"}
_METRICS = {"squared": "rmse", "logistic": "logloss"}
_RATE_MIN = 1e-6  # a class that never failed still starts at a finite margin


@dataclass(frozen=True, slots=True)
class Check:
    """Rows that decide when to stop: training ends `patience` rounds after the best round on them."""

    features: NDArray[np.float32]
    label: NDArray[np.float32]
    weight: NDArray[np.float32] | None = None
    patience: int = 20


@dataclass(frozen=True, slots=True)
class Model:
    """A fitted head. Holds no training rows.

    base: where the first tree starts, unless it continues `parent`; columns: the features it was shown, of
    `feature_count`, or None for all.
    """

    booster: Any
    objective: str
    feature_count: int
    columns: tuple[int, ...] | None
    base: np.float32
    parent: Model | None

    def margins(self, features: NDArray[np.float32], start: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """XGBoost's own raw scores, float32[n], for float32[n, feature_count]: log-odds where logistic.

        start: the parent's margins of these rows, float32[n], where they are known already.
        """
        if len(features) == 0:
            return np.zeros(0, np.float32)
        start = _start(features, self.base, self.parent) if start is None else start
        if self.rounds == 0:
            return start
        shown = _shown(features, self.feature_count, self.columns)
        found = self.booster.inplace_predict(shown, predict_type="margin", base_margin=start)
        return np.asarray(found, np.float32).reshape(len(features))

    @property
    def rounds(self) -> int:
        """Trees of its own, without its parent's."""
        return int(self.booster.num_boosted_rounds())

    def added_trees(self) -> Trees:
        """Its own trees, without its parent's, over all `feature_count` features."""
        return trees_of(self.booster, self.feature_count, self.columns)

    def trees(self) -> Trees:
        """Every tree from the first base on, in the order of addition."""
        above = no_trees() if self.parent is None else self.parent.trees()
        return join([above, self.added_trees()])

    def gains(self) -> NDArray[np.float64]:
        """Total gain of each feature in its own trees, float64[feature_count]."""
        found = np.zeros(self.feature_count)
        columns = range(self.feature_count) if self.columns is None else self.columns
        for name, gain in self.booster.get_score(importance_type="total_gain").items():
            found[columns[int(name[1:])]] = gain  # XGBoost names unnamed columns f0, f1, …
        return found

    def to_bytes(self) -> bytes:
        """For a run folder, to continue from; a pack never holds this."""
        document = {
            "objective": self.objective,
            "feature_count": self.feature_count,
            "columns": self.columns,
            "base": float(self.base),
            "parent": None if self.parent is None else json.loads(self.parent.to_bytes()),
            "booster": base64.b64encode(self.booster.save_raw("ubj")).decode(),
        }
        return json.dumps(document, sort_keys=True).encode()

    @staticmethod
    def from_bytes(data: bytes) -> Model:
        """The inverse of `to_bytes`."""
        document = json.loads(data)
        booster = xgboost.Booster({"nthread": 1})
        booster.load_model(bytearray(base64.b64decode(document["booster"])))
        booster.set_param({"nthread": 1})
        parent = document["parent"]
        return Model(
            booster,
            document["objective"],
            document["feature_count"],
            None if document["columns"] is None else tuple(document["columns"]),
            np.float32(document["base"]),
            None if parent is None else Model.from_bytes(json.dumps(parent).encode()),
        )


def fit(
    features: NDArray[np.float32],
    label: NDArray[np.float32],
    spec: ModelSpec,
    *,
    objective: str,
    seed: int,
    weight: NDArray[np.float32] | None = None,
    rounds: int | None = None,
    columns: Sequence[int] | None = None,
    continues: Model | None = None,
    start: NDArray[np.float32] | None = None,
    check: Check | None = None,
) -> Model:
    """Fit one head on one thread. Same arguments, same trees, whatever else runs in the process.

    features: float32[n, F], NaN where missing; label, weight: float32[n]; objective: "squared" or "logistic" (labels
    0 to 1); rounds: `spec.rounds`, or `spec.asset_rounds` where it continues another; columns: features it may use;
    none: the head is the best constant. start: the margins of `continues` on these rows, where they are known already;
    check: rows to stop early on.
    Releases the GIL while training. Raises CommandError for rows that cannot be learnt from, Refused where
    `spec.device` is not there.
    """
    _validate(features, label, objective)
    require_device(spec.device)
    chosen = None if columns is None else tuple(int(c) for c in columns)
    base = np.float32(0) if continues is not None else base_margin(label, weight, objective)
    if chosen == ():
        nothing = xgboost.QuantileDMatrix(np.zeros((1, 1), np.float32), label=[0.0], nthread=1)
        booster = xgboost.train(_parameters(spec, objective, seed), nothing, 0)
        return Model(booster, objective, features.shape[1], chosen, base, continues)
    count = (spec.rounds if continues is None else spec.asset_rounds) if rounds is None else rounds

    def matrix(
        x: NDArray[np.float32],
        y: NDArray[np.float32],
        w: NDArray[np.float32] | None,
        at: NDArray[np.float32] | None,
        ref: Any,
    ) -> Any:
        return xgboost.QuantileDMatrix(
            _shown(x, x.shape[1], chosen),
            label=y,
            weight=w,
            base_margin=_start(x, base, continues) if at is None else at,
            nthread=1,
            max_bin=spec.max_bin,
            ref=ref,
        )

    try:
        train = matrix(features, label, weight, start, None)
        watched = [] if check is None else [(matrix(check.features, check.label, check.weight, None, train), "check")]
        stopping = [] if check is None else [xgboost.callback.EarlyStopping(rounds=check.patience, save_best=True)]
        # `train` resets the booster at its end, so what it returns holds neither the matrix nor its prediction cache.
        booster = xgboost.train(
            _parameters(spec, objective, seed), train, count, evals=watched, callbacks=stopping, verbose_eval=False
        )
    except xgboost.core.XGBoostError as error:
        raise CommandError(f"XGBoost could not fit {len(label)} rows: {_first_line(error)}") from error
    _require_one_thread(booster)
    return Model(booster, objective, features.shape[1], chosen, base, continues)


def base_margin(label: NDArray[np.float32], weight: NDArray[np.float32] | None, objective: str) -> np.float32:
    """The best constant margin: the weighted mean, as log-odds where logistic."""
    mean = float(np.average(label.astype(np.float64), weights=weight))
    if objective == "squared":
        return np.float32(mean)
    rate = min(max(mean, _RATE_MIN), 1 - _RATE_MIN)
    return np.float32(np.log(rate / (1 - rate)))


@functools.cache
def require_device(device: str) -> None:
    """Raise Refused where XGBoost here cannot train on `device`: by itself it would only warn and use the CPU."""
    if device == "cpu":
        return
    if not xgboost.build_info().get("USE_CUDA"):
        raise Refused(
            f'model.device = "{device}": expected an XGBoost with CUDA, found {xgboost.__version__} built without it',
            hint='set device = "cpu", or install the XGBoost wheel built with CUDA',
        )
    one = xgboost.QuantileDMatrix(np.zeros((2, 1), np.float32), label=[0.0, 1.0], nthread=1)
    with xgboost.config_context(verbosity=0):
        booster = xgboost.train({"device": device, "tree_method": "hist", "nthread": 1}, one, 1)
    found = str(_generic(booster)["device"])
    if found.partition(":")[0] != device.partition(":")[0]:
        raise Refused(
            f'model.device = "{device}": expected a visible GPU, found none (XGBoost fell back to {found})',
            hint='set device = "cpu", or check the driver and CUDA_VISIBLE_DEVICES',
        )


def trees_of(booster: Any, feature_count: int, columns: tuple[int, ...] | None = None) -> Trees:
    """The trees of an XGBoost booster, laid out for a forest of `feature_count` features.

    `columns`: which of them the booster was shown, None for all. Raises Refused for categorical splits.
    """
    model = read_ubjson(bytes(booster.save_raw("ubj")))["learner"]["gradient_booster"]["model"]
    trees = model["trees"]
    if not trees:
        return no_trees()
    if any(np.any(tree["split_type"]) for tree in trees):
        raise Refused("expected numeric splits only, found a categorical split", hint="encode categories as numbers")

    def column(name: str, kind: type) -> NDArray[Any]:
        return np.concatenate([tree[name] for tree in trees]).astype(kind)

    feature = column("split_indices", np.int32)
    left = column("left_children", np.int32)
    if columns is not None:
        feature = np.asarray(columns, np.int32)[feature]
    return plant(
        np.concatenate([[0], np.cumsum([len(tree["left_children"]) for tree in trees])]).astype(np.int64),
        left,
        column("right_children", np.int32),
        feature,
        column("split_conditions", np.float32),
        column("default_left", np.bool_),
        column("sum_hessian", np.float32),
        feature_count,
    )


def _parameters(spec: ModelSpec, objective: str, seed: int) -> dict[str, Any]:
    return {
        "objective": OBJECTIVES[objective],
        "eval_metric": _METRICS[objective],
        "base_score": 0.5 if objective == "logistic" else 0.0,  # margin 0; every row brings its own start
        "tree_method": "hist",
        "device": spec.device,
        "max_depth": spec.max_depth,
        "eta": spec.eta,
        "min_child_weight": spec.min_child_weight,
        "subsample": spec.subsample,
        "colsample_bytree": spec.colsample_bytree,
        "reg_lambda": spec.reg_lambda,
        "gamma": spec.gamma,
        "max_bin": spec.max_bin,
        "nthread": 1,
        "seed": seed,
        "validate_parameters": True,
    }


def _validate(features: NDArray[np.float32], label: NDArray[np.float32], objective: str) -> None:
    if objective not in OBJECTIVES:
        raise ValueError(f"expected an objective of {sorted(OBJECTIVES)}, found {objective!r}")
    if features.ndim != 2 or label.shape != features.shape[:1]:
        raise ValueError(f"expected one label per row, found labels {label.shape} and features {features.shape}")
    if len(label) == 0:
        raise CommandError("expected at least one row to fit a head, found none")
    if not np.isfinite(label).all():
        raise CommandError("expected finite labels, found NaN or infinity")
    if objective == "logistic" and not (label.min() >= 0 and label.max() <= 1):
        raise CommandError(f"expected labels from 0 to 1, found {label.min()} to {label.max()}")


def _start(features: NDArray[np.float32], base: np.float32, parent: Model | None) -> NDArray[np.float32]:
    return np.full(len(features), base, np.float32) if parent is None else parent.margins(features)


def _shown(features: NDArray[np.float32], count: int, columns: tuple[int, ...] | None) -> NDArray[np.float32]:
    if features.ndim != 2 or features.shape[1] != count:
        raise ValueError(f"expected rows of {count} features, found {features.shape}")
    return np.ascontiguousarray(features if columns is None else features[:, columns], np.float32)


def _generic(booster: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(booster.save_config())["learner"]["generic_param"]
    return found


def _require_one_thread(booster: Any) -> None:
    found = _generic(booster)["nthread"]
    if found != "1":
        raise RuntimeError(f"expected XGBoost to run one thread per model, found nthread={found}")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith("  [bt]")]
    return lines[0] if lines else type(error).__name__
