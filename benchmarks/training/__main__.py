"""Training a fleet, against the floor that XGBoost itself sets and against other ways to fan the same models out.

floor: CPU seconds inside XGBoost (binning rows and growing trees) of all models ÷ cores, of the same run. Every wall
time runs from the start of a process to its last model, imports and Ray's start included. Everyone runs as installed
packages do, with compiled bytecode, which the first run leaves in build/.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import Row, main, require
from benchmarks.training.contenders import CONTENDERS, ONE_PROCESS, OURS, START, TASKS
from benchmarks.training.work import Size, feature_count, fit_own, write_fleet

_SECONDS_MAX = 900  # of one contender
_AFTER_RAY_S = 3.0  # from Ray's own start to our first model, at most
_BYTECODE = Path(__file__).parents[2] / "build" / "bytecode"
_JOBLIB = "joblib loky, nthread=1"


@dataclass(frozen=True, slots=True)
class Sizes:
    fleet: Size
    small: Size
    whole: Size
    heads: tuple[int, int]  # assets, rows
    growth: tuple[int, ...]  # assets
    of_fleet: Sequence[str]  # contenders
    of_small: Sequence[str]


_EVERYONE = [name for name in CONTENDERS if name not in (START, ONE_PROCESS)]
_SHORT = Sizes(
    Size(60, 600, 30), Size(300, 300, 10), Size(16, 1_200, 20), (12, 1_500), (250, 1_000), [OURS, TASKS, _JOBLIB],
    [OURS, TASKS],
)  # fmt: skip
_LONG = Sizes(
    Size(600, 2_000, 100), Size(5_000, 300, 30), Size(200, 2_000, 100), (40, 2_000), (500, 2_000, 8_000), _EVERYONE,
    [OURS, TASKS, _JOBLIB],
)  # fmt: skip


def measure(short: bool) -> Sequence[Row]:
    cores = len(os.sched_getaffinity(0))
    sizes = _SHORT if short else _LONG
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="wheeltapper-bench-") as name:
        rows += per_head(*sizes.heads)
        rows += growth(Path(name), sizes.growth)
        run("contenders", START, name, 0, 0, 0, cores)  # leaves the bytecode of Ray's own processes
        ray = run("contenders", START, name, 0, 0, 0, cores)["first"]
        for case, size, names in (
            ("fleet", sizes.fleet, sizes.of_fleet),
            ("small assets", sizes.small, sizes.of_small),
        ):
            folder = Path(name, case)
            write_fleet(folder, size)
            fit_own(str(folder), "pump-00000", size, 1)  # compiles the kernels into Numba's cache, for everyone
            rows += fan_out(f"{case}: {_words(size)}", folder, size, cores, names, ray)
        folder = Path(name, "whole")
        write_fleet(folder, sizes.whole, own=False)
        rows += whole_journey(f"wheeltapper train: {_words(sizes.whole)}", folder, cores)
    return rows


def fan_out(case: str, folder: Path, size: Size, cores: int, names: Sequence[str], ray: float) -> list[Row]:
    """Everyone once, on files that are in the cache for all; the same trees asserted. `ray`: seconds of its start."""
    found = {name: run("contenders", name, folder, size.assets, size.rows, size.trees, cores) for name in names}
    ours, small = found[OURS], case.startswith("small")
    for name, other in found.items():
        require(other["models"] == size.assets, f"{name} trained every asset")
        require(other["forests"] == ours["forests"], f"{name} grew the same trees")
    floor, trees, steady = (ours["bins"] + ours["trees"]) / cores, ours["trees"] / cores, ours["wall"] - ours["first"]
    first, goal = f"{case}, start to first model", ray + _AFTER_RAY_S
    rows = [
        Row(f"{case}, wall", ours["wall"], "s", "floor", floor, floor / ours["wall"], goal=0.85 if small else 0.95),
        Row(f"{case}, wall", ours["wall"], "s", "floor, without binning", trees, trees / ours["wall"]),
        Row(f"{case}, after the first model", steady, "s", "floor", floor, floor / steady),
        Row(first, ours["first"], "s", START, ray, ray / ours["first"]),
        Row(first, ours["first"], "s", f"{START} + {_AFTER_RAY_S:g} s", goal, goal / ours["first"], goal=1.0),
        Row(first, ours["first"], "s", TASKS, found[TASKS]["first"], found[TASKS]["first"] / ours["first"]),
    ]
    for name, other in found.items():
        if name != OURS:
            ahead = 3.0 if small and name == TASKS else 1.0
            rows.append(Row(f"{case}, wall", ours["wall"], "s", name, other["wall"], other["wall"] / ours["wall"],
                            goal=ahead))  # fmt: skip
    return rows


def whole_journey(case: str, folder: Path, cores: int) -> list[Row]:
    """Reading, features, class heads, own heads, evaluation, packing, publishing and the report: all are overhead."""
    found = run("journey", folder, cores)
    floor = found["cpu"] / cores
    steady = found["wall"] - found["seconds"]["start"]
    rows = [
        Row(f"{case}, wall", found["wall"], "s", "floor", floor, floor / found["wall"], goal=0.95),
        Row(f"{case}, without Ray's start", steady, "s", "floor", floor, floor / steady),
        Row(f"{case}, CPU in XGBoost per head", 1e3 * found["cpu"] / found["heads_trained"], "ms"),
    ]
    return rows + [Row(f"{case}, {phase}", seconds, "s") for phase, seconds in found["seconds"].items()]


def per_head(assets: int, rows: int) -> list[Row]:
    """CPU seconds of a head, everything that fitting it takes included, and its error on later rows beside them."""
    found = run("heads", assets, rows)
    ours, other = found["ours"], found["wrapper"]
    case = f"a head of {rows:,} rows"
    peer = "scikit-learn wrapper's defaults, 100 trees"
    pairs = list(zip(ours["errors"], other["errors"], strict=True))
    mine, theirs = (sum(errors) / len(errors) for errors in zip(*pairs, strict=True))
    of_each = [
        Row(f"{case}, the same from origin {number}", one, "", peer, two, two / one)
        for number, (one, two) in enumerate(pairs, 1)
    ]
    return [
        Row(f"{case}, CPU", 1e3 * ours["cpu"], "ms", peer, 1e3 * other["cpu"], other["cpu"] / ours["cpu"], goal=1.5),
        Row(f"{case}, squared error on later rows", mine, "", peer, theirs, theirs / mine, goal=1.0),
        *of_each,
    ]


def growth(folder: Path, counts: Sequence[int]) -> list[Row]:
    """The driver's own cost per asset at each size, against the size before it: flat is a ratio of 1."""
    found = [run("growth", folder / f"growth-{count}", count) for count in counts]
    rows: list[Row] = []
    for what, unit, scale in (
        ("plan", "µs", 1e6),
        ("tasks", "µs", 1e6),
        ("task_bytes", "bytes", 1),
        ("grown_bytes", "bytes", 1),
    ):
        for number, (count, one) in enumerate(zip(counts, found, strict=True)):
            each = "largest task" if what == "task_bytes" else f"{what.replace('_', ' ')} per asset"
            case = f"driver at {count:,} assets, {each}"
            aim = 0.95 if number and what != "task_bytes" else None
            before = found[number - 1][what] * scale if number else None
            peer = f"at {counts[number - 1]:,} assets" if number else None
            value = one[what] * scale
            rows.append(Row(case, value, unit, peer, before, before / value if before and value else None,
                            goal=aim))  # fmt: skip
    return rows


