"""NASA C-MAPSS: remaining life at the last row of every official test engine, trained on lives capped at 125 cycles.

"capped" compares with min(true life, 125), as most papers do; "raw" with the true life.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from wheeltapper.config import load_fleet
from wheeltapper_trainer import metrics
from wheeltapper_trainer.intervals import interval_of
from wheeltapper_trainer.job import VALID
from wheeltapper_trainer.scores import part_of

from benchmarks.accuracy import plots as drawn
from benchmarks.accuracy.figures import figure, plain
from benchmarks.accuracy.journey import Journey, example, imported, travel
from benchmarks.harness import Row

CAP = 125.0
# Published for the capped test labels: RVE (Remaining-useful-life Variational Encoding, 2022), the paper's RMSE; and
# XGBoost on rolling statistics with a z-score per regime (rudder-framework/manifold), its PHM08 score.
_RMSE = {"FD001": 13.42, "FD002": 14.92, "FD003": 12.51, "FD004": 16.37}
_PHM08 = {"FD001": 262.0, "FD002": 865.0, "FD003": 587.0, "FD004": 966.0}

Floats = npt.NDArray[np.float64]


def measure(root: Path, subset: str, work: Path, plots: Path | None = None) -> list[Row]:
    """Rows of one subset, FD001 where none is named."""
    subset = subset or "FD001"
    history = imported("cmapss", root, work, subset)
    regimes = load_fleet(history / "fleet.toml").classes[0].regime is not None
    done = travel(history, example("cmapss-regimes" if regimes else "cmapss"), work / "run")
    if plots:
        drawn.lives(
            plots / f"cmapss-{subset.lower()}.png",
            f"C-MAPSS {subset}: the last row of every test engine",
            *last_rows(done),
            done.pack.classes[0].outputs[0].metrics["interval"],
            CAP,
        )
    return rows_of(done, subset)


def last_rows(done: Journey) -> tuple[Floats, Floats]:
    """(answer, true life) at the last row of each test engine, float64[engines]."""
    tests = [asset for asset in done.history.assets() if asset.attributes["test"] == 1]
    answers = np.array([done.answers[asset.asset_id].values[-1, 0] for asset in tests], np.float64)
    return answers, np.array([asset.attributes["rul_at_end"] for asset in tests], np.float64)


def rows_of(done: Journey, subset: str) -> list[Row]:
    said, life = last_rows(done)
    capped, count = np.minimum(life, CAP), len(life)
    low, high = interval_of(done.pack.classes[0].outputs[0].metrics["interval"], said, CAP)
    stored = done.stored()
    folds, _ = part_of(stored, 0, VALID)
    every = f"cycles; last row of {count} test engines"

    def rmse(truth: Floats) -> Row:
        case = "rmse_capped" if truth is capped else "rmse_raw"
        peer = ("RVE (2022), capped", _RMSE.get(subset)) if truth is capped else (None, None)
        words = f"min(true, {CAP:g})" if truth is capped else "true life"
        return figure(
            case, f"{every}, against {words}", lambda n: float(np.sqrt(n @ (said - truth) ** 2 / n.sum())), count, *peer
        )

    def phm08(truth: Floats) -> Row:
        case = "phm08_capped" if truth is capped else "phm08_raw"
        peer = ("XGBoost, z-score per regime (manifold)", _PHM08.get(subset)) if truth is capped else (None, None)
        error = said - truth
        penalty = np.expm1(np.where(error < 0, -error / 13.0, error / 10.0))
        words = f"min(true, {CAP:g})" if truth is capped else "true life"
        return figure(
            case, f"sum over {count} test engines, against {words}", lambda n: float(n @ penalty), count, *peer
        )

    inside = (capped >= low) & (capped <= high)
    return [
        rmse(capped),
        rmse(life),
        phm08(capped),
        phm08(life),
        figure("mae_capped", every, lambda n: float(n @ np.abs(said - capped) / n.sum()), count),
        figure(
            "interval_coverage",
            f"share of {count} test engines with min(true, {CAP:g}) in the 90 % interval",
            lambda n: float(n @ inside / n.sum()),
            count,
            "asked for",
            0.9,
            more_is_better=True,
        ),
        figure(
            "interval_width", "cycles, mean of the 90 % intervals", lambda n: float(n @ (high - low) / n.sum()), count
        ),
        plain(
            "rmse_validation",
            "cycles, every row of held-out training engines, capped",
            metrics.rmse(stored.labels[folds, 0], stored.values[folds, 0]),
        ),
    ]
