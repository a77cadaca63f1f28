"""The gateway's word on the command line: `wheeltapper replay`."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from wheeltapper_command.errors import Exit, UsageError
from wheeltapper_command.progress import Progress
from wheeltapper_command.verb import Outcome, Verb

_SECONDS = {"ms": 0.001, "s": 1.0, "": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "history", metavar="HISTORY", help="a folder with readings/, events and assets (Parquet or CSV)"
    )
    parser.add_argument("--to", required=True, metavar="HOST:PORT", help="the scorer")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="answers: .parquet, .csv or .jsonl")
    parser.add_argument("--speed", type=float, default=0.0, metavar="X", help="multiples of real time; 0: full speed")
    parser.add_argument("--from", dest="begin", metavar="TIME", help="report readings from this time on")
    parser.add_argument("--warm-up", default="0s", metavar="SPAN", help="also send so much before --from, unreported")
    parser.add_argument("--features", action="store_true", help="ask for the features and write them")
    parser.add_argument("--reasons", type=int, default=0, metavar="K", help="write K reasons of every alarm raised")
    parser.add_argument("--reasons-always", action="store_true", help="write them for every reading")
    parser.add_argument("--batch", type=int, default=256, metavar="ROWS", help="rows a block has at most")
    parser.add_argument("--in-flight", type=int, default=8, metavar="BLOCKS", help="blocks sent and not yet answered")
    parser.add_argument("--gateway", default="replay", metavar="NAME", help="the name to speak under")
    parser.add_argument("--tls-ca", type=Path, metavar="PEM", help="speak TLS; the authority that certified the scorer")
    parser.add_argument("--tls-cert", type=Path, metavar="PEM", help="this gateway's certificate, where asked for")
    parser.add_argument("--tls-key", type=Path, metavar="PEM", help="its private key")
    parser.add_argument("--shuffle", default="0s", metavar="SPAN", help="lateness: 90s, 2h, or 5rows of an asset")
    parser.add_argument("--duplicate", type=float, default=0.0, metavar="SHARE", help="share of rows sent twice")
    parser.add_argument("--seed", type=int, default=0, help="of --shuffle and --duplicate")
    parser.add_argument("--patience", default="30s", metavar="SPAN", help="give up after so long without a scorer")
    spool = parser.add_mutually_exclusive_group()
    spool.add_argument("--spool", metavar="FILE", help="write ahead to FILE.<class>, as a site's gateway does")
    spool.add_argument("--no-spool", action="store_true", help="keep unsent readings in memory (the default)")


def _run(options: argparse.Namespace, progress: Progress) -> Outcome:
    from wheeltapper_command.table import table  # noqa: PLC0415 - listing the verbs stays instant

    from wheeltapper_gateway import final, replay  # noqa: PLC0415
    from wheeltapper_gateway.channel import Tls  # noqa: PLC0415
    from wheeltapper_gateway.disorder import Disorder  # noqa: PLC0415
    from wheeltapper_gateway.rows import parse_time  # noqa: PLC0415
    from wheeltapper_gateway.spool import MEMORY  # noqa: PLC0415

    if options.speed < 0 or not 0 <= options.duplicate <= 1:
        raise UsageError("expected --speed of 0 or more and --duplicate between 0 and 1")
    final.check_format(options.out)
    if (options.tls_cert or options.tls_key) and not options.tls_ca:
        raise UsageError("--tls-cert, --tls-key: expected --tls-ca with them", "plaintext shows no certificates")
    late_seconds, late_rows = lateness(options.shuffle)
    plan = replay.Plan(
        target=options.to,
        gateway=options.gateway,
        speed=options.speed,
        from_us=parse_time(options.begin) if options.begin else None,
        warm_up_us=round(span_seconds("--warm-up", options.warm_up) * 1e6),
        disorder=Disorder(round(late_seconds * 1e6), late_rows, options.duplicate, options.seed),
        batch_rows=options.batch,
        in_flight_blocks_max=options.in_flight,
        want_features=options.features,
        reasons=options.reasons,
        reasons_always=options.reasons_always,
        spool=options.spool or MEMORY,
        tls=Tls(options.tls_ca, options.tls_cert, options.tls_key) if options.tls_ca else None,
        patience_seconds=span_seconds("--patience", options.patience),
    )
    report = replay.replay(replay.open_history(options.history), plan, progress)
    progress.say(f"writing {options.out}")
    final.write_answers(options.out, report.table)
    result = {**report.as_dict(), "out": str(options.out)}
    lines = [(name.replace("_", " "), value) for name, value in result.items() if isinstance(value, (int, float))]
    statuses = table(("status", "readings"), list(result["statuses"].items()))
    text = f"{table(('replay', 'figure'), lines)}\n\n{statuses}\n\nanswers in {options.out}"
    whole = result["readings_answered"] == result["readings_sent"]
    return Outcome(result, text, Exit.DONE if whole else Exit.PARTIAL)


def span_seconds(option: str, text: str) -> float:
    """A span such as 250ms, 90s, 15min, 6h, 7d; a bare number is seconds. Raises UsageError."""
    match = _AMOUNT.fullmatch(text.strip())
    if match is None or match[2] not in _SECONDS:
        raise UsageError(f"{option}: expected a span such as 90s, 15min, 6h or 7d, found {text!r}")
    return float(match[1]) * _SECONDS[match[2]]


def lateness(text: str) -> tuple[float, int]:
    """--shuffle as (seconds, rows), one of them 0."""
    match = _AMOUNT.fullmatch(text.strip())
    if match is not None and match[2] in ("row", "rows") and match[1].isdigit():
        return 0.0, int(match[1])
    return span_seconds("--shuffle", text), 0


replay = Verb(
    name="replay",
    summary="stream a history to a scorer in event-time order and write the final answer to every reading",
    example="wheeltapper replay history --to 127.0.0.1:7070 --out answers.parquet",
    arguments=_arguments,
    run=_run,
)
