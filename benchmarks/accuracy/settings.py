"""How examples/skab and examples/smd came to their settings: `python -m benchmarks.accuracy.settings --dataset skab`.

Every setting in question is trained on healthy readings and judged on other healthy readings with faults put in
(faults.py); neither the readings nor the labels of a reported test part are looked at. SKAB: the long run without an
anomaly, which is not reported, cut into experiments, beside the first 400 seconds of every valve experiment, and again
in fleets of four by themselves, because other valves have so few. SMD: the training halves, of which the last third
judges. What is judged by is what is reported: SKAB's outlier F1, SMD's average precision. The shipped setting stays
unless the best one beats it by more than a standard error of their difference over the machines.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
from wheeltapper.durations import format_duration
from wheeltapper.spec import FleetSpec
from wheeltapper_trainer import metrics
from wheeltapper_trainer.fleets import DAY, MINUTE, SKAB_BEGIN_US, SKAB_TRAIN_US, SMD_TEST_FROM_US
from wheeltapper_trainer.history_writer import HistoryWriter
from wheeltapper_trainer.import_anomaly import read_skab, read_smd
from wheeltapper_trainer.records import Asset, Times, Values

from benchmarks.accuracy.anomalies import filled
from benchmarks.accuracy.faults import with_faults
from benchmarks.accuracy.figures import counts_of, f1_of
from benchmarks.accuracy.journey import Answers, example, travel
from benchmarks.harness import RESULTS, Row, machine, shown, versions

_DRAWS = 3  # sets of faults for each machine
_EXPERIMENT_ROWS = 1_150  # of a valve experiment
_FEW = 4  # experiments, of the other valves

Bools = npt.NDArray[np.bool_]
Judge = Callable[[Answers, Bools, Bools], float]  # (answers, judged, anomaly)


@dataclass(frozen=True, slots=True)
class Question:
    """readings: healthy, all of them; judged: the machines whose rows from the fleet's `test_from` on get faults and
    are judged; fleets: which machines are trained together, one fleet after the other; candidates: shift window and
    start in slots, and folds of the split; the fleet's own setting is among them."""

    fleet: FleetSpec
    readings: list[tuple[str, Times, Values]]
    judged: tuple[str, ...]
    fleets: list[tuple[str, ...]]
    candidates: list[tuple[int, int, int]]
    figure: str
    judge: Judge


def skab(root: Path) -> Question:
    """The run without an anomaly in pieces as long as an experiment, beside what every experiment may train on."""
    readings: list[tuple[str, Times, Values]] = []
    for asset, times, values in read_skab(root).readings:
        if asset.asset_id == "anomaly-free":
            for number, begin in enumerate(range(0, len(times) - _EXPERIMENT_ROWS, _EXPERIMENT_ROWS)):
                rows = slice(begin, begin + _EXPERIMENT_ROWS)
                readings.append((f"piece-{number}", times[rows] - times[begin] + SKAB_BEGIN_US, values[rows]))
        else:
            taught = times < SKAB_BEGIN_US + SKAB_TRAIN_US
            readings.append((asset.asset_id, times[taught], values[taught]))
    pieces = tuple(name for name, *_ in readings if name.startswith("piece-"))
    if not pieces:
        raise SystemExit(f"{root}: expected the run anomaly-free/anomaly-free.csv, whose readings judge; found none")
    candidates = list(itertools.product((10, 20, 30, 60), (60, 120, 180, 240), (2, 4)))
    fleets = [tuple(name for name, *_ in readings), pieces[:_FEW], pieces[_FEW : 2 * _FEW]]
    return Question(example("skab"), readings, pieces, fleets, candidates, "outlier_f1", _outlier_f1)


