"""`wheeltapper warm`: compile the kernels now, so that a scorer starts in seconds."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from wheeltapper_command.progress import Progress
from wheeltapper_command.verb import Outcome, Verb

from wheeltapper_scorer import kernel_cache


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="keep them here, closed to others, and name it to serve too"
    )


def _warm(options: argparse.Namespace, _progress: Progress) -> Outcome:
    chosen = kernel_cache.choose(options.cache)
    began = time.perf_counter()
    import wheeltapper.live  # noqa: PLC0415 — Numba reads the choice when it is imported

    from wheeltapper_scorer import warming  # noqa: PLC0415

    warming.compile_kernels()
    folder = chosen or Path(str(wheeltapper.live.__file__)).parent
    files, size_bytes = kernel_cache.size(folder)
    result = {
        "seconds": round(time.perf_counter() - began, 2),
        "cache": str(folder),
        "files": files,
        "bytes": size_bytes,
    }
    return Outcome(result, f"{files} files, {size_bytes / 1e6:.1f} MB in {folder} after {result['seconds']} s")


warm = Verb(
    name="warm",
    summary="Compile the kernels of the scorer now: for images, and before the first start.",
    example="wheeltapper warm --cache /var/cache/wheeltapper",
    arguments=_arguments,
    run=_warm,
)
