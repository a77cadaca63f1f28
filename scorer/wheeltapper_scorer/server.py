"""The life of a scorer: load, warm, listen, serve until SIGTERM, drain, stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from wheeltapper.errors import CommandError
from wheeltapper.live import LiveFleet

from wheeltapper_scorer import logs
from wheeltapper_scorer.counters import Counters
from wheeltapper_scorer.reload import Source, follow
from wheeltapper_scorer.service import SERVICE, ScoringService
from wheeltapper_scorer.settings import STOP_S, Settings, host_and_port

_KEEPALIVE_MS = 30_000  # a gateway that died without a word gives its stream back within a minute
_KEEPALIVE_TIMEOUT_MS = 10_000
_PING_MS_MIN = 10_000  # gateways may ask for life as often as this

Ready = Callable[[str, int], None]  # address, release


def serve(settings: Settings, source: Source, ready: Ready) -> Counters:
    """Serve until SIGTERM or SIGINT. Raises NotFound or Refused where there is nothing to serve, CommandError where
    the address is taken. `ready` is called once every kernel is compiled and the port accepts streams."""
    loaded = source.load()
    fleet = LiveFleet(loaded.pack, loaded.release, settings.capacity_max)
    fleet.warm()
    counters = Counters()
    asyncio.run(_run(settings, source, loaded.token, fleet, counters, ready))
    logs.info("stopped", **counters.report())
    return counters


async def _run(
    settings: Settings, source: Source, served: str, fleet: LiveFleet, counters: Counters, ready: Ready
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = grpc.aio.server(
        options=_options(settings), maximum_concurrent_rpcs=settings.streams_max + settings.calls_max
    )
    service = ScoringService(fleet, settings, counters)
    server.add_generic_rpc_handlers((service.handler(),))
    doctor = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(doctor, server)
    address = _listen(server, settings.listen)
    await server.start()
    for name in ("", SERVICE):
        await doctor.set(name, health_pb2.HealthCheckResponse.SERVING)
    logs.info("listening", address=address, release=fleet.release, pack=fleet.pack.sha256)
    following = asyncio.create_task(follow(source, served, fleet, counters, settings.poll_s))
    ready(address, fleet.release)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((stopping, following), return_when=asyncio.FIRST_COMPLETED)
    logs.info("draining", within_s=settings.drain_s)
    await doctor.enter_graceful_shutdown()
    left = await service.drain("the scorer is stopping", settings.drain_s)
    if left:
        logs.warning("cut off", streams=left)
    await server.stop(STOP_S / 2)
    following.cancel()
    stopping.cancel()
    (failed, *_) = await asyncio.gather(following, stopping, return_exceptions=True)
    if isinstance(failed, Exception):
        raise failed


def _listen(server: grpc.aio.Server, listen: str) -> str:
    """The address it got, with the port that the system picked for 0."""
    host, port = host_and_port(listen)
    shown = f"[{host}]" if ":" in host else host
    try:
        got = server.add_insecure_port(f"{shown}:{port}")
    except RuntimeError as error:
        raise CommandError(f"cannot listen on {listen}: {error}", "another process may hold the port") from error
    return f"{shown}:{got}"


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", settings.message_bytes_max),
        ("grpc.max_send_message_length", settings.message_bytes_max),
        ("grpc.so_reuseport", 0),  # a second scorer on the same port must fail, not share it unseen
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
        ("grpc.http2.min_ping_interval_without_data_ms", _PING_MS_MIN),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
