"""The whole trip on one machine: a history → a fleet of models → a release → a scorer → a replay → what it was worth.

Scorer and gateway are other packages, so they run as what they are: commands of their own, in their own processes.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wheeltapper.config import load_fleet
from wheeltapper.errors import CommandError, NotFound
from wheeltapper.pack import open_pack
from wheeltapper.registry import Registry
from wheeltapper.spec import FleetSpec
from wheeltapper_command.progress import Progress

from wheeltapper_trainer.history import History
from wheeltapper_trainer.job import ClassSplit
from wheeltapper_trainer.offline import Order as ScoreOrder
from wheeltapper_trainer.offline import score_history
from wheeltapper_trainer.simulate import simulate
from wheeltapper_trainer.split import resolve_split
from wheeltapper_trainer.streamed import compare, streamed_warnings
from wheeltapper_trainer.training import Order as TrainOrder
from wheeltapper_trainer.training import train

_READY_S_MAX = 120.0  # a first start compiles the kernels
_STOP_S_MAX = 30.0
_WHO, _WHY = "demo", "wheeltapper demo"


@dataclass(frozen=True, slots=True)
class Trip:
    """Where the demo happens and on what: `data`, an imported history, or a simulation of `assets` over `days`."""

    folder: Path
    data: Path | None
    assets: int
    days: int
    seed: int
    cpus: int
    quiet: bool = False


def demonstrate(trip: Trip, progress: Progress) -> dict[str, Any]:
    """Make the whole trip; returns what `-o json` prints. Nothing it started is left running."""
    folder = trip.folder.absolute()
    history = trip.data.absolute() if trip.data else folder / "history"
    if trip.data is None:
        _fresh(history)
        simulate(history, trip.assets, trip.days, trip.seed, progress)
    order = TrainOrder(
        fleet=history / "fleet.toml",
        history=str(history),
        registry=folder / "registry",
        run_dir=folder / "run",
        report=folder / "report.html",
        cpus=trip.cpus,
        who=_WHO,
        why=_WHY,
    )
    trained = train(order, progress)
    registry = Registry(order.registry)
    for stage in ("qa", "production"):
        gates = "" if all(gate["passed"] for gate in trained.result["gates"]) else "a demonstration, not a plant"
        registry.promote(trained.release.number, stage, who=_WHO, why=_WHY, override=gates)
    spec = load_fleet(order.fleet)
    splits = resolve_split(History.open(history), spec)
    begin_us = _begin_us(splits)
    streamed = folder / "streamed.parquet"
    with _scorer(order.registry, folder) as address:
        replayed = _replay(history, address, streamed, begin_us, spec, trip.quiet)
    offline = folder / "offline.parquet"
    score = ScoreOrder(str(history), offline, begin_us, want_features=True, cpus=trip.cpus)
    pack = open_pack(trained.release.pack_path)
    score_history(score, pack, trained.release.number, progress)
    progress.say("comparing every streamed score and feature with offline")
    compared = compare(streamed, offline)
    worth = streamed_warnings(streamed, History.open(history), spec, splits)
    kept = ("assets", "heads_trained", "heads_kept", "assets_failed", "pack_bytes", "bytes_per_head", "train_seconds")
    return {
        **{name: trained.result[name] for name in kept},
        "release": trained.release.number,
        "readings_sent": replayed["readings_sent"],
        "readings_answered": replayed["readings_answered"],
        **compared,
        **worth,
        "stream_readings_per_second": replayed["readings_per_second"],
        "latency_p50_ms": replayed["latency_p50_ms"],
        "latency_p99_ms": replayed["latency_p99_ms"],
        "seconds": trained.result["seconds"],
        "report": str(order.report),
    }


@contextlib.contextmanager
def _scorer(registry: Path, folder: Path) -> Iterator[str]:
    """`wheeltapper serve` on a free port of this machine; the address, once it is ready. Stopped in the end."""
    ready = folder / "scorer.ready"
    ready.unlink(missing_ok=True)
    words = ["serve", "--registry", str(registry), "--listen", "127.0.0.1:0", "--ready-file", str(ready)]
    with (folder / "scorer.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(_command(words), stdout=subprocess.DEVNULL, stderr=log)
        try:
            deadline = time.monotonic() + _READY_S_MAX
            while not ready.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    log.flush()
                    said = (folder / "scorer.log").read_text(encoding="utf-8").strip().splitlines() or ["nothing"]
                    raise CommandError(
                        f"the scorer did not become ready within {_READY_S_MAX:.0f} s; it said last: {said[-1]}",
                        f"all it said is in {folder / 'scorer.log'}; is wheeltapper-scorer installed here?",
                    )
                time.sleep(0.05)
            yield ready.read_text(encoding="utf-8").strip()
        finally:
            _stop(process)


def _replay(history: Path, address: str, out: Path, begin_us: int, spec: FleetSpec, quiet: bool) -> dict[str, Any]:
    """`wheeltapper replay` of everything from `begin_us` on, windows filled before it; progress goes to our stderr."""
    words = ["replay", str(history), "--to", address, "--out", str(out), "--features", "-o", "json"]
    words += ["--quiet"] if quiet else []
    words += ["--from", str(begin_us), "--warm-up", f"{_warm_up_s(history, begin_us, spec)}s"]
    done = subprocess.run(_command(words), stdout=subprocess.PIPE, text=True, check=False)
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise CommandError(
            f"the replay ended with exit code {done.returncode} and no result: {done.stdout!r}"
        ) from None
    if "error" in found:
        raise CommandError(f"the replay failed: {found['error']}", found.get("hint", ""))
    return found


def _warm_up_s(history: Path, begin_us: int, spec: FleetSpec) -> int:
    """Seconds before the streamed part that fill every window: the longest one and its lateness on a time grid, all
    there is where a window counts readings."""
    if any(not entry.cadence_us for entry in spec.classes):
        first, _ = History.open(history).span()
        return max(0, -(-(begin_us - first) // 1_000_000))
    return max(-(-entry.cadence_us * (entry.windows[-1] + entry.lateness + 1) // 1_000_000) for entry in spec.classes)


def _begin_us(splits: Sequence[ClassSplit]) -> int:
    """Where the test part begins; the beginning of all time where whole assets are held out."""
    return min(split.test_from_us for split in splits) if all(split.by == "time" for split in splits) else 0


def _command(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "wheeltapper_command", *words]


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, insist after a while, and see it gone."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_S_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _fresh(history: Path) -> None:
    """Remove the history of an earlier demo, and nothing that is not one."""
    if history.exists():
        if not (history / "fleet.toml").exists():
            raise NotFound(f"{history} is not a history of an earlier demo", "give --dir another folder")
        shutil.rmtree(history)
