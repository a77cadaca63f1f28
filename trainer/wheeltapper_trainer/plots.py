"""The report's plots as inline SVG that takes its colours from the page, so that it reads in light and in dark."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Stand-ins that the page's own colours replace; no other colour appears in a plot.
_COLOURS = {"#010101": "currentColor", "#020202": "var(--accent)", "#030303": "var(--line)", "#040404": "var(--muted)"}
_INK, _ACCENT, _LINE, _MUTED = _COLOURS
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and takes the page's font
    "svg.hashsalt": "wheeltapper",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.parse_math": False,  # a name may hold a dollar sign
    "text.color": _INK,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _MUTED,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
}
_LEAD_BINS = 24


def lead_times(hours: Sequence[float], lead_required_hours: float) -> str:
    """How long before a failure its first alarm came: a histogram over `hours`; the line is the lead asked for."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        reach = max([*hours, lead_required_hours, 1.0])
        axes.hist(hours, bins=np.linspace(0.0, reach, _LEAD_BINS + 1).tolist(), color=_ACCENT, rwidth=0.88)
        axes.axvline(lead_required_hours, color=_INK, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.set_xlabel("hours between the alarm and the failure")
        axes.set_ylabel("failures")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="x", visible=False)

    return _svg((10.2, 2.6), draw, "Histogram of lead times")


def calibration(panels: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Predicted probability against the observed share, a panel per output; root axes, since failures are rare."""

    def draw(figure: Figure) -> None:
        columns = min(4, len(panels))
        grid = figure.subplots(-(-len(panels) // columns), columns, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        for axes, (name, bins) in zip(grid.flat, panels.items(), strict=False):
            predicted, observed = [b["predicted"] for b in bins], [b["observed"] for b in bins]
            reach = 1.08 * max([*predicted, *observed, 0.01])
            axes.plot([0, reach], [0, reach], color=_LINE, linewidth=1.2)
            axes.plot(predicted, observed, color=_ACCENT, linewidth=1.6, marker="o", markersize=4)
            axes.set_xscale("function", functions=(_root, np.square))
            axes.set_yscale("function", functions=(_root, np.square))
            axes.set_xlim(0, reach)
            axes.set_ylim(0, reach)
            ticks = [tick for tick in (0, 0.01, 0.05, 0.2, 0.5, 1.0) if tick <= reach]
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.set_title(name, fontsize=10, loc="left", color=_INK)
            axes.set_xlabel("predicted")
            axes.set_ylabel("observed")

    rows = -(-len(panels) // 4)
    return _svg((2.55 * min(4, len(panels)), 2.5 * rows), draw, "Calibration: predicted against observed")


def trials(points: Sequence[tuple[int, float]], chosen: int) -> str:
    """(number, objective) of each trial, the best so far as a line, the chosen one ringed; 1: what is there now."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        numbers, found = np.array([n for n, _ in points]), np.array([objective for _, objective in points])
        axes.axhline(1.0, color=_LINE, linewidth=1.2)
        axes.plot(numbers, found, color=_ACCENT, linestyle="", marker="o", markersize=4)
        axes.step(numbers, np.minimum.accumulate(found), where="post", color=_INK, linewidth=1.2)
        ring = numbers == chosen
        axes.plot(numbers[ring], found[ring], color=_INK, linestyle="", marker="o", markersize=10, fillstyle="none")
        low = float(found.min())
        axes.set_ylim(low - 0.1 * (1.15 - low), max(1.05, min(float(found.max()) * 1.01, 1.15)))  # bad ones lie above
        axes.set_xlabel("trial")
        axes.set_ylabel("loss against now")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    return _svg((10.2, 2.8), draw, "Trials: loss against the present parameters")


def _root(values: Any) -> Any:
    return np.sqrt(np.maximum(values, 0.0))


def _svg(inches: tuple[float, float], draw: Callable[[Figure], None], title: str) -> str:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=inches, layout="constrained")
        canvas: Any = FigureCanvasSVG(figure)
        figure.patch.set_alpha(0.0)
        draw(figure)
        for axes in figure.axes:
            axes.patch.set_alpha(0.0)
        out = io.StringIO()
        canvas.print_svg(out, metadata={"Date": None, "Title": title, "Creator": None, "Format": None, "Type": None})
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for stand_in, colour in _COLOURS.items():
        text = text.replace(stand_in, colour)
    return text
