"""`wheeltapper train`, `evaluate` and `score` on the command line."""

from __future__ import annotations

import argparse
import getpass
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wheeltapper_command.errors import Exit, UsageError
from wheeltapper_command.machine import available_cpus
from wheeltapper_command.progress import Progress, clock
from wheeltapper_command.table import table
from wheeltapper_command.verb import Outcome, Verb

if TYPE_CHECKING:
    from wheeltapper_trainer.mlflow_log import Tracker
    from wheeltapper_trainer.training import Planned

_REASONS_SHOWN = 20


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("fleet", metavar="FLEET.toml", type=Path, help="what the fleet is and what to predict")
    parser.add_argument("--history", required=True, metavar="DIR", help="a history folder, or its address (s3://…)")
    parser.add_argument("--registry", required=True, type=Path, metavar="DIR", help="where the release is published")
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="work in progress (default: REGISTRY.run)")
    parser.add_argument("--resume", action="store_true", help="keep what is finished in the run folder, by its digest")
    parser.add_argument("--keep-runs", type=int, default=3, metavar="N", help="runs whose results the folder keeps (3)")
    parser.add_argument("--ray-address", default="", metavar="A", help="a Ray cluster instead of this machine")
    parser.add_argument("--cpus", type=int, default=0, metavar="N", help="cores to train with (default: all)")
    parser.add_argument("--task-seconds", type=float, default=900.0, metavar="S", help="a task's longest time (900)")
    parser.add_argument("--attempts", type=int, default=2, metavar="N", help="tries of an asset by itself (2)")
    parser.add_argument("--report", type=Path, metavar="FILE", help="the HTML report (default: RUN-DIR/report.html)")
    parser.add_argument("--who", default="", metavar="NAME", help="who publishes (default: the login name)")
    parser.add_argument("--why", default="trained", metavar="TEXT", help="the reason, for the audit log")
    parser.add_argument("--key", type=Path, metavar="FILE", help="the private key to sign the release with")
    parser.add_argument("--tuning", type=Path, metavar="FILE", help="trials to record (default: beside FLEET.toml)")
    parser.add_argument("--mlflow", default="", metavar="URI", help="log the run to this MLflow server as well")
    parser.add_argument("--mlflow-experiment", default="", metavar="NAME", help="its experiment (default: wheeltapper)")
    parser.add_argument("--dry-run", action="store_true", help="check everything and show the plan; train nothing")


def _train(options: argparse.Namespace, progress: Progress) -> Outcome:
    from wheeltapper_trainer.cluster import Limits  # noqa: PLC0415  a verb imports what it needs when it runs
    from wheeltapper_trainer.training import Order, plan, train  # noqa: PLC0415

    if options.keep_runs < 1:
        raise UsageError(f"--keep-runs: expected at least 1, found {options.keep_runs}")
    tracker = _tracker(options.mlflow, options.mlflow_experiment)
    run_dir = options.run_dir or options.registry.with_name(f"{options.registry.name}.run")
    order = Order(
        fleet=options.fleet,
        history=absolute(options.history),
        registry=options.registry,
        run_dir=run_dir.absolute(),
        report=options.report or run_dir / "report.html",
        cpus=options.cpus or available_cpus(),
        who=options.who or _login(),
        why=options.why,
        address=options.ray_address,
        key=options.key,
        resume=options.resume,
        keep_runs=options.keep_runs,
        tuning=options.tuning,
        limits=Limits(options.task_seconds, options.attempts),
    )
    if options.dry_run:
        return _dry_run(plan(order), order.cpus)
    trained = train(order, progress)
    exit_code = Exit.PARTIAL if trained.quarantined else Exit.DONE
    result = dict(trained.result)
    if tracker:
        from wheeltapper_trainer.mlflow_log import log_finished  # noqa: PLC0415

        result["mlflow"] = log_finished(tracker, order, trained, progress)
    return Outcome(result, _train_text(result), exit_code)


def _tracker(uri: str, experiment: str) -> Tracker | None:
    """The MLflow server to log to, asked before any work starts; None: no one asked for one."""
    if not uri and not experiment:
        return None
    if not uri:
        raise UsageError("--mlflow-experiment: expected --mlflow URI beside it, found none")
    from wheeltapper_trainer.mlflow_log import EXPERIMENT, Tracker  # noqa: PLC0415

    return Tracker(uri, experiment or EXPERIMENT)


