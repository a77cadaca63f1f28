"""NAB's machine temperature: one sensor, four labelled windows; caught by an alarm raised inside the window.

The threshold is the alarm budget's, from normal rows before the test part; nothing is tuned to the windows.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from wheeltapper_trainer.history import read_table

from benchmarks.accuracy.anomalies import spans_of
from benchmarks.accuracy.figures import plain
from benchmarks.accuracy.journey import Journey, example, imported, travel
from benchmarks.harness import Row

_HOUR_US, _WEEK_US = 3_600_000_000, 604_800_000_000


def measure(root: Path, subset: str, work: Path, plots: Path | None = None) -> list[Row]:  # noqa: ARG001  # draws nothing
    """Rows over the series in `root`; `subset` names a folder or a file below it, if given."""
    folder = imported("nab", root / subset, work)
    return rows_of(travel(folder, example("nab"), work / "run"), folder)


def rows_of(done: Journey, folder: Path) -> list[Row]:
    labels = read_table(folder / "labels.parquet")
    test_from = done.job.splits[0].test_from_us
    windows = caught = false = 0
    weeks = 0.0
    leads: list[float] = []
    for name, answers in done.answers.items():
        later = answers.times >= test_from
        times = answers.times[later]
        raised = np.array([times[a] for a, _ in spans_of(answers.alarms[later, 0])], np.int64)
        own = labels["asset_id"] == name
        begins, ends = (labels[side][own].astype("M8[us]").astype(np.int64) for side in ("begin", "end"))
        inside = np.zeros(len(raised), np.bool_)
        for begin, end in zip(begins, ends, strict=True):
            if end < test_from:
                continue
            windows += 1
            hits = (raised >= begin) & (raised <= end)
            inside |= hits
            if hits.any():
                caught += 1
                leads.append(float(end - raised[hits][0]) / _HOUR_US)
        false += int((~inside).sum())
        weeks += float(times[-1] - times[0]) / _WEEK_US
    rows = [
        plain(
            "windows_caught",
            f"share of {windows} labelled windows with an alarm raised inside",
            caught / max(1, windows),
        ),
        plain("false_alarms", f"per week, over {weeks:.1f} weeks", false / weeks),
    ]
    if leads:
        rows.append(plain("lead", "hours from the first alarm to the window's end, median", float(np.median(leads))))
    return rows
