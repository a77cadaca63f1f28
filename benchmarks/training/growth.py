"""What one more machine costs the driver: its plan, and what it sends to workers.

`python -m benchmarks.training.growth FOLDER ASSETS` prints one JSON object: CPU seconds and peak memory of a process
that plans a run of so many machines and packs the tasks of a stage with Ray's own serializer.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from ray import cloudpickle  # what Ray itself sends tasks with
from wheeltapper.config import fleet_toml
from wheeltapper.spec import SplitSpec
from wheeltapper_trainer.training import Order, plan

from benchmarks.training.work import Size, spec_of, write_fleet

ROWS = 60  # what is measured does not read them


def measure(folder: Path, assets: int) -> dict[str, Any]:
    order = Order(
        fleet=folder / "fleet.toml",
        history=str(folder / "history"),
        registry=folder / "registry",
        run_dir=folder / "run",
        report=folder / "report.html",
        cpus=1,
        who="a benchmark",
        why="to measure",
    )
    plan(dataclasses.replace(order, fleet=folder / "warm" / "fleet.toml", history=str(folder / "warm" / "history")))
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.process_time()
    planned = plan(order)
    planning = time.process_time() - begin
    begin, largest = time.process_time(), 0
    for group in planned.groups:
        task = planned.job, planned.history.excerpt(group.asset_ids)
        largest = max(largest, len(cloudpickle.dumps(task)))  # type: ignore[no-untyped-call]
    tasks = time.process_time() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "plan": planning / assets,
        "tasks": tasks / assets,
        "task_bytes": largest,
        "grown_bytes": (peak - base) * 1024 / assets,
        "groups": len(planned.groups),
    }


if __name__ == "__main__":
    where, assets = Path(sys.argv[1]), int(sys.argv[2])
    for folder, count in ((where, assets), (where / "warm", 20)):  # the small one takes the imports upon itself
        size = Size(count, ROWS, 10)
        write_fleet(folder, size, own=False)
        by_asset = dataclasses.replace(spec_of(size), split=SplitSpec(by="asset"))  # these lives are too short to cut
        (folder / "fleet.toml").write_text(fleet_toml(by_asset))
    print(json.dumps(measure(where, assets)))
