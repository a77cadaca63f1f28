"""From the words of the command line to a running scorer, and the line that says where it listens."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from wheeltapper.durable import replace, write_temporary
from wheeltapper.errors import UsageError
from wheeltapper.registry import Registry

from wheeltapper_scorer import logs
from wheeltapper_scorer.reload import PackFile, Source, Stage
from wheeltapper_scorer.server import serve
from wheeltapper_scorer.settings import Settings


def run(options: argparse.Namespace) -> None:
    """Serve until a signal. Raises UsageError, NotFound, Refused or CommandError where it cannot begin."""
    settings = Settings(
        listen=options.listen,
        insecure=options.insecure,
        rows_max=options.rows_max,
        assets_max=options.assets_max,
        capacity_max=options.assets_max,
        streams_max=options.streams_max,
        poll_s=options.poll_seconds,
        drain_s=options.drain_seconds,
    )
    ready_file: Path | None = options.ready_file
    if ready_file is not None and not ready_file.parent.is_dir():
        raise UsageError(f"--ready-file: expected a folder at {ready_file.parent}, found none")
    source: Source = PackFile(options.pack) if options.pack else Stage(Registry(options.registry), options.stage)
    logs.to_stderr()

    def ready(address: str, release: int) -> None:
        if ready_file is not None:
            replace(write_temporary(ready_file.parent, ready_file.name, [f"{address}\n".encode()]), ready_file)
        document = json.dumps({"listening": address, "release": release})
        sys.stdout.write(f"{document if options.output == 'json' else f'listening on {address}'}\n")
        sys.stdout.flush()

    try:
        serve(settings, source, ready)
    finally:
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)