def smd(root: Path) -> Question:
    """The training halves; the last third of the shortest judges."""
    readings = []
    for asset, times, values in read_smd(root).readings:
        taught = times < SMD_TEST_FROM_US
        readings.append((asset.asset_id, times[taught], values[taught]))
    shortest = min(len(times) for _, times, _ in readings)
    fleet = example("smd")
    split = dataclasses.replace(fleet.split, test_from_us=SMD_TEST_FROM_US - shortest // 3 * MINUTE)
    candidates = [
        (window, start * DAY // MINUTE, fleet.split.folds)
        for window, start in itertools.product((2, 5, 15, 30, 60), (1, 3, 5, 7))
    ]
    names = tuple(name for name, *_ in readings)
    return Question(dataclasses.replace(fleet, split=split), readings, names, [names], candidates, "pr_auc", _pr_auc)


def measure(question: Question, work: Path) -> list[Row]:
    """A row for each candidate beside the fleet's own setting: the chosen one, then the best first."""
    histories = [work / f"history-{number}" for number in range(len(question.fleets))]
    written = [_write(question, names, folder) for names, folder in zip(question.fleets, histories, strict=True)]
    spec = question.fleet.classes[0]
    target = spec.targets[0]
    own = (target.shift or 0, spec.start or 0, question.fleet.split.folds)
    found = {}
    for candidate in question.candidates:
        fleet = _with(question.fleet, *candidate)
        figures: dict[str, list[float]] = {name: [] for name in question.judged}
        for folder, faulty in zip(histories, written, strict=True):
            with tempfile.TemporaryDirectory(dir=work) as run:
                answers = travel(folder, fleet, Path(run)).answers
            for name, anomalies in faulty.items():
                figures[name] += _figures(question, name, answers, anomalies)
        found[candidate] = np.array([np.mean(figures[name]) for name in question.judged])
    best_first = sorted(found, key=lambda candidate: -float(found[candidate].mean()))
    gain = found[best_first[0]] - found[own]
    chosen = best_first[0] if gain.mean() > _error(gain) else own
    return [
        _row(question, candidate, found[candidate], found[own], "chosen: " if candidate == chosen else "")
        for candidate in [chosen, *(candidate for candidate in best_first if candidate != chosen)]
    ]


def _write(question: Question, names: tuple[str, ...], folder: Path) -> dict[str, list[Bools]]:
    """The history of some machines, each once for every set of faults; returns the faulty rows of those judged."""
    asset_class = question.fleet.classes[0]
    anomalies: dict[str, list[Bools]] = {name: [] for name in names if name in question.judged}
    with HistoryWriter(folder, {asset_class.name: [sensor.name for sensor in asset_class.sensors]}) as writer:
        for number, (name, times, values) in enumerate(sorted(question.readings, key=lambda one: f"{one[0]}:")):
            for draw in range(_DRAWS if name in names else 0):
                faulty = values
                if name in anomalies:
                    first = int(np.searchsorted(times, question.fleet.split.test_from_us))
                    random = np.random.default_rng([question.fleet.seed, draw, number])
                    faulty, anomaly = with_faults(values, first, random)
                    anomalies[name].append(anomaly)
                writer.add(Asset(f"{name}:{draw}", asset_class.name, {}), times, faulty)
    return anomalies


def _with(fleet: FleetSpec, shift: int, start: int, folds: int) -> FleetSpec:
    """The fleet with another setting, and without the features that its anomaly does not look at."""
    spec = fleet.classes[0]
    target = dataclasses.replace(spec.targets[0], shift=shift)
    spec = dataclasses.replace(spec, windows=(shift,), statistics=("shift",), start=start, targets=(target,))
    return dataclasses.replace(fleet, classes=(spec,), split=dataclasses.replace(fleet.split, folds=folds))


def _figures(question: Question, name: str, answers: dict[str, Answers], anomalies: list[Bools]) -> list[float]:
    """One machine's figure for each of its sets of faults."""
    draws = [answers[f"{name}:{draw}"] for draw in range(_DRAWS)]
    judged = [one.times >= question.fleet.split.test_from_us for one in draws]
    return [question.judge(*one) for one in zip(draws, judged, anomalies, strict=True)]


def _outlier_f1(answers: Answers, judged: Bools, anomaly: Bools) -> float:
    machine = np.zeros(int(judged.sum()), np.int64)
    counts = counts_of(anomaly[judged].astype(np.float64), answers.alarms[judged, 0], machine, 1)
    return f1_of(counts)(np.ones(1))


def _pr_auc(answers: Answers, judged: Bools, anomaly: Bools) -> float:
    return metrics.pr_auc(anomaly[judged].astype(np.float64), filled(answers.values[judged, 0]))


def _row(
    question: Question,
    candidate: tuple[int, int, int],
    found: npt.NDArray[np.float64],
    of_own: npt.NDArray[np.float64],
    mark: str,
) -> Row:
    """A candidate's figure; its interval is that of the difference from the shipped setting."""
    shift, start, folds = candidate
    cadence_us = question.fleet.classes[0].cadence_us
    value, before = float(found.mean()), float(of_own.mean())
    error = 1.645 * _error(found - of_own)
    words = f"{format_duration(shift * cadence_us)}, start {format_duration(start * cadence_us)}, {folds} folds"
    unit = f"{question.figure}, mean of {len(found)} healthy machines with {_DRAWS} sets of faults each"
    spread = (value - error, value + error)
    return Row(f"{mark}shift {words}", value, unit, "as shipped", before, value / before, spread)


def _error(difference: npt.NDArray[np.float64]) -> float:
    """The standard error of a mean over machines."""
    return float(difference.std(ddof=1)) / float(np.sqrt(len(difference)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.accuracy.settings", description="settings without a test part")
    parser.add_argument("--dataset", choices=("skab", "smd"), required=True)
    parser.add_argument("--root", type=Path, required=True, help="the folder of the data set's files")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    options = parser.parse_args()
    question = {"skab": skab, "smd": smd}[options.dataset](options.root)
    with tempfile.TemporaryDirectory() as work:
        rows = measure(question, Path(work))
    document = {
        "name": f"settings-{options.dataset}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "rows": [asdict(row) for row in rows],
    }
    text = json.dumps(document, indent=1)
    (RESULTS / f"settings-{options.dataset}.json").write_text(text + "\n")
    sys.stdout.write((text if options.output == "json" else shown(rows)) + "\n")


if __name__ == "__main__":
    main()
