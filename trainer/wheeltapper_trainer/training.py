"""`wheeltapper train`: the journey from a history and a fleet.toml to a release, on one screen."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from wheeltapper.config import load_fleet
from wheeltapper.config_text import fleet_text
from wheeltapper.errors import CommandError, NotFound, PackError
from wheeltapper.features import feature_rows
from wheeltapper.inspect import describe
from wheeltapper.pack import Pack, open_pack, save_pack
from wheeltapper.regimes import no_regimes
from wheeltapper.registry import Registry, Release
from wheeltapper.release_diff import difference
from wheeltapper.signing import Signer
from wheeltapper_command.progress import Progress

from wheeltapper_trainer.assemble import assemble
from wheeltapper_trainer.boosting import require_device
from wheeltapper_trainer.cluster import Cluster, Limits
from wheeltapper_trainer.evaluation import evaluate, flat_metrics
from wheeltapper_trainer.gates import gate_results
from wheeltapper_trainer.history import History
from wheeltapper_trainer.job import ChunkDone, ClassDone, TrainJob
from wheeltapper_trainer.ledger import Ledger
from wheeltapper_trainer.lineage import lineage_of, versions
from wheeltapper_trainer.plan import Group, check_history, groups_of
from wheeltapper_trainer.split import resolve_split
from wheeltapper_trainer.stages import Stages
from wheeltapper_trainer.thresholds import choose_thresholds
from wheeltapper_trainer.tuning_record import tuning_of

_FLEET_BYTES_MAX = 1 << 20  # of a fleet's description in an entry, which must never keep a release from being published


@dataclass(frozen=True, slots=True)
class Order:
    """What to train, from what, into what, and with which machines. `address`: a Ray cluster; empty: this machine."""

    fleet: Path
    history: str
    registry: Path
    run_dir: Path
    report: Path
    cpus: int
    who: str
    why: str
    address: str = ""
    key: Path | None = None  # signs the release
    resume: bool = False
    keep_runs: int = 3  # results that none of so many runs used leave the run folder
    tuning: Path | None = None  # the trials that chose the parameters; None: trials.json beside the fleet, if any
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished run: its release, `result` for `-o json`, asset → reason of those set aside, and its evaluation."""

    release: Release
    result: Mapping[str, Any]
    quarantined: Mapping[str, str]
    evaluation: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Planned:
    """What a run will do, known before it starts anything."""

    job: TrainJob
    groups: Sequence[Group]
    history: History


def plan(order: Order) -> Planned:
    """Read the fleet, hold the history against it, fix the split, cut the work. Raises what a user can mend.

    Refused where a class wants a device that this machine has not; on a cluster its workers say so.
    """
    spec = load_fleet(order.fleet)
    for device in {entry.model.device for entry in spec.classes} if not order.address else ():
        require_device(device)
    history = History.open(order.history, skip_unreadable=True)
    check_history(history, spec)
    groups = groups_of(history.plan(), spec)
    counts = tuple((c.name, sum(len(g.asset_ids) for g in groups if g.asset_class == c.name)) for c in spec.classes)
    splits = resolve_split(history, spec)
    return Planned(TrainJob(order.history, str(order.run_dir), spec, splits, counts, spec.seed), groups, history)


def lost(planned: Planned) -> dict[str, str]:
    """Asset → why it cannot be read, of the fleet's classes: its whole file is broken."""
    names = {spec.name for spec in planned.job.spec.classes}
    of_class = {asset.asset_id: asset.asset_class for asset in planned.history.assets()}
    return {asset: reason for asset, reason in planned.history.lost().items() if of_class[asset] in names}


def train(order: Order, progress: Progress) -> Trained:
    """Train a fleet and publish it as a candidate. Raises CommandError where nothing can be published."""
    planned = plan(order)
    with Cluster(order.cpus, order.address, preload=["wheeltapper_trainer.chunk"]) as cluster:
        return train_on(cluster, planned, order, progress)


def train_on(cluster: Cluster, planned: Planned, order: Order, progress: Progress) -> Trained:
    """`train` on a cluster that is starting or running."""
    began = time.perf_counter()
    tuned = _tuning(planned, order, progress)
    ledger = Ledger(order.run_dir, order.resume)
    stages = Stages(planned.job, planned.history, cluster, ledger, order.limits, progress, versions())
    _compile(planned.job)
    cluster.wait_ready()
    stages.set_aside(lost(planned))
    contents = stages.read_contents(planned.groups)
    stages.learn_regimes()
    samples = stages.sample(planned.groups)
    class_heads = stages.fit_classes(samples)
    chunks, own_heads = stages.train_assets(planned.groups)
    packing = time.perf_counter()
    _check_any_left(planned, stages, class_heads)
    progress.say("thresholds, pack and evaluation")
    thresholds = choose_thresholds(planned.job, chunks)
    evaluation = evaluate(planned.job, chunks, thresholds)
    metrics = flat_metrics(evaluation)
    lineage = lineage_of(planned.job, contents, tuned and tuned[0])
    packed = planned.job.pack_folder() / "fleet.pack"
    save_pack(assemble(planned.job, samples, chunks, thresholds, lineage, metrics), packed)
    registry = Registry(order.registry, signer=Signer.from_file(order.key) if order.key else None)
    production = _production(registry, progress)
    gates = gate_results(planned.job.spec, metrics)
    details = {
        "assets_failed": len(stages.quarantined),
        "totals": {k: v for k, v in evaluation["totals"].items() if k != "lead_hours"},
        **_fleet_toml(planned.job),
        **({} if tuned is None else {"tuning": tuned[1]}),
    }
    release = registry.publish(packed, who=order.who, why=order.why, gates=gates, details=details)
    shutil.rmtree(planned.job.pack_folder())
    pack = open_pack(release.pack_path)
    ended = time.perf_counter()
    seconds = _seconds(stages, cluster, ended - packing)
    result = {
        "release": release.number,
        "pack": release.sha256,
        "fleet": planned.job.spec.name,
        **_sizes(pack, class_heads, own_heads),
        "assets_failed": len(stages.quarantined),
        "quarantined": dict(sorted(stages.quarantined.items())),
        "readings": sum(group.rows for group in planned.groups),
        "train_seconds": round(ended - began, 3),
        "seconds": seconds,
        "worker_seconds_per_asset": _per_asset(planned, seconds),
        "work_reused": ledger.found,
        "assets_reused": stages.reused["assets"],
        "gates": gates,
        "metrics": evaluation["totals"],
        "tuning": tuned and tuned[0],
        "report": str(order.report),
    }
    ledger.prune(order.keep_runs)
    from wheeltapper_trainer.report import write_report  # noqa: PLC0415  its plots' library would hold up the start

    progress.say(f"report: {order.report}")
    changes = None if production is None else difference(describe(production[1]), describe(pack))
    write_report(order.report, planned.job, evaluation, result, lineage, production and production[0], changes)
    return Trained(release, result, stages.quarantined, evaluation)


