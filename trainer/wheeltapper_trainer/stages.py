"""The stages of a training run on the cluster: what is finished is found in the ledger, the rest runs, and assets that
cannot be learnt are set aside with their reason while everything else goes on."""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from wheeltapper.durable import sha256_of
from wheeltapper.errors import CommandError
from wheeltapper.spec import AlarmSpec, digest
from wheeltapper_command.progress import Progress

from wheeltapper_trainer.chunk import fit_class, sample_chunk, train_chunk
from wheeltapper_trainer.cluster import Cluster, Done, Failed, Limits, Task
from wheeltapper_trainer.job import Chunk, ChunkDone, ClassDone, SampleDone, TrainJob, slots_of
from wheeltapper_trainer.ledger import Ledger
from wheeltapper_trainer.plan import Group, chunk_of, digest_assets, digest_of, single
from wheeltapper_trainer.regimes import learn_regimes

ChunkResult = TypeVar("ChunkResult", SampleDone, ChunkDone)


@dataclass
class Stages:
    """One run's stages, in the order of its methods; each needs what the ones before it left in the run folder.

    `versions` names the software that computes; it is part of every digest. `quarantined` holds asset → reason,
    `seconds` the workers' time by phase and the cluster's while stages ran ("cores").
    """

    job: TrainJob
    cluster: Cluster
    ledger: Ledger
    limits: Limits
    progress: Progress
    versions: Mapping[str, str]
    quarantined: dict[str, str] = field(default_factory=dict)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _contents: dict[str, str] = field(default_factory=dict)

    def read_contents(self, groups: Sequence[Group]) -> Mapping[str, str]:
        """Asset → digest of its content. Assets that cannot be read are quarantined here."""
        uri = self.job.history
        tasks = [
            Task(f"read {g.asset_ids[0]}…", (uri, g.asset_ids), tuple(Task(a, (uri, (a,))) for a in g.asset_ids))
            for g in groups
        ]
        self.progress.start("reading", sum(len(g.asset_ids) for g in groups), "assets")
        for ended in self._run(digest_assets, tasks):
            if isinstance(ended, Done):
                contents, unreadable = ended.result
                self._contents |= contents
                self.quarantined |= unreadable
                self.progress.advance(len(contents) + len(unreadable), self._note())
            else:
                self._set_aside(ended)
        self.progress.finish(self._note())
        return self._contents

    def learn_regimes(self) -> None:
        """The operating regimes of every class. CommandError where one cannot be learnt: its class has no features."""
        tasks = [Task(f"regimes of {c.name}", (self.job, c.name)) for c in self.job.spec.classes]
        for ended in self._run(_learn_regimes, tasks):
            if isinstance(ended, Failed):
                raise CommandError(f"{ended.task.name} cannot be learnt: {ended.reason}")

    def sample(self, groups: Sequence[Group]) -> list[Chunk]:
        """SAMPLE every group: the chunks whose sample files are there."""
        inputs = {c.name: self._basis(c.name) for c in self.job.spec.classes}
        return self._chunks("sample", sample_chunk, SampleDone, groups, inputs)[0]

    def fit_classes(self, samples: Sequence[Chunk]) -> list[ClassDone]:
        """CLASS: one head per class and slot. CommandError where one cannot be fitted: others would continue it."""
        done: list[ClassDone] = []
        tasks: list[Task] = []
        digests: dict[str, str] = {}
        for spec in self.job.spec.classes:
            own = [chunk for chunk in samples if chunk.asset_class == spec.name]
            files = sorted(sha256_of(self.job.sample_path(chunk)) for chunk in own)
            for slot in slots_of(spec):
                name = f"the head of {spec.name} for {slot.name}"
                basis = {**self._basis(spec.name), "slot": slot.index, "samples": files}
                digests[name] = digest_of("class", basis)
                known = self.ledger.find("class", digests[name], ClassDone)
                if known is None:
                    tasks.append(Task(name, (self.job, spec.name, slot.index, own)))
                else:
                    done.append(known)
        self.progress.start("class heads", len(tasks), "heads")
        for ended in self._run(fit_class, tasks):
            if isinstance(ended, Failed):
                raise CommandError(
                    f"{ended.task.name} cannot be fitted: {ended.reason}", "every asset would start from it"
                )
            result: ClassDone = ended.result
            path = self.job.class_path(result.asset_class, result.slot)
            self.ledger.store("class", digests[ended.task.name], result, [path])
            self.seconds["fit"] += result.seconds_fit
            done.append(result)
            self.progress.advance(1, self._note())
        self.progress.finish(_reused(len(done) - len(tasks)))
        return sorted(done, key=lambda d: (d.asset_class, d.slot))

    def train_assets(self, groups: Sequence[Group]) -> tuple[list[Chunk], list[ChunkDone]]:
        """ASSET: every asset's own heads and scores: the chunks whose files are there, and what each holds."""
        inputs = {}
        for spec in self.job.spec.classes:
            heads = [sha256_of(self.job.class_path(spec.name, slot.index)) for slot in slots_of(spec)]
            inputs[spec.name] = {**self._basis(spec.name), "heads": heads}
        return self._chunks("assets", train_chunk, ChunkDone, groups, inputs)

    def _chunks(
        self,
        stage: str,
        function: Callable[[TrainJob, Chunk], ChunkResult],
        kind: type[ChunkResult],
        groups: Sequence[Group],
        inputs: Mapping[str, Mapping[str, Any]],
    ) -> tuple[list[Chunk], list[ChunkResult]]:
        contents = {a: c for a, c in self._contents.items() if a not in self.quarantined}
        finished: list[tuple[Chunk, ChunkResult]] = []
        tasks: list[Task] = []

        def task(group: Group) -> Task:
            chunk = chunk_of(group, stage, inputs[group.asset_class], contents)
            return Task(chunk.digest, (self.job, chunk))

        def known(chunk: Chunk) -> bool:
            result = self.ledger.find(stage, chunk.digest, kind)
            if result is not None:
                finished.append((chunk, result))
            return result is not None

        for group in groups:
            there = [single(group, asset_id) for asset_id in group.asset_ids if asset_id in contents]
            alone = tuple(task(s) for s in there) if len(there) > 1 else ()
            whole = task(group)
            if not there or known(whole.arguments[1]):
                continue
            # A chunk that fell apart in an earlier run goes on as its pieces.
            missing = [piece for piece in alone if not known(piece.arguments[1])]
            tasks.extend(missing if len(missing) < len(alone) else [dataclasses.replace(whole, alone=alone)])

        reused = sum(len(chunk.asset_ids) for chunk, _ in finished)
        self.progress.start(stage, sum(len(t.arguments[1].asset_ids) for t in tasks), "assets")
        again: list[Task] = []
        for ended in self._run(function, tasks):
            if isinstance(ended, Failed):
                self._set_aside(ended)
                continue
            pieces = {piece.arguments[1].asset_ids[0]: piece for piece in ended.task.alone}
            again += [pieces[asset_id] for asset_id, _ in ended.result.failed if asset_id in pieces]
            finished.append(self._taken(stage, ended, last=not pieces))
        for ended in self._run(function, again):
            if isinstance(ended, Failed):
                self._set_aside(ended)
            else:
                finished.append(self._taken(stage, ended, last=True))
        self.progress.finish(" · ".join(note for note in (_reused(reused, "assets"), self._note()) if note))
        finished.sort(key=lambda pair: (pair[0].asset_class, pair[0].asset_ids))
        return [chunk for chunk, _ in finished], [result for _, result in finished]

    def _taken(self, stage: str, ended: Done, last: bool) -> tuple[Chunk, Any]:
        """Account for a chunk that came back; `last`: its failed assets have had all their attempts."""
        chunk, result = ended.task.arguments[1], ended.result
        for phase in ("read", "features", "fit"):
            self.seconds[phase] += getattr(result, f"seconds_{phase}", 0.0)
        failed = dict(result.failed)
        if last:
            self.quarantined |= failed
        if not failed:
            path = self.job.sample_path(chunk) if stage == "sample" else self.job.chunk_path(chunk)
            self.ledger.store(stage, chunk.digest, result, [path])
        self.progress.advance(len(chunk.asset_ids) - (0 if last else len(failed)), self._note())
        there = tuple(asset_id for asset_id in chunk.asset_ids if asset_id not in failed)
        return dataclasses.replace(chunk, asset_ids=there), result

    def _run(self, function: Callable[..., Any], tasks: Sequence[Task]) -> Iterator[Done | Failed]:
        """`Cluster.run`, with the time that its cores were there for this run added to `seconds`."""
        cores = self.cluster.wait_ready() if tasks else 0
        began = time.perf_counter()
        try:
            yield from self.cluster.run(function, tasks, self.limits)
        finally:
            self.seconds["cores"] += (time.perf_counter() - began) * cores

    def _set_aside(self, ended: Failed) -> None:
        """Quarantine the one asset of a task that failed alone."""
        asset_ids = ended.task.arguments[1]
        for asset_id in asset_ids.asset_ids if isinstance(asset_ids, Chunk) else asset_ids:
            self.quarantined[asset_id] = ended.reason
            self.progress.advance(1, self._note())

    def _note(self) -> str:
        return f"{len(self.quarantined)} failed" if self.quarantined else ""

    def _basis(self, asset_class: str) -> dict[str, Any]:
        """What every file of a class depends on beside its assets' contents. Alarms do not: they are chosen later."""
        job = self.job
        return {
            "spec": digest(dataclasses.replace(job.asset_class(asset_class), alarm=AlarmSpec())),
            "split": dataclasses.asdict(job.split(asset_class)),
            "assets": job.asset_count(asset_class),
            "class_rows": job.class_rows,
            "seed": job.seed,
            "regimes": sha256_of(job.regimes_path(asset_class)),
            "versions": dict(self.versions),
        }


def _learn_regimes(job: TrainJob, asset_class: str) -> None:
    """`learn_regimes` without its arrays on the way back: they are in the run folder."""
    learn_regimes(job, asset_class)


def _reused(count: int, unit: str = "heads") -> str:
    return f"{count:,} {unit} found finished" if count else ""
