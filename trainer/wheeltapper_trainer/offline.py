"""`wheeltapper score`: a history through the kernels that serve, and one final answer for every reading.

The history is cut into chunks of assets by readings, never by how many workers there are. A worker reads its own row
groups, scores them and leaves a Parquet table beside the one asked for; tables are joined in order as they come, so
the answers have the same bytes on one core, on all, and on a Ray cluster, and no memory grows with the history.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from wheeltapper.device import fleet_on
from wheeltapper.errors import CommandError, NotFound, UsageError
from wheeltapper.pack import Pack
from wheeltapper_command.progress import Progress

from wheeltapper_trainer.answer_table import AnswerTable
from wheeltapper_trainer.cluster import Cluster, Done, Failed, Limits, Task
from wheeltapper_trainer.final_answers import Wanted
from wheeltapper_trainer.history import Excerpt, History, TableWriter
from wheeltapper_trainer.offline_chunk import ChunkJob, score_chunk
from wheeltapper_trainer.threads import run_here

_CHUNK_READINGS = 32_768  # a table of 100 features is then 13 MB
_WORKERS_FROM = 2_000_000  # readings; fewer are scored on threads before Ray has started its workers


@dataclass(frozen=True, slots=True)
class Order:
    """What to score and how. Readings before `from_us` (µs since 1970 UTC) fill windows and are not written.

    reasons: at most so many for each output that raises an alarm, or of every reading where `reasons_always`.
    pack_path: the pack's file; without it everything is scored in this process, on `cpus` threads.
    address: a Ray cluster, whose machines must find history, pack and the folder of `out` under these names.
    workers_from: readings from which on worker processes of this machine are worth their start.
    device: "cpu", or "cuda" for this machine's GPU, which one process drives.
    """

    history: str
    out: Path
    from_us: int | None = None
    want_features: bool = False
    cpus: int = 1
    reasons: int = 0
    reasons_always: bool = False
    pack_path: Path | None = None
    address: str = ""
    limits: Limits | None = None
    workers_from: int = _WORKERS_FROM
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.address and self.device != "cpu":
            raise UsageError("--device cuda: expected this machine, found a Ray cluster", "leave out --ray-address")


def score_history(order: Order, pack: Pack, release: int, progress: Progress) -> dict[str, Any]:
    """Write `order.out` (Parquet, sorted by asset_id and time); returns counts and the time it took.

    A chunk that fails is tried again asset by asset; assets that fail alone as well are left out and named in the
    result's "failed", with the reason. Raises NotFound where the pack has no class for an asset of the history,
    CommandError where nothing could be scored.
    """
    began = time.perf_counter()
    history = History.open(order.history, skip_unreadable=True)
    classes = _checked_classes(history, pack)
    failed = dict(history.lost())
    chunks = _chunks(history, failed)
    readings = sum(part.rows for part in history.plan())
    tally = Counter[str]()
    progress.start("scoring", readings, "readings")
    order.out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{order.out.name}.", dir=order.out.parent.absolute()))
    try:
        job = _job(order, pack, release, classes, folder)
        tasks = [_task(job, f"{number:07d}", chunk) for number, chunk in enumerate(chunks)]
        with TableWriter(order.out) as writer:
            for done in _in_order(_run(order, pack, tasks, readings), tasks, failed):
                writer.append(*(one["table"] for one in done))
                for one in done:
                    Path(one["table"]).unlink()
                    tally.update(one["counts"])
                    progress.advance(one["counts"]["read"], f"{len(failed):,} assets failed" if failed else "")
            if failed and not tally:
                raise CommandError(f"nothing could be scored: {next(iter(failed.values()))}", "mend the history first")
            if not tally["written"]:
                writer.write(AnswerTable.of(pack, classes, order.want_features, order.reasons > 0).nothing(release))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    progress.finish()
    seconds = time.perf_counter() - began
    return {
        "assets": len(history.assets()),
        "readings_read": tally.pop("read", 0),
        "readings_answered": tally.pop("written", 0),
        "statuses": dict(sorted(tally.items())),
        "score_seconds": round(seconds, 3),
        "readings_per_second": round(readings / seconds, 1),
        "release": release,
        "failed": dict(sorted(failed.items())),
        "out": str(order.out),
    }


def _checked_classes(history: History, pack: Pack) -> tuple[str, ...]:
    """The classes of the history; NotFound where the pack lacks one."""
    known = [one.name for one in pack.classes]
    for asset in history.assets():
        if asset.asset_class not in known:
            raise NotFound(
                f"asset {asset.asset_id!r} is of class {asset.asset_class!r}; the pack has {known}",
                "score with a release that was trained for this fleet",
            )
    return tuple(history.classes())


def _chunks(history: History, lost: Mapping[str, str]) -> Iterator[Excerpt]:
    """Runs of neighbouring assets of one class, with about so many readings each, in order."""
    run: list[str] = []
    rows, asset_class = 0, ""
    for part in history.plan():
        if part.asset_id in lost:
            continue
        if run and (part.asset_class != asset_class or rows + part.rows > _CHUNK_READINGS):
            yield history.excerpt(run)
            run, rows = [], 0
        run.append(part.asset_id)
        rows, asset_class = rows + part.rows, part.asset_class
    if run:
        yield history.excerpt(run)


def _job(order: Order, pack: Pack, release: int, classes: Sequence[str], folder: Path) -> ChunkJob:
    sensors = {name: tuple(sensor.name for sensor in pack.class_named(name).spec.sensors) for name in classes}
    return ChunkJob(
        pack_path="" if order.pack_path is None else str(order.pack_path.absolute()),
        release=release,
        classes=tuple(classes),
        sensors=sensors,
        folder=str(folder),
        now_us=time.time_ns() // 1_000,  # one clock for all chunks, as a scorer has one
        from_us=order.from_us,
        wanted=Wanted(order.want_features, order.reasons, order.reasons_always),
        device=order.device,
    )


def _task(job: ChunkJob, name: str, chunk: Excerpt) -> Task:
    """A chunk, and each of its assets by itself for when it fails."""
    if len(chunk.assets) == 1:
        return Task(chunk.assets[0].asset_id, (job, name, chunk))
    alone = tuple(_task(job, f"{name}-{at:07d}", single) for at, single in enumerate(chunk.singles()))
    return Task(name, (job, name, chunk), alone)


def _run(order: Order, pack: Pack, tasks: Sequence[Task], readings: int) -> Iterator[Done | Failed]:
    """Every task's end, in any order: on a cluster, on worker processes of this machine, or on threads."""
    many = order.cpus > 1 and len(tasks) > 1 and readings >= order.workers_from and order.device == "cpu"
    if order.pack_path is not None and (order.address or many):
        with Cluster(order.cpus, order.address, preload=["wheeltapper_trainer.offline_chunk"]) as cluster:
            yield from cluster.run(score_chunk, tasks, order.limits)
        return

    here = partial(score_chunk, pack=pack)
    _keep = fleet_on(order.device, pack, 0)  # as long as it lives, forests stay where they are
    threads = order.cpus if order.device == "cpu" else 1  # a GPU's queues are a fleet's own
    yield from run_here(threads, here, tasks, order.limits or Limits())


def _in_order(
    ended: Iterator[Done | Failed], tasks: Sequence[Task], failed: dict[str, str]
) -> Iterator[list[dict[str, Any]]]:
    """The results of each task, in order: one, or those of what it fell apart into. What failed alone goes into
    `failed`, by its name, with the reason."""
    place = {_key(task): at for at, whole in enumerate(tasks) for task in (whole, *whole.alone)}
    left = [1] * len(tasks)
    found: list[dict[str, dict[str, Any]]] = [{} for _ in tasks]
    fallen: set[int] = set()
    next_one = 0
    for end in ended:
        key = _key(end.task)
        at = place[key]
        if end.task is not tasks[at] and at not in fallen:
            fallen.add(at)
            left[at] = len(tasks[at].alone)
        left[at] -= 1
        if isinstance(end, Failed):
            failed[end.task.name] = f"{end.reason} ({end.attempts} attempts)"
        else:
            found[at][key] = end.result
        while next_one < len(tasks) and not left[next_one]:
            yield [result for _, result in sorted(found[next_one].items())]
            found[next_one].clear()
            next_one += 1


def _key(task: Task) -> str:
    """The name of its table, by which tables are sorted."""
    return str(task.arguments[1])
