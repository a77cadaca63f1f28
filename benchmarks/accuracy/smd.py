"""SMD: server machines, one row a minute. Points are judged as they are: adjusting them makes random scores look good.

PCA and an isolation forest learn from the same training half and are measured in the same run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from wheeltapper.spec import FleetSpec
from wheeltapper_trainer.fleets import SMD_TEST_FROM_US
from wheeltapper_trainer.history import History, read_table

from benchmarks.accuracy import plots as drawn
from benchmarks.accuracy.anomalies import Scored, filled, point_pr_auc, recall_at
from benchmarks.accuracy.figures import plain
from benchmarks.accuracy.journey import Journey, example, imported, travel
from benchmarks.harness import Row

Values = npt.NDArray[np.float32]
Scorer = Callable[[Values, Values], npt.NDArray[np.float64]]  # (train, test) → score of each test row


def measure(root: Path, subset: str, work: Path, plots: Path | None = None) -> list[Row]:
    """Rows over all machines of `root`; `subset` names one machine to leave it at."""
    folder = imported("smd", root, work)
    done = travel(folder, example("smd"), work / "run")
    ours, peers = scored(done, folder, subset)
    if plots:
        name, one = next(iter(ours.items()))
        hours = (one.times - one.times[0]) / 3.6e9
        threshold = done.thresholds[0].threshold
        drawn.scores(plots / "smd.png", f"SMD {name}: distance from normal", hours, one.score, one.anomaly, threshold)
    return rows_of(ours, peers)


def scored(done: Journey, folder: Path, subset: str) -> tuple[dict[str, Scored], dict[str, dict[str, Scored]]]:
    """The test half of each machine, scored through the pack, and by each peer."""
    labels = read_table(folder / "labels.parquet")
    machines = [asset.asset_id for asset in done.history.assets() if subset in ("", asset.asset_id)]
    ours: dict[str, Scored] = {}
    peers: dict[str, dict[str, Scored]] = {"PCA, 90 % of variance": {}, "isolation forest": {}}
    for name in machines:
        anomaly = labels["anomaly"][labels["asset_id"] == name].astype(np.bool_)
        answers = done.answers[name]
        later = answers.times >= SMD_TEST_FROM_US
        times = answers.times[later]
        ours[name] = Scored(times, anomaly, filled(answers.values[later, 0]))
        train, test = _halves(done.history, done.job.spec, name)
        for peer, scorer in (("PCA, 90 % of variance", _pca), ("isolation forest", _forest)):
            peers[peer][name] = Scored(times, anomaly, scorer(train, test))
    return ours, peers


def rows_of(ours: dict[str, Scored], peers: dict[str, dict[str, Scored]]) -> list[Row]:
    unit = f"mean of {len(ours)} machines, single points, none adjusted"
    rows = [
        plain("pr_auc", unit, point_pr_auc(ours), peer, point_pr_auc(theirs), more_is_better=True)
        for peer, theirs in peers.items()
    ]
    rows += [
        plain(
            "event_recall",
            "share of events touched at one false case a day",
            recall_at(ours, 1.0),
            peer,
            recall_at(theirs, 1.0),
            more_is_better=True,
        )
        for peer, theirs in peers.items()
    ]
    return rows


def _halves(history: History, fleet: FleetSpec, name: str) -> tuple[Values, Values]:
    sensors = [sensor.name for sensor in fleet.classes[0].sensors]
    readings = next(iter(history.read([name], sensors)))
    later = readings.times >= SMD_TEST_FROM_US
    return readings.values[~later], readings.values[later]


def _pca(train: Values, test: Values) -> npt.NDArray[np.float64]:
    """Squared error of reconstruction, every metric in units of its training spread."""
    mean, spread = train.mean(axis=0), train.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    model = PCA(0.9, svd_solver="full").fit((train - mean) / spread)
    rows = (test - mean) / spread
    return np.asarray(((rows - model.inverse_transform(model.transform(rows))) ** 2).sum(axis=1), np.float64)


def _forest(train: Values, test: Values) -> npt.NDArray[np.float64]:
    return np.asarray(-IsolationForest(random_state=7).fit(train).score_samples(test), np.float64)
