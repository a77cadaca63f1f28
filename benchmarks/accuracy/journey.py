"""Foreign files to answers, as a user would go, on this machine: import, train, pack, score through the pack.

The stages are the product's own, called one after the other on a few threads instead of a cluster. What comes out
depends on the data, the fleet and the versions alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from wheeltapper.config import load_fleet
from wheeltapper.pack import Pack, write_pack
from wheeltapper.spec import ClassSpec, FleetSpec
from wheeltapper_command.progress import Progress
from wheeltapper_trainer.assemble import assemble
from wheeltapper_trainer.chunk import fit_class, sample_chunk, train_chunk
from wheeltapper_trainer.evaluation import evaluate, flat_metrics
from wheeltapper_trainer.history import History, read_table
from wheeltapper_trainer.importers import import_history
from wheeltapper_trainer.job import Chunk, TrainJob, slots_of
from wheeltapper_trainer.offline import Order, score_history
from wheeltapper_trainer.plan import check_history, groups_of
from wheeltapper_trainer.regimes import learn_regimes
from wheeltapper_trainer.scores import ClassScores, load_scores
from wheeltapper_trainer.split import resolve_split
from wheeltapper_trainer.thresholds import Threshold, choose_thresholds

EXAMPLES = Path(__file__).parents[2] / "examples"

Change = Callable[[FleetSpec, History], FleetSpec]


@dataclass(frozen=True, slots=True)
class Answers:
    """One asset's final answers, ascending in time: times int64[n] µs; values float32[n, O]; alarms bool[n, O]."""

    times: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]
    alarms: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Journey:
    """A trained fleet and what its pack answered. `evaluation` is the document of the run's own report."""

    history: History
    job: TrainJob
    chunks: Sequence[Chunk]
    thresholds: Sequence[Threshold]
    pack: Pack
    evaluation: dict[str, Any]
    answers: dict[str, Answers]

    @property
    def spec(self) -> ClassSpec:
        """The fleet's one class."""
        return self.job.spec.classes[0]

    def stored(self) -> ClassScores:
        """The scores that the run kept of validation and test rows."""
        scores = load_scores(self.job, self.spec.name, self.chunks)
        if scores is None:
            raise SystemExit("not true: the run scored an asset")
        return scores


def imported(kind: str, source: Path, work: Path, subset: str = "") -> Path:
    """The history of foreign files, in a new folder below `work`."""
    out = work / "history"
    import_history(kind, source, out, subset)
    return out


def example(name: str) -> FleetSpec:
    """The fleet that is shipped for a data set."""
    return load_fleet(EXAMPLES / name / "fleet.toml")


def travel(folder: Path, fleet: FleetSpec, run: Path) -> Journey:
    """Train `fleet` on the history in `folder` and score all of it through the pack."""
    history = History.open(folder)
    check_history(history, fleet)
    groups = groups_of(history.plan(), fleet)
    chunks = [Chunk(g.asset_class, g.asset_ids, g.rows, f"{number:04d}") for number, g in enumerate(groups)]
    assets = tuple((c.name, sum(len(g.asset_ids) for g in groups if g.asset_class == c.name)) for c in fleet.classes)
    job = TrainJob(str(folder), str(run), fleet, resolve_split(history, fleet), assets, fleet.seed)
    for spec in fleet.classes:
        learn_regimes(job, spec.name)
    cpus = os.cpu_count() or 1
    with ThreadPoolExecutor(cpus) as pool:
        failed = [f for done in pool.map(lambda chunk: sample_chunk(job, chunk), chunks) for f in done.failed]
        heads = [(spec.name, slot.index) for spec in fleet.classes for slot in slots_of(spec)]
        list(pool.map(lambda head: fit_class(job, head[0], head[1], chunks), heads))
        failed += [f for done in pool.map(lambda chunk: train_chunk(job, chunk), chunks) for f in done.failed]
    if failed:
        raise SystemExit(f"not true: every asset can be trained; {failed[0]}")
    thresholds = choose_thresholds(job, chunks)
    evaluation = evaluate(job, chunks, thresholds)
    content = assemble(job, chunks, chunks, thresholds, {"data": "benchmark"}, flat_metrics(evaluation))
    pack = Pack.from_bytes(write_pack(content))
    table = run / "scores.parquet"
    score_history(Order(str(folder), table, cpus=cpus), pack, 1, Progress(quiet=True))
    return Journey(history, job, chunks, thresholds, pack, evaluation, _answers(table, fleet.classes[0]))


def _answers(path: Path, spec: ClassSpec) -> dict[str, Answers]:
    table = read_table(path)
    names = [target.name for target in spec.targets]
    times = table["time"].astype("M8[us]").astype(np.int64)
    values = np.column_stack([table[f"score:{name}"] for name in names]).astype(np.float32)
    alarms = np.isin(np.column_stack([table[f"alarm:{name}"] for name in names]), (2, 3))  # raised, active
    ids, begin = np.unique(table["asset_id"], return_index=True)
    order = np.argsort(begin)
    cuts = np.append(begin[order], len(times))
    return {
        str(ids[asset]): Answers(times[a:b], values[a:b], alarms[a:b])
        for asset, a, b in zip(order, cuts[:-1], cuts[1:], strict=True)
    }
