"""What the scorer adds to the command line."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from wheeltapper_command.machine import available_cpus
from wheeltapper_command.progress import Progress
from wheeltapper_command.verb import Outcome, Verb

from wheeltapper_scorer import kernel_cache
from wheeltapper_scorer.warm_verb import warm

_THREADS_MAX = 8  # beyond them Python's part of a block, which one core does, is most of it


def _arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--registry", type=Path, metavar="DIR", help="serve what a stage of this registry holds")
    source.add_argument(
        "--pack", type=Path, metavar="FILE", help="serve this pack instead, without reloads (release 0)"
    )
    parser.add_argument("--stage", default="production", help="the stage to follow (default: production)")
    parser.add_argument("--listen", default="127.0.0.1:7070", metavar="HOST:PORT", help="port 0: any free one")
    parser.add_argument(
        "--insecure", action="store_true", help="allow plaintext, or callers without certificates, off loopback"
    )
    parser.add_argument("--tls-cert", type=Path, metavar="PEM", help="this scorer's certificate chain; may be renewed")
    parser.add_argument("--tls-key", type=Path, metavar="PEM", help="its private key")
    parser.add_argument(
        "--client-ca", type=Path, metavar="PEM", help="only callers with certificates of this authority"
    )
    parser.add_argument("--grants", type=Path, metavar="TOML", help="which certified name may send which assets")
    parser.add_argument(
        "--trusted-key",
        action="append",
        default=[],
        type=Path,
        metavar="PEM",
        help="serve only what it signed; again for more",
    )
    parser.add_argument("--metrics", default="", metavar="HOST:PORT", help="show Prometheus what happens, here")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where kernels run (default: cpu)")
    parser.add_argument(
        "--threads",
        type=int,
        default=min(_THREADS_MAX, available_cpus()),
        metavar="N",
        help=f"cores that one large block may use (default: all, at most {_THREADS_MAX})",
    )
    parser.add_argument("--poll-seconds", type=float, default=1.0, help="how often the stage is looked at (default: 1)")
    parser.add_argument(
        "--drain-seconds",
        type=float,
        default=15.0,
        help="what streams get to end after SIGTERM (default: 15, at most 18)",
    )
    parser.add_argument("--rows-max", type=int, default=8_192, help="rows of one block (default: 8192)")
    parser.add_argument("--message-bytes", type=int, default=4 << 20, help="of one message (default: 4 MiB)")
    parser.add_argument(
        "--waiting-bytes", type=int, default=256 << 20, help="of blocks that wait for their turn (default: 256 MiB)"
    )
    parser.add_argument("--streams-max", type=int, default=1_000, help="streams at once (default: 1000)")
    parser.add_argument("--calls-max", type=int, default=64, help="Score calls at once (default: 64)")
    parser.add_argument(
        "--wait-seconds", type=float, default=1.0, help="refuse newcomers while blocks wait longer (default: 1)"
    )
    parser.add_argument(
        "--silent-slots", type=int, default=5, help="slots without a reading until an asset is stale (default: 5)"
    )
    parser.add_argument("--silent-seconds", type=float, default=60.0, help="and at least so many seconds (default: 60)")
    parser.add_argument("--assets-max", type=int, default=200_000, help="assets of this process (default: 200000)")
    parser.add_argument(
        "--state", type=Path, metavar="DIR", help="keep a journal here: durable acknowledgements, warm starts"
    )
    parser.add_argument(
        "--segment-bytes", type=int, default=64 << 20, help="of the journal, between two snapshots (default: 64 MiB)"
    )
    parser.add_argument("--cache", type=Path, metavar="DIR", help="where `wheeltapper warm --cache` left the kernels")
    parser.add_argument("--ready-file", type=Path, metavar="FILE", help="holds the address while the scorer is ready")


def _serve(options: argparse.Namespace, _progress: Progress) -> Outcome:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its C core writes lines of its own to stderr, where JSON is due
    # Its newer listener hands every connection to another thread: a fifth more CPU per small message.
    os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
    kernel_cache.choose(options.cache)
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


def _certs_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="holds the authority; made where it is missing")
    parser.add_argument(
        "--name", action="append", default=[], metavar="NAME", help="a DNS name, IP address or URI; again for more"
    )
    parser.add_argument("--days", type=float, default=30.0, help="how long they are valid (default: 30)")
    parser.add_argument("--renew", action="store_true", help="replace certificates that are there")


def _certs(options: argparse.Namespace, _progress: Progress) -> Outcome:
    from wheeltapper_scorer.certs import make_certificates  # noqa: PLC0415 — needs an optional extra

    names = options.name or ["localhost"]
    written = make_certificates(options.folder, names, options.days, options.renew)
    result = {"authority": str(options.folder / "ca.pem"), "names": names, "files": [str(path) for path in written]}
    return Outcome(result, "\n".join(result["files"]))


certs = Verb(
    name="certs",
    summary="Make a development authority, and certificates of it for scorers and gateways.",
    example="wheeltapper certs certs --name localhost --name plant-1",
    arguments=_certs_arguments,
    run=_certs,
)

__all__ = ["certs", "serve", "warm"]