def _compile(job: TrainJob) -> None:
    """Compile the feature kernels while Ray starts; its workers then find them in Numba's cache."""
    for spec in job.spec.classes[:1]:
        nothing = np.empty(0, np.int64)
        statics, values = np.zeros(len(spec.statics), np.float32), np.zeros((1, len(spec.sensors)), np.float32)
        feature_rows(spec, no_regimes(spec), statics, np.zeros(1, np.int64), values, nothing, nothing)


def _tuning(planned: Planned, order: Order, progress: Progress) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The trials to record with the release: those asked for, or those beside the fleet if they chose what it has."""
    path = order.tuning or order.fleet.with_name("trials.json")
    found = tuning_of(planned.job.spec, path, asked=order.tuning is not None)
    if found is None and path.exists():
        progress.say(f"{path} is not recorded: fleet.toml has other parameters than its trials chose")
    return found


def _fleet_toml(job: TrainJob) -> dict[str, str]:
    """What was trained, for the release's entry: with its digests and versions enough to train the same pack again."""
    text = fleet_text(job.spec)
    return {"fleet_toml": text} if len(text.encode()) <= _FLEET_BYTES_MAX else {}


def _check_any_left(planned: Planned, stages: Stages, heads: Sequence[ClassDone]) -> None:
    """Raises CommandError where a class has nothing to answer with: a pack without it would silence its gateways."""
    for name, assets in planned.job.assets:
        failed = [a for g in planned.groups if g.asset_class == name for a in g.asset_ids if a in stages.quarantined]
        if len(failed) == assets:
            raise CommandError(
                f"every asset of class {name!r} failed; the first: {failed[0]}: {stages.quarantined[failed[0]]}",
                "nothing was published; --resume takes up what is finished once this is mended",
            )
        if not any(done.trees for done in heads if done.asset_class == name):
            raise CommandError(
                f"class {name!r} has no head: no reading before its test part has a known label for any target",
                "bring more history, shorten horizons and windows, or choose other targets",
            )


def _production(registry: Registry, progress: Progress) -> tuple[int, Pack] | None:
    """(release, pack) of what serves now, to compare with; None where nothing does that this version can read."""
    try:
        release = registry.resolve("production")
        return release.number, open_pack(release.pack_path)
    except NotFound:
        return None
    except PackError as error:  # a pack of another version must not keep a new one from being published
        progress.say(f"production cannot be compared with: {error}")
        return None


def _sizes(pack: Pack, class_heads: Sequence[ClassDone], own_heads: Sequence[ChunkDone]) -> dict[str, Any]:
    known = describe(pack)
    fitted = sum(done.trees > 0 for done in class_heads)
    return {
        "assets": known["assets"],
        "heads_trained": fitted + sum(done.heads_trained for done in own_heads),
        "heads_kept": known["heads"],
        "class_heads": fitted,
        "asset_heads_tried": sum(done.heads_trained for done in own_heads),
        "asset_heads_kept": sum(done.heads_kept for done in own_heads),
        "pack_bytes": known["bytes"],
        "bytes_per_head": known["bytes_per_head"],
    }


def _per_asset(planned: Planned, seconds: Mapping[str, float]) -> float:
    """What an asset cost of one core in this run, with everything found finished costing nothing."""
    assets = sum(len(group.asset_ids) for group in planned.groups)
    return round(sum(seconds[phase] for phase in ("read", "features", "fit", "wait")) / max(1, assets), 4)


def _seconds(stages: Stages, cluster: Cluster, pack_seconds: float) -> dict[str, float]:
    """Where the time went: `start` and `pack` on the clock; the others are the workers', over all cores. `wait` is what
    the cores were there for and did not use: tasks on their way, imports, the uneven end of a stage."""
    busy = {phase: stages.seconds[phase] for phase in ("read", "features", "fit")}
    wait = max(0.0, stages.seconds["cores"] - sum(busy.values()))
    found = {"start": cluster.start_seconds, **busy, "pack": pack_seconds, "wait": wait}
    return {phase: round(seconds, 3) for phase, seconds in found.items()}
