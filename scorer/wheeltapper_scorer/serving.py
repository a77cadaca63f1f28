"""From the words of the command line to a running scorer, and the line that says where it listens."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from wheeltapper.durable import replace, write_temporary
from wheeltapper.errors import UsageError
from wheeltapper.registry import Registry
from wheeltapper.signing import TrustedKeys

from wheeltapper_scorer import logs
from wheeltapper_scorer.reload import PackFile, Source, Stage
from wheeltapper_scorer.server import serve
from wheeltapper_scorer.settings import Settings, TlsFiles


def run(options: argparse.Namespace) -> None:
    """Serve until a signal. Raises UsageError, NotFound, Refused or CommandError where it cannot begin."""
    settings = Settings(
        listen=options.listen,
        insecure=options.insecure,
        tls=_tls(options),
        grants=options.grants,
        device=options.device,
        threads=options.threads,
        metrics=options.metrics,
        rows_max=options.rows_max,
        message_bytes_max=options.message_bytes,
        bytes_waiting_max=options.waiting_bytes,
        assets_max=options.assets_max,
        capacity_max=options.assets_max,
        streams_max=options.streams_max,
        calls_max=options.calls_max,
        wait_s_max=options.wait_seconds,
        silent_slots=options.silent_slots,
        silent_s=options.silent_seconds,
        poll_s=options.poll_seconds,
        drain_s=options.drain_seconds,
        state=options.state,
        segment_bytes_max=options.segment_bytes,
    )
    ready_file: Path | None = options.ready_file
    if ready_file is not None and not ready_file.parent.is_dir():
        raise UsageError(f"--ready-file: expected a folder at {ready_file.parent}, found none")
    source = _source(options)
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


def _tls(options: argparse.Namespace) -> TlsFiles | None:
    if (options.tls_cert is None) != (options.tls_key is None) or (options.client_ca and not options.tls_cert):
        raise UsageError("expected --tls-cert and --tls-key together, and --client-ca only with them")
    return TlsFiles(options.tls_cert, options.tls_key, options.client_ca) if options.tls_cert else None


def _source(options: argparse.Namespace) -> Source:
    trusted = TrustedKeys.from_files(options.trusted_key) if options.trusted_key else None
    if options.pack and trusted:
        raise UsageError("--trusted-key: a pack alone is not signed, its release is", "serve from a --registry")
    if options.pack:
        return PackFile(options.pack)
    seen = options.state / f"seen-{options.stage}" if options.state else None
    return Stage(Registry(options.registry, trusted=trusted), options.stage, seen)