def run(module: str, *words: object, seconds_max: float = _SECONDS_MAX) -> dict[str, Any]:
    """One contender in a process and a session of its own; what it leaves running ends with it."""
    line = [sys.executable, "-m", f"benchmarks.training.{module}", *map(str, words)]
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, "RAY_USAGE_STATS_ENABLED": "0"}
    environment["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"  # under `uv run` Ray would upload this folder to its workers
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment["PYTHONPYCACHEPREFIX"] = str(_BYTECODE)
    sys.stderr.write(f"{module} {' '.join(map(str, words))}\n")
    environment["BENCHMARK_BEGAN"] = str(time.time())
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        # Files, not pipes: a process that Ray leaves behind would hold a pipe open, and its reader waits for ever.
        done = subprocess.Popen(line, stdout=out, stderr=err, env=environment, start_new_session=True)
        try:
            code = done.wait(timeout=seconds_max)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(done.pid, signal.SIGKILL)
        out.seek(0)
        err.seek(0)
        require(code == 0, f"{module} {words} ends well; it said {err.read()[-2000:]}")
        found: dict[str, Any] = json.loads(out.read().splitlines()[-1])
    return found


def _words(size: Size) -> str:
    return f"{size.assets:,} assets × {size.rows:,} rows × {feature_count(size)} features, {size.trees} trees"


if __name__ == "__main__":
    main("training", __doc__ or "", measure)
