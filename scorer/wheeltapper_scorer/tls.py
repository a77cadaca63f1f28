"""The scorer's certificates: read at the start, looked at again with every handshake, so that they rotate while streams
stay open. docs/security.md says who may speak."""

from __future__ import annotations

import ssl
import threading
from pathlib import Path
from typing import Any

import grpc
from wheeltapper.errors import NotFound, Refused, UsageError

from wheeltapper_scorer import logs
from wheeltapper_scorer.settings import TlsFiles

_FILE_BYTES_MAX = 1 << 20


class Certificates:
    """What handshakes use. grpc asks from threads of its own."""

    def __init__(self, files: TlsFiles) -> None:
        """Raises NotFound where a file is not there, UsageError where it is none of its kind or key and certificate do
        not fit, Refused where others may read the key."""
        self._files = files
        self._lock = threading.Lock()
        self._seen = self._stamp()
        self._config = self._read()
        self._warned = ""

    def credentials(self) -> grpc.ServerCredentials:
        return grpc.dynamic_ssl_server_credentials(
            self._config, self._fetch, require_client_authentication=self._files.client_ca is not None
        )

    def _fetch(self) -> Any:
        """The certificates of one handshake. New files that do not fit together leave the old ones in use: they may be
        half-written, and are looked at again with the next handshake."""
        with self._lock:
            try:
                stamp = self._stamp()
                if stamp != self._seen:
                    self._config, self._seen, self._warned = self._read(), stamp, ""
                    logs.info("certificates renewed", certificate=self._files.certificate)
            except (NotFound, UsageError, Refused, OSError) as error:
                if str(error) != self._warned:
                    self._warned = str(error)
                    logs.warning("certificates not renewed", reason=self._warned)
            return self._config

    def _stamp(self) -> tuple[tuple[int, int, int], ...]:
        """What changes when a file is written or replaced."""
        try:
            states = [path.stat() for path in self._paths()]
        except FileNotFoundError as error:
            message = f"no file at {error.filename}, which a --tls option names"
            raise NotFound(message, "`wheeltapper certs DIR` makes a development set") from None
        return tuple((state.st_ino, state.st_size, state.st_mtime_ns) for state in states)

    def _paths(self) -> list[Path]:
        files = self._files
        return [files.certificate, files.key, *([files.client_ca] if files.client_ca else [])]

    def _read(self) -> Any:
        files = self._files
        mode = files.key.stat().st_mode & 0o777
        if mode & 0o077:
            raise Refused(
                f"{files.key}: expected a private key only its owner may read, found mode {mode:o}",
                f"chmod 600 {files.key}",
            )
        try:
            trial = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            trial.load_cert_chain(files.certificate, files.key, password=_no_password)
            if files.client_ca is not None:
                trial.load_verify_locations(files.client_ca)
        except (ssl.SSLError, ValueError) as error:
            said = getattr(error, "reason", None) or type(error).__name__
            message = f"expected a PEM certificate, its own unencrypted key and an authority in {_names(self._paths())}"
            raise UsageError(f"{message}; found otherwise: {said}", "check that the files belong together") from None
        pair = (_bytes(files.key), _bytes(files.certificate))
        return grpc.ssl_server_certificate_configuration([pair], _bytes(files.client_ca) if files.client_ca else None)


def _no_password() -> str:
    raise ValueError("the key is encrypted")  # instead of a prompt on the terminal


def _bytes(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(_FILE_BYTES_MAX)


def _names(paths: list[Path]) -> str:
    return ", ".join(str(path) for path in paths)
