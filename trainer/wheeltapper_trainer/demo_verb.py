"""`wheeltapper demo` on the command line: the whole trip, told in one table."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wheeltapper_command.errors import Exit, UsageError
from wheeltapper_command.machine import available_cpus
from wheeltapper_command.progress import Progress, clock
from wheeltapper_command.verb import Outcome, Verb


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--assets", type=int, default=300, metavar="N", help="machines to simulate (300)")
    parser.add_argument("--days", type=int, default=120, metavar="D", help="length of the simulated history (120)")
    parser.add_argument("--seed", type=int, default=7, metavar="S", help="of the simulation (7)")
    parser.add_argument("--data", type=Path, metavar="HISTORY", help="an imported history, with fleet.toml, instead")
    parser.add_argument("--dir", type=Path, default=Path("build/demo"), metavar="DIR", help="where (build/demo)")
    parser.add_argument("--cpus", type=int, default=0, metavar="N", help="cores to train with (default: all)")


def _run(options: argparse.Namespace, progress: Progress) -> Outcome:
    from wheeltapper_trainer.demo import Trip, demonstrate  # noqa: PLC0415  a verb imports what it needs when it runs

    if options.assets < 4 or options.days < 60:
        raise UsageError(f"a demo needs 4 assets and 60 days, found {options.assets} and {options.days}")
    trip = Trip(
        folder=options.dir,
        data=options.data,
        assets=options.assets,
        days=options.days,
        seed=options.seed,
        cpus=options.cpus or available_cpus(),
        quiet=options.quiet,
    )
    result = demonstrate(trip, progress)
    whole = result["stream_equals_offline"] and result["readings_answered"] == result["readings_sent"]
    partial = Exit.PARTIAL if result["assets_failed"] else Exit.DONE
    return Outcome(result, _text(result), partial if whole else Exit.FAILED)


def _text(found: Mapping[str, Any]) -> str:
    lead, rate = found["lead_time_median_hours"], found["false_alarms_per_asset_week"]
    same = "the same bits as offline" if found["stream_equals_offline"] else "NOT the same as offline"
    ahead = "" if lead is None else f", half of them {lead:,.0f} hours or more ahead"
    rows = [
        (
            "machines",
            f"{found['assets']:,}" + (f", {found['assets_failed']:,} failed" if found["assets_failed"] else ""),
        ),
        (
            "failures",
            f"{found['failures']:,} in the streamed weeks, {found['failures_warned']:,} of them warned of{ahead}"
            if found["failures"]
            else "none in what was streamed and held out",
        ),
        ("false alarms", "–" if rate is None else f"{rate:.2f} per machine and week"),
        (
            "models",
            f"{found['heads_kept']:,} kept of {found['heads_trained']:,} trained in {clock(found['train_seconds'])}",
        ),
        ("pack", f"{found['pack_bytes'] / 1e6:,.2f} MB, {found['bytes_per_head']:,.0f} bytes a model"),
        ("streamed", f"{found['readings_answered']:,} of {found['readings_sent']:,} readings answered, {same}"),
        ("speed", f"{found['stream_readings_per_second']:,.0f} readings a second over gRPC"),
        ("latency", f"{found['latency_p50_ms']:.1f} ms median, {found['latency_p99_ms']:.1f} ms for 99 of 100 blocks"),
        ("report", str(found["report"])),
    ]
    return "\n".join(f"  {name:<13} {value}" for name, value in rows)


demo = Verb(
    name="demo",
    summary="The whole trip on this machine: simulate, train, promote, serve, replay, compare, report.",
    example="wheeltapper demo --assets 300",
    arguments=_arguments,
    run=_run,
)
