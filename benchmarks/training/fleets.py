"""What one more machine costs a whole run: 1,000, 4,000 and 16,000 machines trained to a release, with a head each.

`python -m benchmarks.training.fleets` takes about ten minutes of two quiet cores; results/training-growth.json.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from wheeltapper.config import fleet_toml
from wheeltapper.spec import FleetSpec, Target

from benchmarks.harness import Row, main, require
from benchmarks.training.__main__ import run
from benchmarks.training.work import Size, feature_count, spec_of, write_fleet

_ROWS, _TREES = 600, 10
_SHORT, _LONG = (50, 200), (1_000, 4_000, 16_000)
_PACK_SHARE_MAX = 0.02
_SECONDS_MAX = 2_400


def one_head(size: Size) -> FleetSpec:
    """Machines with one slot each, and windows short enough that 600 hours hold a validation part."""
    fleet = spec_of(size)
    anomaly = Target("anomaly", "anomaly", sensors=("vibration",))
    pump = dataclasses.replace(fleet.classes[0], windows=(6, 12), targets=(anomaly,))
    return dataclasses.replace(fleet, classes=(pump,))


def measure(short: bool) -> Sequence[Row]:
    cores = len(os.sched_getaffinity(0))
    rows: list[Row] = []
    before: dict[str, float] = {}
    counts = _SHORT if short else _LONG
    for at, count in enumerate(counts):
        size = Size(count, _ROWS, _TREES)
        folder = Path(tempfile.mkdtemp(prefix="wheeltapper-bench-"))
        try:
            write_fleet(folder, size, own=False)
            (folder / "fleet.toml").write_text(fleet_toml(one_head(size)))
            found = run("journey", folder, cores, seconds_max=_SECONDS_MAX)
        finally:
            shutil.rmtree(folder)
        require(found["heads_trained"] > count, "every machine got a head of its own to be judged")
        steady = found["wall"] - found["seconds"]["start"]
        now = {"ms": 1e3 * steady * cores / count, "MB": found["driver_bytes"] / 1e6}
        case = f"{count:,} machines × {_ROWS} rows × {feature_count(size)} features, a head of {_TREES} trees each"
        peer = f"at {counts[at - 1]:,} machines" if at else None
        for unit, what in (("ms", "core time per machine, all in"), ("MB", "peak memory of the driver")):
            then = before.get(unit)
            rows.append(Row(f"{case}: {what}", now[unit], unit, peer, then, then and then / now[unit],
                            goal=0.95 if at else None))  # fmt: skip
        share = found["seconds"]["pack"] / found["wall"]
        rows.append(Row(f"{case}: thresholds, pack, evaluation", 100 * share, "%", "2 % of the wall time",
                        100 * _PACK_SHARE_MAX, _PACK_SHARE_MAX / share, goal=1.0))  # fmt: skip
        rows += [Row(f"{case}: wall", found["wall"], "s"), Row(f"{case}: load of the machine", os.getloadavg()[0], "")]
        before = now
    return rows


if __name__ == "__main__":
    main("training-growth", __doc__ or "", measure)
