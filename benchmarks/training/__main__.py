"""Training a fleet, against the floor that XGBoost itself sets and against other ways to fan the same models out.

floor: CPU seconds inside `xgboost.train` of all models ÷ cores, of the same run. Every wall time runs from the start of
a process to its last model, imports and Ray's start included.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Row, main, require
from benchmarks.training.contenders import CONTENDERS
from benchmarks.training.work import Size, feature_count, fit_own, write_fleet

_OURS, _RAY = "wheeltapper chunks", "Ray task per asset, nthread=1"
_SHORT = (Size(60, 600, 30), Size(120, 300, 10), Size(16, 1_200, 20))
_LONG = (Size(240, 2_000, 100), Size(1_500, 300, 30), Size(60, 2_000, 100))


def measure(short: bool) -> Sequence[Row]:
    cores = len(os.sched_getaffinity(0))
    fleet, small, whole = _SHORT if short else _LONG
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="wheeltapper-bench-") as name:
        for case, size in (("fleet", fleet), ("small assets", small)):
            folder = Path(name, case)
            write_fleet(folder, size)
            fit_own(str(folder), "pump-00000", size, 1)  # compiles the kernels into Numba's cache, for everyone
            rows += fan_out(f"{case}: {_words(size)}", folder, size, cores)
        folder = Path(name, "whole")
        write_fleet(folder, whole)
        rows += whole_journey(f"wheeltapper train: {_words(whole)}", folder, whole, cores)
    return rows


def fan_out(case: str, folder: Path, size: Size, cores: int) -> list[Row]:
    """Everyone once, on files that are in the cache for all."""
    found = {name: run(name, folder, size, cores) for name in CONTENDERS}
    ours, ray = found[_OURS], found[_RAY]
    for name, other in found.items():
        require(other["models"] == size.assets, f"{name} trained every asset")
        require(other["trees"] == ours["trees"], f"{name} grew the same trees")
    rows = [
        Row(f"{case}, wall", ours["wall"], "s", "floor", ours["cpu"] / cores, ours["cpu"] / cores / ours["wall"]),
        Row(f"{case}, start to first models", ours["first"], "s", _RAY, ray["first"], ray["first"] / ours["first"]),
    ]
    for name, other in found.items():
        if name != _OURS:
            rows.append(Row(f"{case}, wall", ours["wall"], "s", name, other["wall"], other["wall"] / ours["wall"]))
    return rows


def whole_journey(case: str, folder: Path, size: Size, cores: int) -> list[Row]:
    """Reading, features, class heads, own heads, evaluation, packing, publishing and the report: all are overhead."""
    found = run("journey", folder, size, cores)
    floor = found["cpu"] / cores
    steady = found["wall"] - found["seconds"]["start"]
    rows = [
        Row(f"{case}, wall", found["wall"], "s", "floor", floor, floor / found["wall"]),
        Row(f"{case}, without Ray's start", steady, "s", "floor", floor, floor / steady),
        Row(f"{case}, CPU in xgboost.train per head", 1e3 * found["cpu"] / found["heads_trained"], "ms"),
    ]
    return rows + [Row(f"{case}, {phase}", seconds, "s") for phase, seconds in found["seconds"].items()]


def run(name: str, folder: Path, size: Size, cores: int) -> dict[str, Any]:
    words = [sys.executable, "-m", "benchmarks.training.contenders", name, folder, size.assets, size.rows, size.trees]
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, "RAY_USAGE_STATS_ENABLED": "0"}
    environment["BENCHMARK_BEGAN"] = str(time.time())
    line = [*map(str, words), str(cores)]
    done = subprocess.run(line, capture_output=True, text=True, env=environment, check=False, timeout=900)
    require(done.returncode == 0, f"{name} ends well; it said {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _words(size: Size) -> str:
    return f"{size.assets:,} assets × {size.rows:,} rows × {feature_count(size)} features, {size.trees} trees"


if __name__ == "__main__":
    main("training", __doc__ or "", measure)
