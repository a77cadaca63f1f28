"""One stream that a test holds open, and what it asks of a server besides."""

from __future__ import annotations

import queue

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from serving import reason, wrap
from wheeltapper_proto import scoring_pb2 as pb
from wheeltapper_proto import scoring_pb2_grpc

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Conversation:
    """A stream that a test holds open: say one thing, hear one thing."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._said: queue.Queue[pb.StreamRequest | None] = queue.Queue()
        self.call = scoring_pb2_grpc.ScoringStub(channel).StreamScores(iter(self._said.get, None), timeout=60)

    def say(self, request: pb.Open | pb.ReadingBlock | pb.EventBlock) -> None:
        self._said.put(wrap(request))

    def hear(self) -> pb.StreamResponse:
        return next(self.call)

    def ask(self, request: pb.Open | pb.ReadingBlock | pb.EventBlock) -> pb.StreamResponse:
        self.say(request)
        return self.hear()

    def half_close(self) -> list[pb.StreamResponse]:
        self._said.put(None)
        return list(self.call)


def health(channel: grpc.Channel, service: str = "") -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    return health_pb2_grpc.HealthStub(channel).Check(request, timeout=10).status


def numbers(n: int) -> np.ndarray:
    return np.random.default_rng(3).uniform(10, 90, (n, 3)).astype(np.float32)


def refused(call) -> tuple[grpc.StatusCode, str, float]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return reason(caught.value)
