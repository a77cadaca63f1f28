"""The pictures of docs/modelling.md, drawn from the runs that give its figures."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from wheeltapper_trainer import metrics
from wheeltapper_trainer.intervals import interval_of

mpl.use("Agg")

_INK, _BLUE, _RED = "#333333", "#2a6f97", "#b5402f"

Floats = npt.NDArray[np.floating]


def lives(path: Path, title: str, said: Floats, life: Floats, knots: list[list[float]], cap: float) -> None:
    """What was answered at the last row of each test engine, against the truth; the band is the 90 % interval."""
    figure, axes = _axes(title, "true remaining life, cycles", "answer, cycles")
    grid = np.linspace(0, cap, 200)
    low, high = interval_of(knots, grid, cap)
    axes.fill_betweenx(grid, low, high, color=_BLUE, alpha=0.18, lw=0, label="90 % interval of the life")
    axes.plot([0, cap], [0, cap], color=_INK, lw=0.8)
    axes.scatter(np.minimum(life, cap), said, s=12, color=_BLUE, label="test engine")
    axes.legend(frameon=False, fontsize=8)
    _save(figure, path)


def calibration(path: Path, title: str, label: Floats, probability: Floats) -> None:
    """How often what was promised happened, in ten groups of test readings."""
    figure, axes = _axes(title, "probability answered", "share that failed within the horizon")
    bins = metrics.calibration_bins(label, probability)
    axes.plot([0, 1], [0, 1], color=_INK, lw=0.8)
    axes.plot([b["predicted"] for b in bins], [b["observed"] for b in bins], "o-", ms=4, color=_BLUE)
    axes.set_xscale("symlog", linthresh=0.01)
    axes.set_yscale("symlog", linthresh=0.01)
    _save(figure, path)


def scores(
    path: Path, title: str, hours: Floats, score: Floats, anomaly: npt.NDArray[np.bool_], threshold: float
) -> None:
    """One machine's anomaly score over its test half; labelled anomalies are shaded."""
    figure, axes = _axes(title, "hours into the test half", "score, standard deviations")
    axes.fill_between(hours, 0, 1, where=anomaly, transform=axes.get_xaxis_transform(), color=_RED, alpha=0.25, lw=0)
    axes.plot(hours, score, color=_BLUE, lw=0.4, rasterized=True)
    axes.axhline(threshold, color=_INK, lw=0.8, ls="--")
    axes.set_yscale("log")
    _save(figure, path)


def _axes(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.6, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=10, color=_INK)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
