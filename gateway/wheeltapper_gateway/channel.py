"""The gateway's way to a scorer: a plaintext channel on a machine, TLS between machines."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
from wheeltapper_command.errors import NotFound, UsageError

_FILE_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files: the authority that certified the scorer, and the gateway's own certificate and key where the scorer
    asks for one."""

    ca: Path
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise UsageError("expected a certificate together with its key, found one of them")


class Connector:
    """Makes a channel for each conversation. The files are read each time, so that a renewed certificate is shown with
    the next conversation; where they cannot be read then, the ones read before are used. Raises NotFound where they
    are not there at first."""

    def __init__(self, target: str, tls: Tls | None = None, options: Sequence[tuple[str, int]] = ()) -> None:
        self._target = target
        self._tls = tls
        self._options = tuple(options)
        self._pem: tuple[bytes, bytes | None, bytes | None] | None = None
        if tls is not None:
            try:
                self._pem = _read(tls)
            except OSError as error:
                raise NotFound(f"{error.filename}: expected a PEM file, found none to read: {error.strerror}") from None

    def __call__(self) -> grpc.Channel:
        if self._tls is None or self._pem is None:
            return grpc.insecure_channel(self._target, options=self._options)
        with suppress(OSError):  # being replaced just now: what was read before may still be good
            self._pem = _read(self._tls)
        return grpc.secure_channel(self._target, grpc.ssl_channel_credentials(*self._pem), self._options)


def _read(tls: Tls) -> tuple[bytes, bytes | None, bytes | None]:
    """Authority, key and certificate, in the order in which grpc takes them."""
    return _bytes(tls.ca), _bytes(tls.key) if tls.key else None, _bytes(tls.certificate) if tls.certificate else None


def _bytes(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(_FILE_BYTES_MAX)
