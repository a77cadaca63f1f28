"""What every benchmark shares: rows with their spread, alternating rounds, a table, and one JSON file.

A module here makes one claim. It checks that everyone computes the same before it times anyone, then runs everyone in
turn, round after round, because a shared machine drifts by tens of per cent within a minute.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from wheeltapper_command.table import table

RESULTS = Path(__file__).parent / "results"
_NAMED = ("numpy", "numba", "grpcio", "protobuf", "xgboost-cpu", "ray", "pyarrow")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure, and the same of a peer. ratio > 1: better than the peer; a peer named "… floor" is a limit."""

    case: str
    value: float  # median
    unit: str
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None
    spread: tuple[float, float] | None = None  # least and most of the value
    peer_spread: tuple[float, float] | None = None
    goal: float | None = None  # the least ratio that was aimed at


def compared(
    case: str,
    unit: str,
    samples: Sequence[float],
    peer: str | None = None,
    peer_samples: Sequence[float] = (),
    more_is_better: bool = False,
) -> Row:
    """A row of medians. The ratio is that of the medians."""
    value = statistics.median(samples)
    spread = (min(samples), max(samples))
    if peer is None or not peer_samples:
        return Row(case, value, unit, peer, spread=spread)
    other = statistics.median(peer_samples)
    ratio = value / other if more_is_better else other / value
    return Row(case, value, unit, peer, other, ratio, spread, (min(peer_samples), max(peer_samples)))


def alternate(works: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Call everyone `rounds` times in turn; what each call returned, by name. The order turns round every round."""
    found: dict[str, list[float]] = {name: [] for name in works}
    names = list(works)
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            gc.collect()
            found[name].append(works[name]())
    return found


def cpu_seconds(work: Callable[[], object], calls: int = 1) -> float:
    """CPU seconds of this process per call of `work`: other load on the machine counts less than in wall time."""
    begin = time.process_time()
    for _ in range(calls):
        work()
    return (time.process_time() - begin) / calls


def require(holds: bool, claim: str) -> None:
    """Stop where a claim does not hold: a wrong answer has no speed."""
    if not holds:
        raise SystemExit(f"not true: {claim}")


def main(name: str, about: str, measure: Callable[[bool], Sequence[Row]]) -> None:
    """`python -m benchmarks.<name> [--short] [-o json]`: measure, print, and write results/<name>.json."""
    parser = argparse.ArgumentParser(prog=f"benchmarks.{name}", description=about)
    parser.add_argument("--short", action="store_true", help="seconds instead of minutes; figures are rough")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    options = parser.parse_args()
    rows = measure(options.short)
    document = {
        "name": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "short": options.short,
        "machine": machine(),
        "versions": versions(),
        "rows": [asdict(row) for row in rows],
    }
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(document, indent=1)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    sys.stdout.write((text if options.output == "json" else shown(rows)) + "\n")


def shown(rows: Sequence[Row]) -> str:
    header = ("case", "value", "from–to", "unit", "peer", "peer's", "ratio")
    cells = [(r.case, r.value, _span(r.spread), r.unit, r.peer, r.peer_value, r.ratio) for r in rows]
    if all(row.goal is None for row in rows):
        return table(header, cells)
    return table((*header, "goal"), [(*cell, row.goal) for cell, row in zip(cells, rows, strict=True)])


def machine() -> dict[str, object]:
    """What the figures depend on and does not name the machine."""
    model = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    return {
        "cpu": model or platform.processor(),
        "cores": os.cpu_count(),
        "load": [round(load, 1) for load in os.getloadavg()],
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    found = {}
    for name in _NAMED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _span(spread: tuple[float, float] | None) -> str:
    return "" if spread is None or spread[0] == spread[1] else f"{spread[0]:.4g}–{spread[1]:.4g}"


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []
