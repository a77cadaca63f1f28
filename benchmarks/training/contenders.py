"""Who trains the fleet: each in a process of its own, from its first import to its last model.

`python -m benchmarks.training.contenders NAME FOLDER ASSETS ROWS TREES CORES` prints one JSON object: cpu, the CPU
seconds inside `xgboost.train` of all models together; trees, one sha256 over all of them; wall, first, seconds since
the start of the process to the end and to the first model; ray, those of `ray.init` alone.
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

import numpy as np

from benchmarks.training.work import SENSORS, Size, fit_chunk, fit_one, fit_own, spec_of

Fits = Iterable[list[tuple[str, str, float]]]  # per task: (asset, sha256 of its trees, CPU seconds)


def wheeltapper_chunks(folder: Path, size: Size, cores: int) -> Fits:
    """The product's fan-out: chunks by rows, each task reads its own row groups, one process per core."""
    from wheeltapper_trainer.cluster import Cluster, Done, Task
    from wheeltapper_trainer.history import History
    from wheeltapper_trainer.plan import groups_of

    with Cluster(cores) as cluster:
        history = History.open(folder / "history")
        excerpts = [history.excerpt(group.asset_ids) for group in groups_of(history.plan(), spec_of(size))]
        for ended in cluster.run(fit_chunk, [Task(e.assets[0].asset_id, (e, size)) for e in excerpts]):
            if not isinstance(ended, Done):
                raise SystemExit(ended.reason)
            names = [asset.asset_id for asset in ended.task.arguments[0].assets]
            yield [(name, *fit) for name, fit in zip(names, ended.result, strict=True)]
        RAY_START.append(cluster.start_seconds)


def ray_task_per_asset(folder: Path, size: Size, cores: int, threads: int | None) -> Fits:
    import ray

    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, object_store_memory=128 * 2**20)
    fit = ray.remote(fit_own)
    waiting = {fit.remote(str(folder), asset_id, size, threads): asset_id for asset_id in assets(folder)}
    while waiting:
        for ref in ray.wait(list(waiting), num_returns=1)[0]:
            yield [(waiting.pop(ref), *ray.get(ref))]
    ray.shutdown()


def ray_data(folder: Path, size: Size, cores: int) -> Fits:
    """Ray Data reads the same Parquet files, shuffles their rows by asset, and maps the groups."""
    import ray
    import ray.data

    def fit(group: dict[str, Any]) -> dict[str, Any]:
        order = np.argsort(group["time"], kind="stable")
        values = np.column_stack([group[name][order] for name in SENSORS])
        times = group["time"][order].astype("M8[us]").astype(np.int64)
        sha, spent = fit_one(spec_of(size).classes[0], times, values, 1)
        return {"asset_id": group["asset_id"][:1], "sha": np.array([sha]), "cpu": np.array([spent])}

    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, object_store_memory=1024 * 2**20)
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = ray.data.read_parquet(str(folder / "history" / "readings"))
    for row in rows.groupby("asset_id").map_groups(fit, batch_format="numpy").iter_rows():
        yield [(str(row["asset_id"]), str(row["sha"]), float(row["cpu"]))]
    ray.shutdown()


def joblib_loky(folder: Path, size: Size, cores: int) -> Fits:
    import joblib  # type: ignore[import-untyped]

    jobs = (joblib.delayed(fit_own)(str(folder), asset_id, size, 1) for asset_id in assets(folder))
    parallel = joblib.Parallel(cores, return_as="generator", batch_size=10)
    for asset_id, fit in zip(assets(folder), parallel(jobs), strict=True):
        yield [(asset_id, *fit)]


def assets(folder: Path) -> list[str]:
    return sorted(path.stem for path in (folder / "own").iterdir())


RAY_START: list[float] = []  # seconds of `ray.init`, from those who say so
OURS, TASKS = "wheeltapper chunks", "Ray task per asset, nthread=1"
CONTENDERS: dict[str, Callable[[Path, Size, int], Fits]] = {
    OURS: wheeltapper_chunks,
    TASKS: functools.partial(ray_task_per_asset, threads=1),
    "joblib loky, nthread=1": joblib_loky,
    "Ray task per asset, default threads": functools.partial(ray_task_per_asset, threads=None),
    "Ray Data groupby().map_groups()": ray_data,
}


def main() -> None:
    name, folder, assets_count, rows, trees, cores = sys.argv[1:]
    begin = float(os.environ["BENCHMARK_BEGAN"])
    size = Size(int(assets_count), int(rows), int(trees))
    shas: dict[str, str] = {}
    cpu, first = 0.0, 0.0
    for fits in CONTENDERS[name](Path(folder), size, int(cores)):
        first = first or time.time() - begin
        for asset_id, sha, spent in fits:
            shas[asset_id] = sha
            cpu += spent
    trees_sha = hashlib.sha256(json.dumps(sorted(shas.items())).encode()).hexdigest()
    found = {"cpu": cpu, "first": first, "models": len(shas), "trees": trees_sha, "ray": sum(RAY_START)}
    print(json.dumps({**found, "wall": time.time() - begin}))


if __name__ == "__main__":
    main()
