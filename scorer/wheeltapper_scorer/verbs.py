"""What the scorer adds to the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from wheeltapper_command.progress import Progress
from wheeltapper_command.verb import Outcome, Verb


def _arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--registry", type=Path, metavar="DIR", help="serve what a stage of this registry holds")
    source.add_argument(
        "--pack", type=Path, metavar="FILE", help="serve this pack instead, without reloads (release 0)"
    )
    parser.add_argument("--stage", default="production", help="the stage to follow (default: production)")
    parser.add_argument("--listen", default="127.0.0.1:7070", metavar="HOST:PORT", help="port 0: any free one")
    parser.add_argument("--insecure", action="store_true", help="allow plaintext off loopback")
    parser.add_argument("--device", choices=("cpu",), default="cpu", help="where kernels run")
    parser.add_argument("--poll-seconds", type=float, default=1.0, help="how often the stage is looked at (default: 1)")
    parser.add_argument("--drain-seconds", type=float, default=15.0, help="what streams get to end after SIGTERM")
    parser.add_argument("--rows-max", type=int, default=8_192, help="rows of one block (default: 8192)")
    parser.add_argument("--streams-max", type=int, default=1_000, help="streams at once (default: 1000)")
    parser.add_argument("--assets-max", type=int, default=200_000, help="assets of this process (default: 200000)")
    parser.add_argument("--ready-file", type=Path, metavar="FILE", help="holds the address while the scorer is ready")


def _serve(options: argparse.Namespace, _progress: Progress) -> Outcome:
    from wheeltapper_scorer import serving  # noqa: PLC0415 — listing the verbs must not import Numba

    serving.run(options)
    return Outcome(result={})  # its one object was printed when it was ready


serve = Verb(
    name="serve",
    summary="Score live sensor streams over gRPC, with the release that a stage holds.",
    example="wheeltapper serve --registry registry --stage production --listen 127.0.0.1:7070",
    arguments=_arguments,
    run=_serve,
)
