"""SKAB: the water loop's valve experiments; outlier F1 over all rows after the first 400 of each file.

A row is called an outlier while the alarm of the pack is open. The threshold is the alarm budget's, from rows that are
normal by the set's own custom; the labels of the test part choose nothing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from wheeltapper_trainer.history import read_table

from benchmarks.accuracy.anomalies import Scored, filled, point_pr_auc
from benchmarks.accuracy.figures import counts_of, f1_of, figure, plain, share_of
from benchmarks.accuracy.journey import Journey, example, imported, travel
from benchmarks.harness import Row

_TRAIN_ROWS = 400
# The set's own board, over all of its valves: outlier F1, false-alarm rate, missed-alarm rate.
_BOARD = (("convolutional auto-encoder (board)", 0.78), ("isolation forest (board)", 0.29))


def measure(root: Path, subset: str, work: Path, plots: Path | None = None) -> list[Row]:  # noqa: ARG001  # draws nothing
    """Rows over all experiments of `root` that have labels; `subset` names one valve's folder to leave it at."""
    folder = imported("skab", root, work)
    return rows_of(travel(folder, example("skab"), work / "run"), folder, subset)


def rows_of(done: Journey, folder: Path, subset: str) -> list[Row]:
    labels = read_table(folder / "labels.parquet")
    scored: dict[str, Scored] = {}
    alarms = []
    for name, answers in done.answers.items():
        anomaly = labels["anomaly"][labels["asset_id"] == name].astype(np.bool_)
        if not anomaly.any() or not name.startswith(subset):
            continue
        later = slice(_TRAIN_ROWS, None)
        scored[name] = Scored(answers.times[later], anomaly[later], filled(answers.values[later, 0]))
        alarms.append(answers.alarms[later, 0])
    label = np.concatenate([one.anomaly for one in scored.values()]).astype(np.float64)
    machine = np.repeat(np.arange(len(scored)), [len(one.anomaly) for one in scored.values()])
    counts = counts_of(label, np.concatenate(alarms), machine, len(scored))
    always = float(2 * label.mean() / (1 + label.mean()))
    unit = f"rows of {len(scored)} experiments after the first {_TRAIN_ROWS}"
    rows = [
        figure("outlier_f1", unit, f1_of(counts), len(scored), *peer, more_is_better=True)
        for peer in (*_BOARD, ("always alarming", always))
    ]
    return [
        *rows,
        figure("false_alarm_rate", f"share of normal {unit}", share_of(counts, (1,), (1, 3)), len(scored)),
        figure("missed_alarm_rate", f"share of anomalous {unit}", share_of(counts, (2,), (0, 2)), len(scored)),
        plain(
            "pr_auc",
            f"mean of {len(scored)} experiments, single points",
            point_pr_auc(scored),
            "share of anomalous rows",
            float(label.mean()),
            more_is_better=True,
        ),
    ]
