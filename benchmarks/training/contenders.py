"""Who trains the fleet: each in a process of its own, from its first import to its last model.

`python -m benchmarks.training.contenders NAME FOLDER ASSETS ROWS TREES CORES` prints one JSON object: cpu, the CPU
seconds inside `xgboost.train` of all models together; trees, one sha256 over all of them; wall, first, seconds since
the start of the process to the end and to the first model.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.training.work import Size, fit_chunk, fit_own, spec_of

Fits = Iterable[list[tuple[str, str, float]]]  # per task: (asset, sha256 of its trees, CPU seconds)


def wheeltapper_chunks(folder: Path, size: Size, cores: int) -> Fits:
    """The product's fan-out: chunks by rows, each task reads its own row groups, one process per core."""
    from wheeltapper_trainer.cluster import Cluster, Done, Task
    from wheeltapper_trainer.history import History
    from wheeltapper_trainer.plan import groups_of

    with Cluster(cores) as cluster:
        history = str(folder / "history")
        groups = groups_of(History.open(history).plan(), spec_of(size))
        tasks = [Task(g.asset_ids[0], (history, g.asset_ids, size)) for g in groups]
        for ended in cluster.run(fit_chunk, tasks):
            if not isinstance(ended, Done):
                raise SystemExit(ended.reason)
            yield [(a, *fit) for a, fit in zip(ended.task.arguments[1], ended.result, strict=True)]


def ray_task_per_asset(folder: Path, size: Size, cores: int, threads: int | None) -> Fits:
    import ray

    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, object_store_memory=128 * 2**20)
    fit = ray.remote(fit_own)
    waiting = {fit.remote(str(folder), asset_id, size, threads): asset_id for asset_id in assets(folder)}
    while waiting:
        [ended], _ = ray.wait(list(waiting), num_returns=1)
        yield [(waiting.pop(ended), *ray.get(ended))]
    ray.shutdown()


def joblib_loky(folder: Path, size: Size, cores: int) -> Fits:
    import joblib  # type: ignore[import-untyped]

    jobs = (joblib.delayed(fit_own)(str(folder), asset_id, size, 1) for asset_id in assets(folder))
    parallel = joblib.Parallel(cores, return_as="generator", batch_size=10)
    for asset_id, fit in zip(assets(folder), parallel(jobs), strict=True):
        yield [(asset_id, *fit)]


def assets(folder: Path) -> list[str]:
    return sorted(path.stem for path in (folder / "own").iterdir())


CONTENDERS: dict[str, Callable[[Path, Size, int], Fits]] = {
    "wheeltapper chunks": wheeltapper_chunks,
    "Ray task per asset": functools.partial(ray_task_per_asset, threads=None),
    "Ray task per asset, nthread=1": functools.partial(ray_task_per_asset, threads=1),
    "joblib loky, nthread=1": joblib_loky,
}


def journey(folder: Path, cores: int) -> dict[str, Any]:
    """The whole of `wheeltapper train`, with the CPU seconds inside its `xgboost.train` calls kept by the workers."""
    from wheeltapper_command.progress import Progress
    from wheeltapper_trainer import stages
    from wheeltapper_trainer.training import Order, train

    spent = folder / "spent"
    spent.mkdir()
    where = str(spent)

    def train_chunk(*arguments: Any) -> Any:
        return _counted(where, "train_chunk", *arguments)

    def fit_class(*arguments: Any) -> Any:
        return _counted(where, "fit_class", *arguments)

    setattr(stages, "train_chunk", train_chunk)  # noqa: B010  the stages of this process run what stands there
    setattr(stages, "fit_class", fit_class)  # noqa: B010
    order = Order(
        fleet=folder / "fleet.toml",
        history=str(folder / "history"),
        registry=folder / "registry",
        run_dir=folder / "run",
        report=folder / "report.html",
        cpus=cores,
        who="a benchmark",
        why="to measure",
    )
    trained = train(order, Progress(quiet=True))
    if trained.quarantined:
        raise SystemExit(f"assets failed: {trained.quarantined}")
    cpu = sum(float(path.read_text()) for path in spent.iterdir())
    return {"cpu": cpu, **{key: trained.result[key] for key in ("seconds", "heads_trained", "pack")}}


def _counted(folder: str, name: str, *arguments: Any) -> Any:
    """Run a stage function of the trainer with a clock inside `xgboost.train`."""
    import xgboost
    from wheeltapper_trainer import chunk

    plain, spent = xgboost.train, [0.0]

    def train(*words: Any, **options: Any) -> Any:
        begin = time.thread_time()
        try:
            return plain(*words, **options)
        finally:
            spent[0] += time.thread_time() - begin

    xgboost.train = train
    try:
        return getattr(chunk, name)(*arguments)
    finally:
        xgboost.train = plain
        Path(folder, f"{name}-{os.getpid()}-{time.monotonic_ns()}").write_text(str(spent[0]))


def main() -> None:
    name, folder, assets_count, rows, trees, cores = sys.argv[1:]
    begin = float(os.environ["BENCHMARK_BEGAN"])
    if name == "journey":
        result = journey(Path(folder), int(cores))
        print(json.dumps({**result, "wall": time.time() - begin}))
        return
    size = Size(int(assets_count), int(rows), int(trees))
    shas: dict[str, str] = {}
    cpu, first = 0.0, 0.0
    for fits in CONTENDERS[name](Path(folder), size, int(cores)):
        first = first or time.time() - begin
        for asset_id, sha, spent in fits:
            shas[asset_id] = sha
            cpu += spent
    trees_sha = hashlib.sha256(json.dumps(sorted(shas.items())).encode()).hexdigest()
    print(
        json.dumps({"cpu": cpu, "first": first, "models": len(shas), "trees": trees_sha, "wall": time.time() - begin})
    )


if __name__ == "__main__":
    main()
