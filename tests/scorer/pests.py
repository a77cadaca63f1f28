"""What callers do to a scorer again and again for months, one of each: all wrong, all answered, nothing kept."""

from __future__ import annotations

import asyncio
import itertools
import os
import ssl
from collections.abc import Awaitable, Callable

import grpc
from grpc_health.v1 import health_pb2
from serving import MINUTE_US, block, now_us, opening, wrap
from wheeltapper_proto import scoring_pb2 as pb

Pest = Callable[[grpc.aio.Channel], Awaitable[str]]
_SERVICE, _HEALTH = "/wheeltapper.v1.Scoring", "/grpc.health.v1.Health"
_COUNT = itertools.count(1)
_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


async def refused_open(channel: grpc.aio.Channel) -> str:
    """Of a class that nobody knows, under another name each time."""
    return await _stream(channel, opening(asset_class=f"class-{next(_COUNT)}"))


async def foreign_bytes(channel: grpc.aio.Channel) -> str:
    return await _stream(channel, b"\x0a" + os.urandom(600))


async def foreign_call(channel: grpc.aio.Channel) -> str:
    return await _ended(channel.unary_unary(f"{_SERVICE}/Score")(b"\x0a" + os.urandom(600), timeout=30))


async def unknown_handles(channel: grpc.aio.Channel) -> str:
    """Rows of assets that were not opened, and events of codes that nobody knows."""
    time = now_us()
    events = pb.EventBlock(sequence=2, handles=[0, 7], times=[time, time], codes=[0, 99])
    first = opening("a-1", event_codes=[f"error:e{next(_COUNT)}"])
    return await _stream(channel, first, block(1, [7, 8], [time, time], [[1, 2, 3]] * 2), events)


async def unknown_assets(channel: grpc.aio.Channel) -> str:
    """Other names each time, until the scorer holds as many as it may."""
    return await _stream(channel, opening(*(f"a-{next(_COUNT)}" for _ in range(20))))


async def repeated_open(channel: grpc.aio.Channel) -> str:
    return await _stream(channel, *(opening("a-1") for _ in range(20)))


async def cut_stream(channel: grpc.aio.Channel) -> str:
    """A gateway that comes back under its name, sends what it sent before, and is gone in the middle."""
    call = channel.stream_stream(f"{_SERVICE}/StreamScores")(timeout=30)
    for message in (opening("a-1"), block(3, [0], [now_us() - MINUTE_US], (1, 2, 3))):
        await call.write(wrap(message).SerializeToString())
    await call.read()
    call.cancel()
    return "cut"


async def unknown_health(channel: grpc.aio.Channel) -> str:
    request = health_pb2.HealthCheckRequest(service=f"asset:press/none-{next(_COUNT)}")
    return await _ended(channel.unary_unary(f"{_HEALTH}/Check")(request.SerializeToString(), timeout=30))


async def abandoned_watch(channel: grpc.aio.Channel) -> str:
    request = health_pb2.HealthCheckRequest(service=f"none-{next(_COUNT)}")
    call = channel.unary_stream(f"{_HEALTH}/Watch")(request.SerializeToString(), timeout=30)
    await call.read()
    call.cancel()
    return "cut"


PESTS: dict[str, tuple[Pest, str]] = {  # with how each ends
    "refused opens": (refused_open, "NOT_FOUND"),
    "streams of foreign bytes": (foreign_bytes, "INVALID_ARGUMENT"),
    "calls of foreign bytes": (foreign_call, "INVALID_ARGUMENT"),
    "unknown handles and codes": (unknown_handles, "OK"),
    "unknown assets": (unknown_assets, "RESOURCE_EXHAUSTED"),
    "opens that come again": (repeated_open, "OK"),
    "cut streams": (cut_stream, "cut"),
    "health of unknown assets": (unknown_health, "NOT_FOUND"),
    "watches given up": (abandoned_watch, "cut"),
}


async def connections(address: str, credentials: grpc.ChannelCredentials) -> None:
    """A gateway connects anew, opens, and goes."""
    async with grpc.aio.secure_channel(address, credentials, options=_CONNECTION) as channel:
        assert await _stream(channel, opening("a-1")) == "OK"


async def failed_handshakes(address: str, trust: ssl.SSLContext) -> None:
    """One without a certificate, and one that speaks no TLS at all."""
    host, _, port = address.rpartition(":")
    for context, said in ((trust, b""), (None, b"GET / HTTP/1.1\r\n\r\n")):
        try:
            reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
            writer.write(said)
            await asyncio.wait_for(reader.read(), 10)  # until the scorer hangs up
            writer.close()
            await writer.wait_closed()
        except (ssl.SSLError, OSError):
            pass


async def _stream(channel: grpc.aio.Channel, *messages: pb.Open | pb.ReadingBlock | pb.EventBlock | bytes) -> str:
    """Say all, half-close, and hear it out; the code it ends with."""
    call = channel.stream_stream(f"{_SERVICE}/StreamScores")(timeout=30)
    try:
        for message in messages:
            await call.write(message if isinstance(message, bytes) else wrap(message).SerializeToString())
        await call.done_writing()
        while await call.read() is not grpc.aio.EOF:
            pass
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        pass
    return (await call.code()).name


async def _ended(call: grpc.aio.UnaryUnaryCall) -> str:
    return (await call.code()).name
