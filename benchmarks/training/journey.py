"""The whole of `wheeltapper train`, with the CPU seconds inside XGBoost kept by the workers.

`python -m benchmarks.training.journey FOLDER CORES` prints one JSON object: cpu, wall, seconds by phase,
heads_trained, and the most memory of its own that the driver held.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, Self


def journey(folder: Path, cores: int) -> dict[str, Any]:
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
    with _Memory() as memory:
        trained = train(order, Progress(quiet=True))
    if trained.quarantined:
        raise SystemExit(f"assets failed: {trained.quarantined}")
    cpu = sum(float(path.read_text()) for path in spent.iterdir())
    said = {key: trained.result[key] for key in ("seconds", "heads_trained", "pack")}
    return {"cpu": cpu, "driver_bytes": memory.most, **said}


class _Memory(threading.Thread):
    """Looks every fifth of a second how much memory this process holds of its own (`RssAnon`); `most`, bytes. Pages of
    mapped files, such as the pack that was written, are not counted: the system takes them back when it likes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self._done = 0, threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.2):
            lines = Path("/proc/self/status").read_text().splitlines()
            kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
            self.most = max(self.most, 1024 * kilobytes)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()


def _counted(folder: str, stage: str, *arguments: Any) -> Any:
    """Run a stage function of the trainer with a clock inside XGBoost: rows binned, trees grown."""
    from wheeltapper_trainer import boosting, chunk

    engine: Any = boosting.xgboost  # type: ignore[attr-defined]
    plain = {name: getattr(engine, name) for name in ("train", "QuantileDMatrix")}
    spent = [0.0]

    def clocked(function: Any) -> Any:
        def call(*words: Any, **options: Any) -> Any:
            begin = time.thread_time()
            try:
                return function(*words, **options)
            finally:
                spent[0] += time.thread_time() - begin

        return call

    for name, function in plain.items():
        setattr(engine, name, clocked(function))
    try:
        return getattr(chunk, stage)(*arguments)
    finally:
        for name, function in plain.items():
            setattr(engine, name, function)
        Path(folder, f"{stage}-{os.getpid()}-{time.monotonic_ns()}").write_text(str(spent[0]))


if __name__ == "__main__":
    begin = float(os.environ["BENCHMARK_BEGAN"])
    found = journey(Path(sys.argv[1]), int(sys.argv[2]))
    print(json.dumps({**found, "wall": time.time() - begin}))