def _dry_run(planned: Planned, cpus: int) -> Outcome:
    from wheeltapper_trainer.forecast import forecast  # noqa: PLC0415
    from wheeltapper_trainer.training import lost  # noqa: PLC0415

    rows = [
        [name, count, sum(g.rows for g in planned.groups if g.asset_class == name), _groups(planned, name)]
        for name, count in planned.job.assets
    ]
    expected = forecast(planned.job, planned.groups, cpus)
    broken = dict(sorted(lost(planned).items()))
    result = {
        "classes": [dict(zip(("name", "assets", "readings", "chunks"), row, strict=True)) for row in rows],
        "forecast": asdict(expected),
        "lost": broken,
    }
    phases = ", ".join(f"{phase} {clock(seconds)}" for phase, seconds in expected.core_seconds.items())
    text = table(("class", "assets", "readings", "chunks"), rows)
    text += f"\n\nabout {clock(expected.wall_seconds)} on {cpus} cores once Ray has started (core time: {phases})"
    text += f"\nabout {expected.worker_bytes / 2**20:,.0f} MiB for each worker, one per core; right to a factor of two"
    return Outcome(result, text + _set_aside("asset that would be set aside", broken))


def _set_aside(title: str, reasons: Mapping[str, str]) -> str:
    """The first of the assets left out, each with its reason, to stand below a result; empty where there is none."""
    if not reasons:
        return ""
    text = "\n\n" + table((title, "reason"), list(reasons.items())[:_REASONS_SHOWN])
    more = len(reasons) - _REASONS_SHOWN
    return text + (f"\n… and {more:,} more; -o json names all" if more > 0 else "")


def _train_text(found: Mapping[str, Any]) -> str:
    totals, seconds = found["metrics"], found["seconds"]
    kept = f"{found['heads_kept']:,} heads kept of {found['heads_trained']:,} trained"
    rows = [
        ("release", f"{found['release']} (candidate), pack {found['pack'][:12]}"),
        ("assets", f"{found['assets']:,}, {found['assets_failed']:,} of them failed and are answered by their class"),
        ("models", f"{kept}: {found['class_heads']:,} of classes, {found['asset_heads_kept']:,} of single assets"),
        ("pack", f"{found['pack_bytes'] / 1e6:,.2f} MB, {found['bytes_per_head']:,.0f} bytes a head"),
        ("test failures", f"{totals['failures_warned']:,} of {totals['failures']:,} warned of{_lead(totals)}"),
        ("false alarms", _per_week(totals)),
        ("time", f"{clock(found['train_seconds'])}: " + ", ".join(f"{k} {clock(v)}" for k, v in seconds.items())),
        ("report", str(found["report"])),
    ]
    if "mlflow" in found:
        logged = found["mlflow"]
        rows.append(("mlflow", f"run {logged['run']}" if "run" in logged else f"not logged: {logged['error']}"))
    text = "\n".join(f"{name:<14} {value}" for name, value in rows)
    failed = [gate for gate in found["gates"] if not gate["passed"]]
    if failed:
        text += "\n\n" + table(
            ("gate failed", "metric", "found", "at most", "at least"),
            [[g["output"], g["metric"], g["found"], g["at_most"], g["at_least"]] for g in failed],
        )
    return text + _set_aside("asset set aside", found["quarantined"])


def _lead(totals: Mapping[str, Any]) -> str:
    hours = totals["lead_median_hours"]
    return "" if hours is None else f", half of them at least {hours:,.0f} h ahead"


def _per_week(totals: Mapping[str, Any]) -> str:
    rate, most = totals["false_alarms_per_asset_week"], totals["false_alarms_per_asset_week_high"]
    return "nothing to test on" if rate is None else f"{rate:.3f} per asset and week, surely below {most:.3f} (95 %)"


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("release", metavar="RELEASE", help="a number, or the stage that holds it")
    parser.add_argument("--history", required=True, metavar="DIR", help="a history folder, or its address (s3://…)")
    parser.add_argument("--registry", required=True, type=Path, metavar="DIR", help="the registry folder")
    parser.add_argument("--cpus", type=int, default=0, metavar="N", help="cores to score with (default: all)")


def _evaluate(options: argparse.Namespace, progress: Progress) -> Outcome:
    from wheeltapper.features import KERNELS  # noqa: PLC0415
    from wheeltapper.pack import open_pack  # noqa: PLC0415
    from wheeltapper.registry import Registry  # noqa: PLC0415

    from wheeltapper_trainer.reexamine import evaluate_pack  # noqa: PLC0415

    registry, word = Registry(options.registry), options.release
    release = registry.release(int(word)) if word.isdecimal() else registry.resolve(word)
    pack = open_pack(release.pack_path, kernels=KERNELS)
    cpus = options.cpus or available_cpus()
    document = evaluate_pack(pack, release.number, absolute(options.history), cpus, progress)
    rows = [
        [f"{one['name']}/{output['name']}", level, name, figure["value"], figure["low"], figure["high"]]
        for one in document["classes"]
        for output in one["outputs"]
        for level, figures in output["levels"].items()
        for name, figure in figures.items()
        if figure["value"] is not None
    ]
    text = table(("output", "level", "figure", "value", "from", "to (90 %)"), rows)
    text += "\n\nlevels: answering, what this release says; class, the same rows without own heads, which is also what"
    text += "\nan asset it does not know gets from its first reading (cold start); own, own heads wherever there is one"
    return Outcome({"release": release.number, "pack": release.sha256, **document}, text)


