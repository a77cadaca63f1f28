"""The stages of a training run on the cluster: what is finished is found in the ledger, the rest runs, and assets that
cannot be learnt are set aside with their reason while everything else goes on."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from wheeltapper.durable import sha256_of
from wheeltapper.errors import CommandError
from wheeltapper.spec import digest, without_alarms
from wheeltapper_command.progress import Progress

from wheeltapper_trainer.chunk import fit_class, load_samples, sample_chunk, train_chunk
from wheeltapper_trainer.cluster import Cluster, Done, Failed, Limits, Task
from wheeltapper_trainer.history import Excerpt, History
from wheeltapper_trainer.job import Chunk, ChunkDone, ClassDone, SampleDone, TrainJob, load_arrays, slots_of
from wheeltapper_trainer.ledger import Ledger
from wheeltapper_trainer.plan import Group, chunk_of, digest_assets, digest_of, key_of, narrowed, single
from wheeltapper_trainer.regimes import learn_regimes, teachers

ChunkResult = TypeVar("ChunkResult", SampleDone, ChunkDone)


@dataclass
class Stages:
    """One run's stages, in the order of its methods; each needs what the ones before it left in the run folder.

    `versions` names the software that computes; it is part of every digest. `quarantined` holds asset → reason,
    `seconds` the workers' time by phase and the cluster's while stages ran ("cores"), `reused` stage → assets found
    finished.
    """

    job: TrainJob
    history: History
    cluster: Cluster
    ledger: Ledger
    limits: Limits
    progress: Progress
    versions: Mapping[str, str]
    quarantined: dict[str, str] = field(default_factory=dict)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    reused: dict[str, int] = field(default_factory=dict)
    _contents: dict[str, str] = field(default_factory=dict)

    def set_aside(self, reasons: Mapping[str, str]) -> None:
        """Quarantine assets that are known to be lost before any task runs: asset → reason."""
        for asset_id, reason in reasons.items():
            self.quarantined[asset_id] = reason
            self.ledger.log("set aside", asset=asset_id, reason=reason, attempts=0)

    def read_contents(self, groups: Sequence[Group]) -> Mapping[str, str]:
        """Asset → digest of its content. Assets that cannot be read are quarantined here."""
        excerpt = self.history.excerpt
        tasks = [
            Task(
                f"read {g.asset_ids[0]}…", (excerpt(g.asset_ids),), tuple(Task(a, (excerpt([a]),)) for a in g.asset_ids)
            )
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
                self._give_up(ended)
        self.progress.finish(self._note())
        return self._contents

    def learn_regimes(self) -> None:
        """The operating regimes of every class. CommandError where one cannot be learnt: its class has no features."""
        ids = {c.name: teachers(self.job, c, self.history.asset_ids(c.name)) for c in self.job.spec.classes}
        tasks = [Task(f"regimes of {name}", (self.job, name, self.history.excerpt(ids[name]))) for name in ids]
        for ended in self._run(_learn_regimes, tasks):
            if isinstance(ended, Failed):
                raise CommandError(f"{ended.task.name} cannot be learnt: {ended.reason}")

    def sample(self, groups: Sequence[Group]) -> list[Chunk]:
        """SAMPLE every group: the chunks whose sample files are there."""
        job = self.job
        inputs = {
            c.name: {**self._basis(c.name), "assets": job.asset_count(c.name), "class_rows": job.class_rows}
            for c in job.spec.classes
        }
        return self._chunks("sample", sample_chunk, SampleDone, groups, inputs)[0]

    def fit_classes(self, samples: Sequence[Chunk]) -> list[ClassDone]:
        """CLASS: one head per class and slot. CommandError where one cannot be fitted: others would continue it."""
        done: list[ClassDone] = []
        tasks: list[Task] = []
        digests: dict[str, str] = {}
        sampled = self._digest_samples(samples)
        for spec in self.job.spec.classes:
            own = [chunk for chunk in samples if chunk.asset_class == spec.name]
            for slot in slots_of(spec):
                name = f"the head of {spec.name} for {slot.name}"
                basis = {**self._basis(spec.name), "slot": slot.index, "samples": sampled[spec.name]}
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
            self.ledger.log("class", **_facts(result))
            self.seconds["fit"] += result.seconds_fit
            done.append(result)
            self.progress.advance(1, self._note())
        self.progress.finish(_reused(len(done) - len(tasks)))
        return sorted(done, key=lambda d: (d.asset_class, d.slot))

    def _digest_samples(self, samples: Sequence[Chunk]) -> Mapping[str, str]:
        """Class → digest of the rows that teach its heads. They often stay the same where assets' later data do not."""
        tasks = []
        for spec in self.job.spec.classes:
            own = [chunk for chunk in samples if chunk.asset_class == spec.name]
            tasks.append(Task(spec.name, (self.job, spec.name, own)))
        found: dict[str, str] = {}
        for ended in self._run(digest_samples, tasks):
            if isinstance(ended, Failed):
                raise CommandError(f"the samples of class {ended.task.name!r} cannot be read: {ended.reason}")
            found[ended.task.name] = ended.result
        return found

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
        keys = self._keys(stage, groups, inputs)
        finished = self._found(stage, kind, groups, keys)
        known = {asset_id for chunk, _ in finished for asset_id in chunk.asset_ids}

        def task(group: Group) -> Task:
            chunk = chunk_of(group, stage, inputs[group.asset_class], self._contents)
            return Task(
                chunk.digest, (self.job, dataclasses.replace(chunk, source=self.history.excerpt(chunk.asset_ids)))
            )

        tasks: list[Task] = []
        for group in groups:
            missing = [asset_id for asset_id in group.asset_ids if asset_id in keys and asset_id not in known]
            if missing:
                alone = tuple(task(single(group, asset_id)) for asset_id in missing) if len(missing) > 1 else ()
                tasks.append(dataclasses.replace(task(narrowed(group, missing)), alone=alone))

        self.progress.start(stage, sum(len(t.arguments[1].asset_ids) for t in tasks), "assets")
        again: list[Task] = []
        for ended in self._run(function, tasks):
            if isinstance(ended, Failed):
                self._give_up(ended)
                continue
            pieces = {piece.arguments[1].asset_ids[0]: piece for piece in ended.task.alone}
            again += [pieces[asset_id] for asset_id, _ in ended.result.failed if asset_id in pieces]
            finished.append(self._taken(stage, ended, keys, last=not pieces))
        for ended in self._run(function, again):
            if isinstance(ended, Failed):
                self._give_up(ended)
            else:
                finished.append(self._taken(stage, ended, keys, last=True))
        self.progress.finish(" · ".join(note for note in (_reused(len(known), "assets"), self._note()) if note))
        self.reused[stage] = len(known)
        finished = [(chunk, result) for chunk, result in finished if chunk.asset_ids]
        finished.sort(key=lambda pair: (pair[0].asset_class, pair[0].asset_ids))
        return [chunk for chunk, _ in finished], [result for _, result in finished]

    def _keys(self, stage: str, groups: Sequence[Group], inputs: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        """Asset → key of its share of a stage, for the assets that can be read and have not failed."""
        basis = {name: digest_of(stage, {**given, "class": name}) for name, given in inputs.items()}
        return {
            asset_id: key_of(basis[group.asset_class], asset_id, self._contents[asset_id])
            for group in groups
            for asset_id in group.asset_ids
            if asset_id in self._contents and asset_id not in self.quarantined
        }

    def _found(
        self, stage: str, kind: type[ChunkResult], groups: Sequence[Group], keys: Mapping[str, str]
    ) -> list[tuple[Chunk, ChunkResult]]:
        """What is finished of these assets, each chunk narrowed to those that are still what they were."""
        of_class = {asset_id: group.asset_class for group in groups for asset_id in group.asset_ids}
        finished: list[tuple[Chunk, ChunkResult]] = []
        for found in self.ledger.search(stage, kind, keys):
            result = found.result
            chunk = Chunk(of_class[found.asset_ids[0]], found.asset_ids, result.rows_read, found.digest)
            if isinstance(result, ChunkDone) and len(found.asset_ids) < result.assets:
                result = counted_again(self.job, chunk, result)
            finished.append((chunk, result))
        return finished

    def _taken(self, stage: str, ended: Done, keys: Mapping[str, str], last: bool) -> tuple[Chunk, Any]:
        """Account for a chunk that came back; `last`: its failed assets have had all their attempts."""
        chunk, result = ended.task.arguments[1], ended.result
        for phase in ("read", "features", "fit"):
            self.seconds[phase] += getattr(result, f"seconds_{phase}", 0.0)
        failed = dict(result.failed)
        if last:
            self.quarantined |= failed
        self.ledger.log(
            stage, chunk=chunk.digest[:12], asset_class=chunk.asset_class, first=chunk.asset_ids[0], **_facts(result)
        )
        there = tuple(asset_id for asset_id in chunk.asset_ids if asset_id not in failed)
        if there:
            path = self.job.sample_path(chunk) if stage == "sample" else self.job.chunk_path(chunk)
            self.ledger.store(stage, chunk.digest, result, [path], {asset_id: keys[asset_id] for asset_id in there})
        self.progress.advance(len(chunk.asset_ids) - (0 if last else len(failed)), self._note())
        return dataclasses.replace(chunk, asset_ids=there, source=None), result

    def _run(self, function: Callable[..., Any], tasks: Sequence[Task]) -> Iterator[Done | Failed]:
        """`Cluster.run`, with the time that its cores were there for this run added to `seconds`."""
        cores = self.cluster.wait_ready() if tasks else 0
        began = time.perf_counter()
        try:
            yield from self.cluster.run(function, tasks, self.limits)
        finally:
            self.seconds["cores"] += (time.perf_counter() - began) * cores

    def _give_up(self, ended: Failed) -> None:
        """Quarantine the one asset of a task that failed alone."""
        source = ended.task.arguments[-1]
        for asset_id in source.asset_ids if isinstance(source, Chunk) else [a.asset_id for a in source.assets]:
            self.quarantined[asset_id] = ended.reason
            self.ledger.log("set aside", asset=asset_id, reason=ended.reason, attempts=ended.attempts)
            self.progress.advance(1, self._note())

    def _note(self) -> str:
        return f"{len(self.quarantined)} failed" if self.quarantined else ""

    def _basis(self, asset_class: str) -> dict[str, Any]:
        """What every file of a class depends on beside its assets' contents. Alarms do not: they are chosen later."""
        job = self.job
        return {
            "spec": digest(without_alarms(job.asset_class(asset_class))),
            "split": dataclasses.asdict(job.split(asset_class)),
            # The one thing that an asset's labels take from its neighbours.
            "codes": sorted(self.history.failed_components(asset_class)),
            "seed": job.seed,
            "regimes": sha256_of(job.regimes_path(asset_class)),
            "versions": dict(self.versions),
        }


def digest_samples(job: TrainJob, asset_class: str, chunks: Sequence[Chunk]) -> str:
    """Hex sha256 of all sampled rows of a class in the order of asset and time; no matter how they were chunked."""
    found = hashlib.sha256()
    for name, column in sorted(load_samples(job, asset_class, chunks).items()):
        found.update(f"{name} {column.dtype} {column.shape}".encode())
        found.update(np.ascontiguousarray(column).tobytes())
    return found.hexdigest()


def counted_again(job: TrainJob, chunk: Chunk, result: ChunkDone) -> ChunkDone:
    """`result` for those of the chunk's assets that are left in it."""
    file = load_arrays(job.chunk_path(chunk))
    there = np.isin(file["asset_ids"], chunk.asset_ids)
    return dataclasses.replace(
        result,
        assets=int(there.sum()),
        heads_trained=int(file["tried"][there].sum()),
        heads_kept=int(there[file["head_asset"]].sum()),
    )


def _facts(result: SampleDone | ChunkDone | ClassDone) -> dict[str, Any]:
    """A result for the log: seconds rounded, failed assets with their reasons."""
    facts: dict[str, Any] = dataclasses.asdict(result)
    if not isinstance(result, ClassDone):
        facts["failed"] = dict(result.failed)
    return {name: round(fact, 3) if isinstance(fact, float) else fact for name, fact in facts.items()}


def _learn_regimes(job: TrainJob, asset_class: str, source: Excerpt) -> None:
    """`learn_regimes` without its arrays on the way back: they are in the run folder."""
    learn_regimes(job, asset_class, source)


def _reused(count: int, unit: str = "heads") -> str:
    return f"{count:,} {unit} found finished" if count else ""
