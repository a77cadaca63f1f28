"""`wheeltapper tune`: parameters for each class, searched on folds of the training part, on one screen."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wheeltapper.durable import replace, write_temporary
from wheeltapper.errors import CommandError, UsageError
from wheeltapper.spec import FleetSpec, digest, without_alarms
from wheeltapper_command.progress import Progress

from wheeltapper_trainer.chunk import load_samples
from wheeltapper_trainer.cluster import Cluster, Done, Limits, Task
from wheeltapper_trainer.job import Chunk, TrainJob
from wheeltapper_trainer.ledger import Ledger
from wheeltapper_trainer.lineage import versions
from wheeltapper_trainer.report import write_trials
from wheeltapper_trainer.stages import Stages
from wheeltapper_trainer.training import Order, lost, plan
from wheeltapper_trainer.tuned_text import tuned_text
from wheeltapper_trainer.tuning_folds import judged_slots, try_fold
from wheeltapper_trainer.tuning_record import FORMAT, choose, load_trials, objective_of, save_trials
from wheeltapper_trainer.tuning_search import BATCH, SPACE, next_batch, optuna_version

TRIALS_MAX = 400  # of a class: their record has to fit into a release's entry
MINUTES_MAX = 60 * 24 * 31
_SAME = ("format", "config", "data", "seed", "folds", "batch", "software", "space")  # of a search that can go on

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TuneOrder:
    """What to tune, on what, and with which machines; `out` gets fleet.toml, trials.json and trials.html."""

    fleet: Path
    history: str
    out: Path
    trials: int  # of each class, besides the parameters it has now
    seed: int | None  # None: the fleet's
    cpus: int
    address: str = ""
    resume: bool = False
    limits: Limits = field(default_factory=Limits)
    minutes: float = 0.0  # after which no further batch of trials is started; 0: all are made

    def __post_init__(self) -> None:
        if not 0 <= self.minutes < MINUTES_MAX:
            raise UsageError(f"--minutes: expected 0 (no limit) to {MINUTES_MAX:,}, found {self.minutes:g}")
        if not 1 <= self.trials <= TRIALS_MAX:
            raise UsageError(f"--trials: expected 1 to {TRIALS_MAX}, found {self.trials}")
        if self.out.resolve() == self.fleet.resolve().parent:
            raise UsageError(f"--out: expected another folder than that of {self.fleet}, which would be overwritten")


def tune(order: TuneOrder, progress: Progress) -> Document:
    """Search every class's parameters and write what was found; the result is for `-o json`.

    Raises CommandError where a class has no folds to be judged on.
    """
    with Cluster(order.cpus, order.address, preload=["wheeltapper_trainer.tuning_folds"]) as cluster:
        return tune_on(cluster, order, progress)


def tune_on(cluster: Cluster, order: TuneOrder, progress: Progress) -> Document:
    """`tune` on a cluster that is starting or running."""
    began = time.perf_counter()
    optuna_version()  # says at once where it is missing
    run_dir = order.out.absolute() / "run"
    planned = plan(Order(order.fleet, order.history, run_dir, run_dir, run_dir, order.cpus, "", ""))
    stages = Stages(
        planned.job,
        planned.history,
        cluster,
        Ledger(run_dir, order.resume),
        order.limits,
        progress,
        versions(),
    )
    stages.set_aside(lost(planned))
    contents = stages.read_contents(planned.groups)
    stages.learn_regimes()
    samples = stages.sample(planned.groups)
    seed = planned.job.seed if order.seed is None else order.seed
    search = _Search(planned.job, samples, cluster, order, progress, _record(planned.job, samples, contents, seed))
    search.run(began + 60 * order.minutes if order.minutes else float("inf"))
    record = search.record
    chosen = {entry["name"]: entry["trials"][entry["chosen"]]["parameters"] for entry in record["classes"]}
    tuned = _with(planned.job.spec, chosen)
    text = tuned_text(order.fleet.read_text(encoding="utf-8"), tuned, chosen)
    replace(write_temporary(order.out, "fleet.toml", [text.encode()]), order.out / "fleet.toml")
    write_trials(order.out / "trials.html", record)
    return {
        "fleet": str(order.out / "fleet.toml"),
        "trials": str(order.out / "trials.json"),
        "plot": str(order.out / "trials.html"),
        "seed": seed,
        "trials_reused": search.reused,
        "assets_failed": len(stages.quarantined),
        "quarantined": dict(sorted(stages.quarantined.items())),
        "tune_seconds": round(time.perf_counter() - began, 3),
        "classes": [
            {
                "name": entry["name"],
                "trials": len(entry["trials"]) - 1,
                "failed": sum(trial["objective"] is None for trial in entry["trials"]),
                "chosen": entry["chosen"],
                "objective": entry["trials"][entry["chosen"]]["objective"],
                "gain": entry["gain"],
                "gain_error": entry["gain_error"],
                "figures": _figures(entry),
                "before": entry["trials"][0]["parameters"],
                "parameters": chosen[entry["name"]],
                "unjudged": entry["unjudged"],
            }
            for entry in record["classes"]
        ],
    }


@dataclass
class _Search:
    """The trials of all classes, a batch at a time; `record` is what trials.json holds."""

    job: TrainJob
    samples: Sequence[Chunk]
    cluster: Cluster
    order: TuneOrder
    progress: Progress
    record: Document
    reused: int = 0

    def run(self, until: float) -> None:
        """Try what is wanted, and begin no batch after `until` (seconds of `perf_counter`) but the first."""
        path = self.order.out / "trials.json"
        if self.order.resume and path.exists():
            self._take_up(load_trials(path), path)
        wanted = self.order.trials + 1
        self.progress.start("trials", wanted * len(self.record["classes"]), "trials")
        self.progress.advance(self.reused)
        self._try([(e, 0, self._present(e["name"])) for e in self.record["classes"] if not e["trials"]])
        for entry in self.record["classes"]:
            if entry["trials"][0]["reason"]:
                reason = entry["trials"][0]["reason"]
                raise CommandError(f"class {entry['name']!r} cannot be fitted with what fleet.toml says now: {reason}")
        save_trials(path, self.record)
        while any(len(entry["trials"]) < wanted for entry in self.record["classes"]):
            begun = min(len(entry["trials"]) for entry in self.record["classes"]) > 1
            if begun and time.perf_counter() > until:
                self.progress.say(
                    f"stopped after {self.order.minutes:g} minutes; --resume goes on with the other trials"
                )
                break
            batch = []
            for entry in self.record["classes"]:
                done = len(entry["trials"])
                first = 1 + (done - 1) // BATCH * BATCH  # of a batch that a kill cut short, what is left
                known = [(trial["parameters"], trial["objective"]) for trial in entry["trials"][:first]]
                asked = next_batch(known, self.record["seed"]) if done < wanted else []
                batch += [(entry, first + i, p) for i, p in enumerate(asked) if done <= first + i < wanted]
            self._try(batch)
            save_trials(path, self.record)
        for entry in self.record["classes"]:
            entry["chosen"], entry["gain"], entry["gain_error"] = choose(entry["trials"])
        save_trials(path, self.record)
        self.progress.finish(self._note())

    def _try(self, batch: Sequence[tuple[Document, int, Mapping[str, float]]]) -> None:
        """Fit every fold of some trials, and add them to their classes in the order of their numbers."""
        tasks = [
            Task(
                f"trial {number} of {entry['name']}, fold {fold}",
                (self.job, entry["name"], parameters, fold, slots, self._chunks(entry["name"])),
            )
            for entry, number, parameters in batch
            for fold, slots in enumerate(self._slots(entry))
            if slots
        ]
        results: dict[str, Any] = {}
        reasons: dict[str, str] = {}
        for ended in self.cluster.run(try_fold, tasks, self.order.limits):
            if isinstance(ended, Done):
                results[ended.task.name] = ended.result
            else:
                reasons[ended.task.name] = ended.reason
        for entry, number, parameters in batch:
            names = [f"trial {number} of {entry['name']}, fold {fold}" for fold in range(self.record["folds"])]
            folds = [results.get(name) for name in names]
            reason = next((reasons[name] for name in names if name in reasons), "")
            first = entry["trials"][0]["folds"] if entry["trials"] else folds
            objective = None if reason else objective_of(folds, first)[0]
            entry["trials"].append(
                {
                    "number": number,
                    "parameters": dict(parameters),
                    "objective": objective,
                    "folds": folds,
                    "reason": reason,
                }
            )
            self.progress.advance(1, self._note())

    def _take_up(self, found: Document, path: Path) -> None:
        """Go on with the trials of `path`. UsageError where they are of another search."""
        other = [name for name in _SAME if found.get(name) != self.record[name]]
        if other:
            raise UsageError(
                f"{path} is of another search: {', '.join(other)} differ",
                "tune without --resume, or into another folder",
            )
        self.record["classes"] = [
            {**mine, "trials": theirs["trials"][: self.order.trials + 1]}
            for mine, theirs in zip(self.record["classes"], found["classes"], strict=True)
        ]
        self.reused = sum(len(entry["trials"]) for entry in self.record["classes"])

    def _present(self, asset_class: str) -> dict[str, float]:
        """The parameters that the fleet has now."""
        model = self.job.asset_class(asset_class).model
        return {name: getattr(model, name) for name in SPACE}

    def _slots(self, entry: Document) -> list[list[str]]:
        """By fold, the slots that are judged on it."""
        return [
            [slot for slot, folds in entry["judged"].items() if fold in folds] for fold in range(self.record["folds"])
        ]

    def _chunks(self, asset_class: str) -> list[Chunk]:
        return [dataclasses.replace(c, source=None) for c in self.samples if c.asset_class == asset_class]

    def _note(self) -> str:
        best = {
            entry["name"]: min(t["objective"] for t in entry["trials"] if t["objective"] is not None)
            for entry in self.record["classes"]
            if entry["trials"]
        }
        return "loss against now: " + ", ".join(f"{name} {value:.3f}" for name, value in best.items())


def _record(job: TrainJob, samples: Sequence[Chunk], contents: Mapping[str, str], seed: int) -> Document:
    """The record of a search that has not begun. CommandError where a class has no folds to be judged on."""
    classes = []
    for spec in job.spec.classes:
        sample = load_samples(job, spec.name, samples)
        if not sample or not len(sample["weight"]):
            raise CommandError(f"class {spec.name!r} cannot be tuned: it has no row to learn from before its test part")
        judged, unjudged = judged_slots(job, spec, sample)
        classes.append({"name": spec.name, "judged": judged, "unjudged": unjudged, "trials": []})
    data = json.dumps(sorted(contents.items()), separators=(",", ":")).encode()
    learnt = dataclasses.replace(job.spec, classes=tuple(without_alarms(c) for c in job.spec.classes), gates=())
    return {
        "format": FORMAT,
        "fleet": job.spec.name,
        "config": digest(learnt),
        "data": hashlib.sha256(data).hexdigest(),
        "seed": seed,
        "folds": job.spec.split.folds,
        "batch": BATCH,
        "software": {**versions(), "optuna": optuna_version()},
        "space": {name: list(ends) for name, ends in SPACE.items()},
        "classes": classes,
    }


def _figures(entry: Document) -> list[Document]:
    """Each judged slot's own figure, mean over its folds: with the parameters of before, and with those chosen."""
    found = []
    for slot in sorted(entry["judged"]):
        before, now = (
            [fold[slot] for fold in entry["trials"][n]["folds"] if fold and slot in fold] for n in (0, entry["chosen"])
        )
        means = {
            name: sum(one["value"] for one in folds) / len(folds) for name, folds in (("before", before), ("now", now))
        }
        found.append({"slot": slot, "metric": before[0]["metric"], **means})
    return found


def _with(spec: FleetSpec, parameters: Mapping[str, Mapping[str, Any]]) -> FleetSpec:
    classes = tuple(
        dataclasses.replace(one, model=dataclasses.replace(one.model, **parameters[one.name])) for one in spec.classes
    )
    return dataclasses.replace(spec, classes=classes)
