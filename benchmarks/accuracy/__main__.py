"""`python -m benchmarks.accuracy --dataset cmapss --root DIR [--subset FD001] [-o json]`."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.harness import RESULTS, machine, shown, versions

DATASETS = {
    "cmapss": "cmapss",
    "azure-pdm": "azure",
    "skab": "skab",
    "nab": "nab",
    "smd": "smd",
    "backblaze": "backblaze",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks.accuracy", description="accuracy on public data, through the pack"
    )
    parser.add_argument("--dataset", choices=DATASETS, required=True)
    parser.add_argument("--root", type=Path, required=True, help="the folder of the data set's files")
    parser.add_argument("--subset", default="", help="cmapss: FD001 …; skab: valve1 …; smd: one machine")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw the pictures of docs/modelling.md into DIR")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    options = parser.parse_args()
    measure = importlib.import_module(f"benchmarks.accuracy.{DATASETS[options.dataset]}").measure
    with tempfile.TemporaryDirectory() as work:
        rows = measure(options.root, options.subset, Path(work), options.plots)
    name = "-".join(word for word in ("accuracy", options.dataset, options.subset) if word)
    document = {
        "name": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "rows": [asdict(row) for row in rows],
    }
    text = json.dumps(document, indent=1)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    sys.stdout.write((text if options.output == "json" else shown(rows)) + "\n")


main()
