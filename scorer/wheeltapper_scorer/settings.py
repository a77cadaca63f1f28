"""Every limit of a scorer, with its unit, checked once where the command line builds it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from wheeltapper.errors import Refused, UsageError

EXIT_S_MAX = 20.0  # from SIGTERM to the end of the process
STOP_S = 2.0  # what grpc itself gets at the end of a drain


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. With `client_ca`, only clients with a certificate of that authority get a connection."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Raises UsageError where a limit or a relation between two does not hold, Refused where plaintext would leave
    the machine."""

    listen: str = "127.0.0.1:7070"  # port 0: the system picks one
    insecure: bool = False  # plaintext, or callers without certificates, off loopback
    tls: TlsFiles | None = None
    grants: Path | None = None  # who may send what, by certified name
    device: str = "cpu"  # or "cuda": where windows and forests live and kernels run
    threads: int = 1  # cores that one large block may use, on the CPU
    metrics: str = ""  # HOST:PORT of Prometheus' page; "": none
    rows_max: int = 8_192  # rows of one block; less where an answer would pass message_bytes_max
    assets_max: int = 200_000  # assets of one stream
    capacity_max: int = 200_000  # assets of this process
    streams_max: int = 1_000
    calls_max: int = 64  # calls at once besides streams: Score, health
    bytes_waiting_max: int = 256 * 1024 * 1024  # of blocks that wait for their turn
    wait_s_max: float = 1.0  # newcomers are refused while blocks wait longer for their turn
    silent_slots: int = 5  # an asset is stale after so many slots of its cadence without a reading …
    silent_s: float = 60.0  # … but not before this, which alone counts where the cadence is the reading
    gateways_max: int = 10_000  # gateways whose resume point is remembered
    answers_bytes_max: int = 8 * 1024 * 1024  # of one gateway's answers, kept to be given again after a broken stream …
    answers_total_bytes_max: int = 128 * 1024 * 1024  # … and of all gateways'
    names_max: int = 4_096  # sensors, event codes or attributes of one Open
    name_bytes_max: int = 256
    message_bytes_max: int = 4 * 1024 * 1024
    poll_s: float = 1.0  # how often the stage is looked at
    open_s: float = 10.0  # how long a stream may wait with its Open
    drain_s: float = 15.0  # how long streams may take to half-close after Drain

    state: Path | None = None  # the folder of journal and snapshots; None: nothing is durable
    segment_bytes_max: int = 64 * 1024 * 1024  # of the journal; then a new segment begins, and a snapshot is taken
    journal_retry_s: float = 1.0  # between attempts to write again on a disk that failed
    gather_s: float = 0.004  # for which a write and its sync wait at most while blocks come and nobody stands still
    pending_bytes_max: int = 16 * 1024 * 1024  # on their way to the disk; beyond it blocks wait

    def __post_init__(self) -> None:
        for name in (
            "threads",
            "rows_max",
            "assets_max",
            "capacity_max",
            "streams_max",
            "calls_max",
            "gateways_max",
            "names_max",
        ):
            _at_least(name, getattr(self, name), 1)
        _at_least("name_bytes_max", self.name_bytes_max, 16)
        _at_least("message_bytes_max", self.message_bytes_max, 64 * 1024)
        _at_least("answers_bytes_max", self.answers_bytes_max, 0)
        _at_least("answers_total_bytes_max", self.answers_total_bytes_max, self.answers_bytes_max)
        _at_least("segment_bytes_max", self.segment_bytes_max, 4 * 1024)
        _at_least("pending_bytes_max", self.pending_bytes_max, 4 * 1024)
        _at_least("journal_retry_s", self.journal_retry_s, 0.001)
        _at_least("gather_s", self.gather_s, 0.0)
        _at_least("poll_s", self.poll_s, 0.01)
        _at_least("open_s", self.open_s, 0.01)
        _at_least("bytes_waiting_max", self.bytes_waiting_max, self.message_bytes_max)
        _at_least("wait_s_max", self.wait_s_max, 0.01)
        _at_least("silent_slots", self.silent_slots, 1)
        _at_least("silent_s", self.silent_s, 0.01)
        if not 0.0 <= self.drain_s <= EXIT_S_MAX - STOP_S:
            raise UsageError(
                f"drain_s: expected 0 to {EXIT_S_MAX - STOP_S:g}, found {self.drain_s:g}",
                f"a scorer is gone within {EXIT_S_MAX:g} s of SIGTERM, {STOP_S:g} of them for closing connections",
            )
        self._check_who_may_speak()

    def _check_who_may_speak(self) -> None:
        asked = self.tls is not None and self.tls.client_ca is not None
        if self.grants is not None and not asked:
            raise UsageError("--grants: names come from certificates, and nobody is asked for one", "add --client-ca")
        if self.metrics and not is_loopback(host_and_port(self.metrics)[0]) and not self.insecure:
            raise Refused(f"--metrics {self.metrics} is reachable from other machines", "show them on 127.0.0.1")
        host, _ = host_and_port(self.listen)
        if self.insecure or is_loopback(host):
            return
        if self.tls is None:
            raise Refused(
                f"{self.listen} is reachable from other machines, and this scorer speaks plaintext",
                "give it --tls-cert, --tls-key and --client-ca, or say --insecure on a network you trust",
            )
        if not asked:
            raise Refused(
                f"{self.listen} is reachable from other machines, and this scorer lets everybody speak",
                "give it the --client-ca of your gateways, or say --insecure on a network you trust",
            )


def host_and_port(listen: str) -> tuple[str, int]:
    """("::1", 7070) from "[::1]:7070". Raises UsageError where there is no host or no port of 0 to 65535."""
    host, colon, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise UsageError(
            f"--listen: expected HOST:PORT, found {listen!r}", "for example 127.0.0.1:7070, or port 0 for any"
        )
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether nothing outside this machine reaches `host`. A name other than localhost is taken to be reachable."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _at_least(name: str, found: float, least: float) -> None:
    if not found >= least:
        raise UsageError(f"{name}: expected at least {least:g}, found {found:g}")
