"""The life of a scorer: load, warm, listen, serve until SIGTERM, drain, stop."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable

import grpc
from grpc_health.v1 import health_pb2_grpc
from wheeltapper.device import fleet_on
from wheeltapper.errors import CommandError
from wheeltapper.live import LiveFleet
from wheeltapper_command.errors import Exit

from wheeltapper_scorer import logs, pauses, warming
from wheeltapper_scorer.counters import Counters
from wheeltapper_scorer.disk import Disk, Folder
from wheeltapper_scorer.doctor import Doctor
from wheeltapper_scorer.guard import Guard
from wheeltapper_scorer.journal import Journal
from wheeltapper_scorer.loop import Loop
from wheeltapper_scorer.metrics import Exposition, expose
from wheeltapper_scorer.recovery import recover
from wheeltapper_scorer.reload import Source, follow, obey
from wheeltapper_scorer.resume import ResumePoints, points_of
from wheeltapper_scorer.service import ScoringService
from wheeltapper_scorer.settings import EXIT_S_MAX, STOP_S, Settings, host_and_port

_KEEPALIVE_MS = 30_000  # a gateway that died without a word gives its stream back within a minute
_KEEPALIVE_TIMEOUT_MS = 10_000
_PING_MS_MIN = 10_000  # gateways may ask for life as often as this

_LAST_S = EXIT_S_MAX - 0.5  # what has not ended by then never will

Ready = Callable[[str, int], None]  # address, release


def serve(settings: Settings, source: Source, ready: Ready, disk: Disk | None = None) -> Counters:
    """Serve until SIGTERM or SIGINT. Raises NotFound or Refused where there is nothing to serve, CommandError where
    the address is taken or the state cannot be kept. `ready` is called once every kernel is compiled, the windows are
    as they were, and the port accepts streams. disk: what `settings.state` names, unless it is given."""
    with warming.beside():
        loaded = source.load()
        fleet = fleet_on(settings.device, loaded.pack, loaded.release, settings.capacity_max, settings.threads)
        fleet.warm()
    counters, recovered = Counters(), None
    if settings.state is not None:
        disk = disk or Folder(settings.state)
        try:
            recovered = recover(disk, loaded.pack, loaded.release, source.find, settings)
        except OSError as error:
            raise CommandError(f"the state in {settings.state} cannot be read: {error}") from error
        fleet = recovered.fleet
        logs.info("recovered", **recovered.report())
    journal = Journal(disk, recovered, settings, counters) if disk is not None and recovered is not None else None
    points = recovered.points if recovered is not None else points_of(settings)
    guard = Guard(settings)
    obey(guard.switch, source.blocked())
    pauses.shorten()
    last = threading.Timer(_LAST_S, _end)
    last.daemon = True
    try:
        with asyncio.Runner(loop_factory=Loop) as runner:
            runner.run(_run(settings, source, loaded.token, fleet, points, journal, counters, guard, ready, last))
    finally:
        last.cancel()
    logs.info("stopped", **counters.report())
    return counters


async def _run(
    settings: Settings,
    source: Source,
    served: str,
    fleet: LiveFleet,
    points: ResumePoints,
    journal: Journal | None,
    counters: Counters,
    guard: Guard,
    ready: Ready,
    last: threading.Timer,
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def leave() -> None:
        if not stop.is_set():
            last.start()  # before anything that may hang: a disk, a log that nobody reads
            stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leave)
    server = grpc.aio.server(
        options=_options(settings), maximum_concurrent_rpcs=2 * (settings.streams_max + settings.calls_max)
    )  # twice what is served: the service itself says no, with a reason and when to ask again
    service = ScoringService(fleet, settings, counters, points, journal, guard.access, guard.switch)
    server.add_generic_rpc_handlers((service.handler(),))
    doctor = Doctor(fleet, settings, guard, counters)
    health_pb2_grpc.add_HealthServicer_to_server(doctor, server)
    address = _listen(server, settings.listen, guard.credentials)
    shown, stop_metrics = (
        expose(settings.metrics, Exposition(counters, service.gauges)) if settings.metrics else ("", None)
    )
    if journal is not None:
        await journal.start()
    await server.start()
    logs.info("listening", address=address, release=fleet.release, pack=fleet.pack.sha256)
    if shown:
        logs.info("metrics", address=shown)
    following = asyncio.create_task(follow(source, served, fleet, counters, settings.poll_s, guard.switch))
    guarding = asyncio.create_task(guard.follow())
    ready(address, fleet.release)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((stopping, following, guarding), return_when=asyncio.FIRST_COMPLETED)
    leave()
    logs.info("draining", within_s=settings.drain_s)
    gone_by = loop.time() + EXIT_S_MAX - STOP_S / 2
    doctor.leave()
    left = await service.drain("the scorer is stopping", settings.drain_s)
    if left:
        logs.warning("cut off", streams=left)
    await server.stop(STOP_S / 2)
    if journal is not None:
        await journal.close(snapshot_s=max(0.0, gone_by - loop.time()))
    if stop_metrics is not None:
        await asyncio.to_thread(stop_metrics)
    tasks = (following, guarding, stopping)
    for task in tasks:
        task.cancel()
    for failed in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(failed, Exception):
            raise failed


def _end() -> None:
    """For what hangs beyond our reach, such as a disk: what was acknowledged is safe from a kill, and so from this."""
    telling = threading.Thread(target=logs.warning, args=("ended by force",), kwargs={"after_s": _LAST_S}, daemon=True)
    telling.start()
    telling.join(0.1)
    os._exit(Exit.FAILED)


def _listen(server: grpc.aio.Server, listen: str, credentials: grpc.ServerCredentials | None) -> str:
    """The address it got, with the port that the system picked for 0."""
    host, port = host_and_port(listen)
    shown = f"[{host}]" if ":" in host else host
    try:
        where = f"{shown}:{port}"
        got = server.add_secure_port(where, credentials) if credentials else server.add_insecure_port(where)
    except RuntimeError as error:
        raise CommandError(f"cannot listen on {listen}: {error}", "another process may hold the port") from error
    return f"{shown}:{got}"


def _options(settings: Settings) -> list[tuple[str, int]]:
    waiting = settings.streams_max + settings.calls_max  # whom nobody could serve, grpc's core need not keep waiting
    return [
        ("grpc.server.max_pending_requests", waiting),
        ("grpc.server.max_pending_requests_hard_limit", waiting),
        ("grpc.max_receive_message_length", settings.message_bytes_max),
        ("grpc.max_send_message_length", settings.message_bytes_max),
        ("grpc.so_reuseport", 0),  # a second scorer on the same port must fail, not share it unseen
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
        ("grpc.http2.min_ping_interval_without_data_ms", _PING_MS_MIN),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
