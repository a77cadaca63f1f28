"""Which parameters to try next: Optuna's tree-structured Parzen estimator. The only module that imports optuna.

Trials come in batches of a fixed size, and a batch depends on the seed, its number and the trials before it alone: so
the same seed searches the same way on one core or a hundred, and a search that was killed goes on as if it had not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wheeltapper.errors import UsageError

BATCH = 4
_FIRST = 8  # drawn at random, before there is something to learn from

# name → (lowest, highest, whether steps are ratios); whole numbers where both ends are.
SPACE: dict[str, tuple[float, float, bool]] = {
    "rounds": (50, 1_000, True),
    "max_depth": (2, 8, False),
    "eta": (0.01, 0.3, True),
    "min_child_weight": (1.0, 100.0, True),
    "subsample": (0.5, 1.0, False),
    "colsample_bytree": (0.2, 1.0, False),
    "reg_lambda": (0.1, 10.0, True),
}

Parameters = dict[str, float]


def optuna_version() -> str:
    """The version that searches. Raises UsageError where it is not installed."""
    return str(_optuna().__version__)


def next_batch(known: Sequence[tuple[Mapping[str, float], float | None]], seed: int) -> list[Parameters]:
    """The parameters of the next trials. `known`: (parameters, objective or None where it failed) of all before it.

    The first of `known`, what the fleet has now, need not lie inside the space; then it only judges the others.
    """
    optuna = _optuna()
    batch = (len(known) - 1) // BATCH
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(
            seed=seed * 100_003 + batch, n_startup_trials=_FIRST, multivariate=True, constant_liar=True
        )
    )
    space = {name: _distribution(optuna, *ends) for name, ends in SPACE.items()}
    for parameters, objective in known:
        if objective is not None and all(
            SPACE[name][0] <= value <= SPACE[name][1] for name, value in parameters.items()
        ):
            study.add_trial(optuna.trial.create_trial(params=dict(parameters), distributions=space, value=objective))
    return [_rounded(study.ask(space).params) for _ in range(BATCH)]


def _distribution(optuna: Any, low: float, high: float, ratios: bool) -> Any:
    whole = isinstance(low, int) and isinstance(high, int)
    kind = optuna.distributions.IntDistribution if whole else optuna.distributions.FloatDistribution
    return kind(low, high, log=ratios)


def _rounded(parameters: Mapping[str, float]) -> Parameters:
    """Three digits that matter: a person reads these, and the fourth is noise."""
    return {
        name: value if isinstance(value, int) else min(max(float(f"{value:.3g}"), SPACE[name][0]), SPACE[name][1])
        for name, value in parameters.items()
    }


def _optuna() -> Any:
    try:
        import optuna  # noqa: PLC0415  an extra that only a search needs
    except ModuleNotFoundError:
        raise UsageError(
            "tuning needs Optuna, which is not installed", "pip install 'wheeltapper-trainer[tune]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
