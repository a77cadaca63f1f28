"""Who trains the fleet: each in a process of its own, from its first import to its last model.

`python -m benchmarks.training.contenders NAME FOLDER ASSETS ROWS TREES CORES` prints one JSON object: bins, trees, the
CPU seconds inside XGBoost of all models together; forests, one sha256 over all of them; wall, first, seconds since the
start of the process to the end and to the first model; load, the machine's at the end.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from wheeltapper_trainer.records import Excerpt

from benchmarks.training.work import SENSORS, Fit, Size, fit_chunk, fit_one, fit_own, spec_of

Fits = Iterable[list[tuple[str, Fit]]]  # per task that ended: its assets


def wheeltapper_chunks(folder: Path, size: Size, cores: int) -> Fits:
    """The product's fan-out: chunks by rows, each task reads its own row groups, one process per core."""
    from wheeltapper_trainer.cluster import Cluster, Done, Task

    with Cluster(cores, preload=["benchmarks.training.work"]) as cluster:
        for ended in cluster.run(fit_chunk, [Task(e.assets[0].asset_id, (e, size)) for e in excerpts(folder, size)]):
            if not isinstance(ended, Done):
                raise SystemExit(ended.reason)
            yield list(zip(names_of(ended.task.arguments[0]), ended.result, strict=True))


def ray_one_process(folder: Path, size: Size, cores: int) -> Fits:
    """The same chunks on threads of one Ray worker. (Who kills it takes everything with it: decision 0014.)"""
    import ray

    def fit_all(chunks: list[Excerpt]) -> Iterator[list[tuple[str, Fit]]]:
        with ThreadPoolExecutor(cores) as pool:
            flying = {pool.submit(fit_chunk, chunk, size): chunk for chunk in chunks}
            for future in as_completed(flying):
                yield list(zip(names_of(flying[future]), future.result(), strict=True))

    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, object_store_memory=128 * 2**20)
    task: Any = ray.remote(fit_all).options(num_cpus=cores, max_retries=0, num_returns="streaming")
    for ref in task.remote(excerpts(folder, size)):
        yield ray.get(ref)
    ray.shutdown()


def ray_start(_folder: Path, _size: Size, cores: int) -> Fits:
    """Nothing but Ray, as the peers start it."""
    import ray

    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, object_store_memory=128 * 2**20)
    yield []
    ray.shutdown()


def ray_task_per_asset(folder: Path, size: Size, cores: int, threads: int | None) -> Fits:
    import ray

    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, object_store_memory=128 * 2**20)
    fit = ray.remote(fit_own)
    waiting = {fit.remote(str(folder), asset_id, size, threads): asset_id for asset_id in assets(folder)}
    while waiting:
        for ref in ray.wait(list(waiting), num_returns=1)[0]:
            yield [(waiting.pop(ref), ray.get(ref))]
    ray.shutdown()


def ray_data(folder: Path, size: Size, cores: int) -> Fits:
    """Ray Data reads the same Parquet files, shuffles their rows by asset, and maps the groups."""
    import ray
    import ray.data

    def fit(group: dict[str, Any]) -> dict[str, Any]:
        order = np.argsort(group["time"], kind="stable")
        values = np.column_stack([group[name][order] for name in SENSORS])
        times = group["time"][order].astype("M8[us]").astype(np.int64)
        fit = fit_one(spec_of(size).classes[0], times, values, 1)
        columns = {name: np.array([value]) for name, value in asdict(fit).items()}
        return {"asset_id": group["asset_id"][:1], **columns}

    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, object_store_memory=1024 * 2**20)
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = ray.data.read_parquet(str(folder / "history" / "readings"))
    for row in rows.groupby("asset_id").map_groups(fit, batch_format="numpy").iter_rows():
        yield [(str(row["asset_id"]), Fit(str(row["sha"]), float(row["bins"]), float(row["trees"])))]
    ray.shutdown()


def joblib_loky(folder: Path, size: Size, cores: int) -> Fits:
    import joblib  # type: ignore[import-untyped]

    jobs = (joblib.delayed(fit_own)(str(folder), asset_id, size, 1) for asset_id in assets(folder))
    parallel = joblib.Parallel(cores, return_as="generator", batch_size=10)
    for asset_id, fit in zip(assets(folder), parallel(jobs), strict=True):
        yield [(asset_id, fit)]


def assets(folder: Path) -> list[str]:
    return sorted(path.stem for path in (folder / "own").iterdir())


def excerpts(folder: Path, size: Size) -> list[Excerpt]:
    """The product's chunks."""
    from wheeltapper_trainer.history import History
    from wheeltapper_trainer.plan import groups_of

    history = History.open(folder / "history")
    return [history.excerpt(group.asset_ids) for group in groups_of(history.plan(), spec_of(size))]


def names_of(chunk: Excerpt) -> list[str]:
    return [asset.asset_id for asset in chunk.assets]


OURS, TASKS, START = "wheeltapper chunks", "Ray task per asset, nthread=1", "Ray's own start"
ONE_PROCESS = "Ray, one process with threads"
CONTENDERS: dict[str, Callable[[Path, Size, int], Fits]] = {
    OURS: wheeltapper_chunks,
    TASKS: functools.partial(ray_task_per_asset, threads=1),
    "joblib loky, nthread=1": joblib_loky,
    "Ray task per asset, default threads": functools.partial(ray_task_per_asset, threads=None),
    "Ray Data groupby().map_groups()": ray_data,
    ONE_PROCESS: ray_one_process,
    START: ray_start,
}


def main() -> None:
    name, folder, assets_count, rows, trees, cores = sys.argv[1:]
    begin = float(os.environ["BENCHMARK_BEGAN"])
    size = Size(int(assets_count), int(rows), int(trees))
    fits: dict[str, Fit] = {}
    first = 0.0
    for ended in CONTENDERS[name](Path(folder), size, int(cores)):
        first = first or time.time() - begin
        fits.update(ended)
    wall = time.time() - begin
    shas = json.dumps(sorted((asset_id, fit.sha) for asset_id, fit in fits.items()))
    found = {
        "models": len(fits),
        "forests": hashlib.sha256(shas.encode()).hexdigest(),
        "bins": sum(fit.bins for fit in fits.values()),
        "trees": sum(fit.trees for fit in fits.values()),
        "first": first,
        "wall": wall,
        "load": os.getloadavg()[0],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
