"""The report of a training run: one HTML file that needs no network and shows the Evaluation document in words.

`view_of` turns a run into plain values; the template only lays them out. Every figure on the page is one of the
document's, and carries it unrounded in its `data-value`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from wheeltapper.durable import replace, write_temporary
from wheeltapper.spec import MICROSECONDS_PER_HOUR, ClassSpec
from wheeltapper.wording import feature_in_words
from wheeltapper_command.progress import clock

from wheeltapper_trainer import plots
from wheeltapper_trainer.evaluation import JUDGED_BY
from wheeltapper_trainer.job import TrainJob
from wheeltapper_trainer.wording import FIGURES, LEVELS, WHY, verdict

_FEATURES_SHOWN = 12
_CHANGES_SHOWN = 60
_QUARANTINED_SHOWN = 200
_TRIALS_SHOWN = 12

# Which figures of an output stand in the table of metrics, by kind of target.
_SHOWN = {
    "rul": ("rmse", "mae", "rmse_last", "phm08_last"),
    "failure": ("pr_auc", "roc_auc", "brier", "calibration_error"),
    "anomaly": ("pr_auc", "roc_auc"),
}
_ALARMS = (
    "recall", "precision", "lead_median_hours", "cases_per_asset_week", "false_per_asset_week", "inspection_precision",
    "cost_per_asset_month",
)  # fmt: skip

Document = Mapping[str, Any]


def write_report(
    path: Path,
    job: TrainJob,
    evaluation: Document,
    result: Document,
    lineage: Document,
    production: int | None = None,
    changes: Document | None = None,
) -> None:
    """Write the report to `path`, whole or not at all. `changes`: against the pack of release `production`."""
    page = render(view_of(job, evaluation, result, lineage, production, changes))
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(write_temporary(path.parent, path.name, [page.encode()]), path)


def write_trials(path: Path, record: Document) -> None:
    """Write the page of a search for parameters, of what `trials.json` holds."""
    classes = []
    for entry in record["classes"]:
        trials = entry["trials"]
        finished = [trial for trial in trials if trial["objective"] is not None]
        best = sorted(finished, key=lambda trial: (trial["objective"], trial["number"]))[:_TRIALS_SHOWN]
        points = [(trial["number"], trial["objective"]) for trial in finished]
        plot = Markup(plots.trials(points, entry["chosen"]))  # noqa: S704  our own SVG
        classes.append({**entry, "best": best, "plot": plot, "now": trials[0], "taken": trials[entry["chosen"]]})
    page = render({"fleet": record["fleet"], "seed": record["seed"], "classes": classes}, "trials.html.j2")
    replace(write_temporary(path.parent, path.name, [page.encode()]), path)


def render(view: Mapping[str, Any], template: str = "report.html.j2") -> str:
    """The page. Everything that is not our own SVG is escaped."""
    environment = Environment(
        loader=PackageLoader("wheeltapper_trainer"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"number": number, "interval": interval, "clock": clock}
    return environment.get_template(template).render(view)


def view_of(
    job: TrainJob,
    evaluation: Document,
    result: Document,
    lineage: Document,
    production: int | None,
    changes: Document | None,
) -> dict[str, Any]:
    """What the template shows, as plain values."""
    classes = [(job.asset_class(entry["name"]), entry) for entry in evaluation["classes"]]
    lead_hours = evaluation["totals"]["lead_hours"]
    required = max((spec.alarm.lead_us for spec, _ in classes), default=0) / MICROSECONDS_PER_HOUR
    bins = {
        f"{entry['name']} · {output['name'].removeprefix('failure:')}": output["calibration"]
        for _, entry in classes
        for output in entry["outputs"]
        if output["calibration"]
    }
    return {
        "fleet": evaluation["fleet"],
        "result": result,
        "totals": evaluation["totals"],
        "verdict": verdict(evaluation["totals"], result),
        "lead_plot": Markup(plots.lead_times(lead_hours, required)) if lead_hours else "",  # noqa: S704  our own SVG
        "lead_required_hours": required,
        "calibration_plot": Markup(plots.calibration(bins)) if bins else "",  # noqa: S704  its names are escaped by it
        "figure_names": FIGURES,
        "level_names": LEVELS,
        "why_names": WHY,
        "classes": [_class_view(spec, entry) for spec, entry in classes],
        "phases": _phases(result["seconds"]),
        "quarantined": list(result["quarantined"].items())[:_QUARANTINED_SHOWN],
        "production": production,
        "changes": None if changes is None else _changes_view(changes),
        "lineage": lineage,
    }


def number(value: float | None) -> str:
    """A figure as a person reads it: three digits that matter; an en dash where it cannot be known."""
    if value is None:
        return "–"
    if isinstance(value, int) or value == round(value):
        return f"{round(value):,}"
    size = abs(value)
    if size >= 10:
        return f"{value:,.0f}" if size >= 100 else f"{value:.1f}"
    return f"{value:.2f}" if size >= 0.1 else f"{value:.2g}"


def interval(figure: Mapping[str, float | None]) -> str:
    """The 90 % interval of a figure, or nothing where it has none."""
    low, high = figure["low"], figure["high"]
    return "" if low is None or high is None or low == high else f"{number(low)} – {number(high)}"


def _class_view(spec: ClassSpec, entry: Document) -> dict[str, Any]:
    outputs = [
        {
            **output,
            "shown": [f for f in _SHOWN[output["kind"]] if _known(output, f)],
            "judged_by": JUDGED_BY[output["kind"]],
            "best": _best(output),
            "budget": spec.alarm.budget_per_asset_week / len(entry["outputs"]),
        }
        for output in entry["outputs"]
    ]
    features = entry["features"]
    return {
        "name": entry["name"],
        "assets": entry["assets"],
        "budget": spec.alarm.budget_per_asset_week,
        "outputs": outputs,
        "level_names": {level: name for level, name in LEVELS.items() if all(level in o["levels"] for o in outputs)},
        "alarm_figures": [name for name in _ALARMS if any(name in o["levels"]["answering"] for o in outputs)],
        "heads": entry["heads"],
        "worst_assets": entry["worst_assets"],
        "features": _bars(
            {feature_in_words(f["feature"], f["source"], f["statistic"]): f["gain"] for f in features[:_FEATURES_SHOWN]}
        ),
        "by_source": _bars(_summed(features, "source")),
        "by_statistic": _bars(_summed(features, "statistic")),
    }


def _known(output: Document, name: str) -> bool:
    found = output["levels"]["answering"].get(name)
    return found is not None and found["value"] is not None


def _best(output: Document) -> str:
    """The level with the best figure of this output; "" where no level stands out."""
    name = JUDGED_BY[output["kind"]]
    found = {level: figures[name]["value"] for level, figures in output["levels"].items()}
    ordered: list[str] = sorted((level for level in found if found[level] is not None), key=lambda level: found[level])
    if output["kind"] != "rul":
        ordered.reverse()
    if len(ordered) < 2 or number(found[ordered[0]]) == number(found[ordered[1]]):  # as good as each other on this page
        return ""
    return ordered[0]


def _summed(features: Sequence[Document], by: str) -> dict[str, float]:
    shares: dict[str, float] = {}
    for feature in features:
        shares[feature[by]] = shares.get(feature[by], 0.0) + feature["gain"]
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _bars(shares: Mapping[str, float]) -> list[dict[str, Any]]:
    """Each share with its length against the longest, in percent."""
    longest = max(shares.values(), default=1.0)
    return [{"name": name, "value": value, "length": 100 * value / longest} for name, value in shares.items()]


def _phases(seconds: Mapping[str, float]) -> list[dict[str, Any]]:
    """Where the time went; `start` and `pack` are seconds of the clock, the others of all cores together."""
    total = sum(seconds.values()) or 1.0
    return [{"name": name, "seconds": spent, "length": 100 * spent / total} for name, spent in seconds.items()]


def _changes_view(changes: Document) -> dict[str, Any]:
    settings = [{"what": f"{c['class']}.{c['key']}", **c} for c in changes["settings"]]
    settings += [{"what": c["key"], **c} for c in changes["lineage"]]
    outputs = [{"at": f"{c['class']} · {c['output']}", **c} for c in changes["outputs"]]
    return {
        **changes,
        "outputs": outputs[:_CHANGES_SHOWN],
        "settings": settings[:_CHANGES_SHOWN],
        "more": max(0, len(outputs) - _CHANGES_SHOWN) + max(0, len(settings) - _CHANGES_SHOWN),
    }
