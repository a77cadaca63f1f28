"""`grpc.health.v1`: the server's health, and that of one asset, asked as the service "asset:CLASS/ID".

SERVING: it has a recent reading and is scored. NOT_SERVING: it is silent, so that its last score is stale, or switched
off. NOT_FOUND: nobody has opened it, or the caller may not send it.
"""

from __future__ import annotations

import asyncio
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from wheeltapper.live import LiveFleet

from wheeltapper_scorer.counters import Counters
from wheeltapper_scorer.faults import CallError, Reason
from wheeltapper_scorer.guard import Guard
from wheeltapper_scorer.refusal import refuse
from wheeltapper_scorer.service import SERVICE
from wheeltapper_scorer.settings import Settings
from wheeltapper_scorer.silence import allowed_us

_PREFIX = "asset:"
_RETRY_S = 1.0


class Doctor(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # grpc has no types
    """Belongs to the event loop. All is well until it `leaves`. grpc's own servicer writes to a watcher under a lock
    that all others and the end of the server need: one that does not read would hold them all."""

    def __init__(self, fleet: LiveFleet, settings: Settings, guard: Guard, counters: Counters) -> None:
        self._leaving = asyncio.Event()
        self._fleet = fleet
        self._settings = settings
        self._guard = guard
        self._counters = counters
        self._watches = 0

    async def Check(  # noqa: N802 — grpc's name
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        response = health_pb2.HealthCheckResponse
        if not request.service.startswith(_PREFIX):
            if (status := self._status(request.service)) == response.SERVICE_UNKNOWN:
                await context.abort(grpc.StatusCode.NOT_FOUND, "no such service is here")
            return response(status=status)
        asset_class, _, asset = request.service.removeprefix(_PREFIX).partition("/")
        try:
            self._guard.access.caller(context.auth_context()).check_asset(asset_class, asset)
            known = asset_class in self._fleet.class_names()
            newest_us = self._fleet.newest_time(asset_class, asset) if known else None
        except CallError:
            newest_us = None
        if newest_us is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such asset is open here")
            raise AssertionError("abort always raises")
        allowed = allowed_us(self._fleet.spec(asset_class).cadence_us, self._settings)
        fresh = newest_us >= time.time_ns() // 1_000 - allowed
        well = fresh and not self._guard.switch.blocked.covers(asset_class, asset)
        return response(status=response.SERVING if well else response.NOT_SERVING)

    async def Watch(  # noqa: N802 — grpc's name
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> None:
        """As many as streams, for a gateway may watch for each of them; more would take the places of streams."""
        if self._watches >= (most := self._settings.streams_max):
            self._counters.count_refusal(Reason.TOO_MANY_STREAMS)
            text = f"at most {most:,} may watch the health of this scorer"
            await refuse(context, CallError(Reason.TOO_MANY_STREAMS, text, _RETRY_S))
        self._watches += 1
        try:
            before = self._status(request.service)
            await context.write(health_pb2.HealthCheckResponse(status=before))
            await self._leaving.wait()
            if (now := self._status(request.service)) != before:
                await context.write(health_pb2.HealthCheckResponse(status=now))
            await asyncio.Event().wait()  # a watch ends with its watcher, or with the server
        finally:
            self._watches -= 1

    def leave(self) -> None:
        """From now on nothing is well here."""
        self._leaving.set()

    def _status(self, service: str) -> health_pb2.HealthCheckResponse.ServingStatus:
        response = health_pb2.HealthCheckResponse
        if service not in ("", SERVICE):
            return response.SERVICE_UNKNOWN
        return response.NOT_SERVING if self._leaving.is_set() else response.SERVING
