"""`wheeltapper simulate` and `wheeltapper import`: where histories come from."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wheeltapper_command.errors import UsageError
from wheeltapper_command.progress import Progress
from wheeltapper_command.verb import Outcome, Verb

_KINDS = ("azure-pdm", "cmapss", "csv", "nab", "skab", "smd")


def _simulate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write; must not exist, or be empty")
    parser.add_argument("--assets", type=int, default=300, metavar="N", help="machines, a third compressors (300)")
    parser.add_argument("--days", type=int, default=120, metavar="D", help="length of the history (120)")
    parser.add_argument("--seed", type=int, default=7, metavar="S", help="the same seed makes the same machines (7)")


def _simulate(options: argparse.Namespace, progress: Progress) -> Outcome:
    for name, least, most in (("assets", 1, 1_000_000), ("days", 7, 3_650), ("seed", 0, 2**63 - 1)):
        value = getattr(options, name)
        if not least <= value <= most:
            raise UsageError(f"--{name} must be from {least:,} to {most:,}, found {value:,}")
    from wheeltapper_trainer.simulate import simulate as write  # noqa: PLC0415  # a verb is listed without its weight

    written = write(options.out, options.assets, options.days, options.seed, progress)
    return Outcome({"history": str(options.out), **written}, _summary(options.out, written))


def _import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", metavar="KIND", choices=_KINDS, help=", ".join(_KINDS))
    parser.add_argument("source", metavar="SRC", type=Path, help="the data's folder; for nab and csv also one file")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write; must not exist, or be empty")
    parser.add_argument("--subset", default="", metavar="FD001", help="cmapss: which of the sets in SRC")


def _import(options: argparse.Namespace, progress: Progress) -> Outcome:
    from wheeltapper_trainer.importers import import_history  # noqa: PLC0415  # a verb is listed without its weight

    written = import_history(options.kind, options.source, options.out, options.subset)
    progress.say(f"import {options.kind}: {written['readings']:,} readings read")
    return Outcome({"history": str(options.out), "kind": options.kind, **written}, _summary(options.out, written))


def _summary(out: Path, written: Mapping[str, Any]) -> str:
    span = f"{written['first']} to {written['last']}" if written["readings"] else "no readings"
    lines = [f"{out}: {written['assets']:,} assets, {written['readings']:,} readings, {written['events']:,} events"]
    lines.append(f"  {span}" + (f", {written['failures']:,} failures" if "failures" in written else ""))
    lines.append(f"  next: wheeltapper train {out / 'fleet.toml'} --history {out} --registry REGISTRY")
    return "\n".join(lines)


simulate = Verb(
    name="simulate",
    summary="Write the history of a fleet that never was: load, wear, failures, maintenance, faulty sensors.",
    example="wheeltapper simulate build/history --assets 300 --days 120 --seed 7",
    arguments=_simulate_arguments,
    run=_simulate,
)

import_ = Verb(
    name="import",
    summary="Write a history from public data or plain CSV files.",
    example="wheeltapper import cmapss CMAPSS build/fd001 --subset FD001 · wheeltapper import azure-pdm PDM build/azure"
    " · wheeltapper import skab SKAB build/skab · wheeltapper import nab NAB build/nab"
    " · wheeltapper import smd SMD build/smd · wheeltapper import csv readings.csv build/own",
    arguments=_import_arguments,
    run=_import,
)