def _score_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("history", metavar="HISTORY", help="a history folder, or its address (s3://…)")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--registry", type=Path, metavar="DIR", help="score with what a stage of this registry holds")
    source.add_argument("--pack", type=Path, metavar="FILE", help="score with this pack instead (release 0)")
    parser.add_argument("--stage", default="production", help="the stage (default: production)")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="answers, as Parquet")
    parser.add_argument("--features", action="store_true", help="write the features beside the scores")
    parser.add_argument("--reasons", type=int, default=0, metavar="K", help="write K reasons of every alarm raised")
    parser.add_argument("--reasons-always", action="store_true", help="write them for every reading")
    parser.add_argument("--from", dest="begin", metavar="TIME", help="write readings from this time on")
    parser.add_argument("--cpus", type=int, default=0, metavar="N", help="cores to score with (default: all)")
    parser.add_argument("--ray-address", default="", metavar="A", help="a Ray cluster instead of this machine")
    parser.add_argument("--task-seconds", type=float, default=900.0, metavar="S", help="a task's longest time (900)")
    parser.add_argument("--attempts", type=int, default=2, metavar="N", help="tries of an asset by itself (2)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where kernels run (default: cpu)")


def _score(options: argparse.Namespace, progress: Progress) -> Outcome:
    from wheeltapper.features import KERNELS  # noqa: PLC0415
    from wheeltapper.pack import open_pack  # noqa: PLC0415
    from wheeltapper.reasons import TOP_MAX  # noqa: PLC0415
    from wheeltapper.registry import Registry  # noqa: PLC0415

    from wheeltapper_trainer.cluster import Limits  # noqa: PLC0415
    from wheeltapper_trainer.offline import Order, score_history  # noqa: PLC0415

    if options.out.suffix != ".parquet":
        raise UsageError(f"--out: expected a name ending in .parquet, found {options.out.name!r}")
    if not 0 <= options.reasons <= TOP_MAX:
        raise UsageError(f"--reasons: expected 0 to {TOP_MAX}, found {options.reasons}")
    number, path = 0, options.pack
    if options.registry:
        release = Registry(options.registry).resolve(options.stage)
        number, path = release.number, release.pack_path
    begin = time_us(options.begin) if options.begin else None
    order = Order(
        absolute(options.history),
        options.out,
        begin,
        options.features,
        options.cpus or available_cpus(),
        options.reasons,
        options.reasons_always,
        path,
        options.ray_address,
        Limits(options.task_seconds, options.attempts),
        device=options.device,
    )
    found = score_history(order, open_pack(path, kernels=KERNELS), number, progress)
    rows = [
        ("readings answered", found["readings_answered"]),
        ("readings a second", round(found["readings_per_second"])),
    ]
    rows += [(f"answered {name}", count) for name, count in found["statuses"].items()]
    text = f"{table(('score', 'figure'), rows)}\n\nanswers in {options.out}"
    failed = found["failed"]
    return Outcome(found, text + _set_aside("asset left out", failed), Exit.PARTIAL if failed else Exit.DONE)


def time_us(text: str) -> int:
    """An ISO 8601 time (UTC where it has no zone), or whole µs since 1970 UTC, as µs. Raises UsageError."""
    if text.lstrip("-").isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"expected a time such as 2026-01-31T08:00:00Z, found {text!r}") from error
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def absolute(history: str) -> str:
    """A history's address as every worker finds it, wherever it runs."""
    return history if "://" in history else str(Path(history).absolute())


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        raise UsageError("expected to find a login name, found none", "say who publishes with --who NAME") from None


def _groups(planned: Planned, name: str) -> int:
    return sum(group.asset_class == name for group in planned.groups)


train = Verb(
    name="train",
    summary="Train a fleet: a model per machine on Ray, one pack, published as a candidate, with a report.",
    example="wheeltapper train fleet.toml --history history --registry registry",
    arguments=_train_arguments,
    run=_train,
)

evaluate = Verb(
    name="evaluate",
    summary="What a release says about the test part of a history: figures with 90 % intervals, per level.",
    example="wheeltapper evaluate production --history history --registry registry",
    arguments=_evaluate_arguments,
    run=_evaluate,
)

score = Verb(
    name="score",
    summary="Score a history offline, with the kernels that serve, and write the final answer to every reading.",
    example="wheeltapper score history --registry registry --stage production --out answers.parquet",
    arguments=_score_arguments,
    run=_score,
)
