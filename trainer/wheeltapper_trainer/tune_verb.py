"""`wheeltapper tune` on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wheeltapper_command.errors import Exit
from wheeltapper_command.machine import available_cpus
from wheeltapper_command.progress import Progress, clock
from wheeltapper_command.table import table
from wheeltapper_command.verb import Outcome, Verb

from wheeltapper_trainer.train_verbs import absolute

_FIGURES_SHOWN = 12


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("fleet", metavar="FLEET.toml", type=Path, help="the fleet whose model parameters are searched")
    parser.add_argument("--history", required=True, metavar="DIR", help="a history folder, or its address (s3://…)")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="gets fleet.toml, trials.json, trials.html"
    )
    parser.add_argument("--trials", type=int, default=40, metavar="N", help="settings to try for each class (40)")
    parser.add_argument(
        "--minutes", type=float, default=0.0, metavar="M", help="begin no trial after M minutes (no limit)"
    )
    parser.add_argument("--seed", type=int, metavar="S", help="of the search (default: the fleet's)")
    parser.add_argument("--resume", action="store_true", help="go on with the trials that are in DIR")
    parser.add_argument("--ray-address", default="", metavar="A", help="a Ray cluster instead of this machine")
    parser.add_argument("--cpus", type=int, default=0, metavar="N", help="cores to search with (default: all)")
    parser.add_argument("--task-seconds", type=float, default=900.0, metavar="S", help="a task's longest time (900)")
    parser.add_argument("--attempts", type=int, default=2, metavar="N", help="tries of a task by itself (2)")


def _run(options: argparse.Namespace, progress: Progress) -> Outcome:
    from wheeltapper_trainer.cluster import Limits  # noqa: PLC0415  a verb imports what it needs when it runs
    from wheeltapper_trainer.tuning import TuneOrder, tune  # noqa: PLC0415

    order = TuneOrder(
        fleet=options.fleet,
        history=absolute(options.history),
        out=options.out,
        trials=options.trials,
        seed=options.seed,
        cpus=options.cpus or available_cpus(),
        address=options.ray_address,
        resume=options.resume,
        limits=Limits(options.task_seconds, options.attempts),
        minutes=options.minutes,
    )
    found = tune(order, progress)
    partial = found["quarantined"] or any(one["failed"] for one in found["classes"])
    return Outcome(found, _text(found), Exit.PARTIAL if partial else Exit.DONE)


def _text(found: Mapping[str, Any]) -> str:
    rows = [
        [
            one["name"],
            one["trials"],
            f"{one['objective']:.3f}",
            f"{one['gain']:+.3f} ± {one['gain_error']:.3f}",
            f"trial {one['chosen']}" if one["chosen"] else "as it was: no trial gains more than luck",
        ]
        for one in found["classes"]
    ]
    text = table(("class", "trials", "loss against now", "best gain, over folds", "chosen"), rows)
    figures = [
        [one["name"], figure["slot"], figure["metric"], f"{figure['before']:.4g}", f"{figure['now']:.4g}"]
        for one in found["classes"]
        for figure in one["figures"]
    ]
    text += "\n\n" + table(("class", "judged", "mean over folds", "before", "now"), figures[:_FIGURES_SHOWN])
    if len(figures) > _FIGURES_SHOWN:
        text += f"\n… and {len(figures) - _FIGURES_SHOWN:,} more; -o json names all"
    changes = [
        [one["name"], name, one["before"][name], value]
        for one in found["classes"]
        for name, value in one["parameters"].items()
        if value != one["before"][name]
    ]
    if changes:
        text += "\n\n" + table(("class", "parameter", "before", "now"), changes)
    skipped = [[one["name"], slot, why] for one in found["classes"] for slot, why in one["unjudged"].items()]
    if skipped:
        text += "\n\n" + table(("class", "not judged", "because"), skipped)
    text += f"\n\n{clock(found['tune_seconds'])}; the fleet to train is {found['fleet']}, every trial is in"
    return f"{text} {found['trials']}, a plot in {found['plot']}"


tune = Verb(
    name="tune",
    summary="Search each class's model parameters on folds of the training part, and write a fleet.toml to train.",
    example="wheeltapper tune fleet.toml --history history --out tuned",
    arguments=_arguments,
    run=_run,
)
