"""Limits below those of streams and blocks: the bytes of a message, also of one that unpacks to more than it shows, and
who watches a scorer's health."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from serving import Running, ask, opening, reason, run_server
from wheeltapper.registry import Registry
from wheeltapper_scorer import refusal
from wheeltapper_scorer.faults import CallError, Reason

STREAMS = 4
PACKED, MIB = grpc.Compression.Gzip, 1 << 20


@pytest.fixture
def narrow(registry: Registry) -> Iterator[Running]:
    """A scorer with places for few."""
    with run_server(registry.path, "--streams-max", str(STREAMS), "--calls-max", "2") as server:
        yield server


def peak_mb(server: Running) -> float:
    """The most memory it has ever had."""
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def test_what_unpacks_and_who_watches_is_bounded(narrow: Running) -> None:
    check_messages(narrow)
    check_watches(narrow)


def check_messages(server: Running) -> None:
    """128 MiB of zeros are an eighth of a MiB on the wire, and were never whole in memory."""
    before_mb = peak_mb(server)
    with grpc.insecure_channel(server.address, [("grpc.max_send_message_length", -1)]) as channel:
        score = channel.unary_unary("/wheeltapper.v1.Scoring/Score")
        stream = channel.stream_stream("/wheeltapper.v1.Scoring/StreamScores")
        for message in (bytes(5 * MIB), bytes(128 * MIB)):
            with pytest.raises(grpc.RpcError) as of_call:
                score(message, timeout=30, compression=PACKED)
            with pytest.raises(grpc.RpcError) as of_stream:
                next(stream(iter([message]), timeout=30, compression=PACKED))
            assert of_call.value.code() is of_stream.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert peak_mb(server) < before_mb + 64
        assert ask(channel, opening("after"))[0].opened.release == 1


def check_watches(server: Running) -> None:
    """Those who watch take no place of a stream."""
    with server.channel() as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch
        serving, refused, open_watches = health_pb2.HealthCheckResponse.SERVING, 0, []
        for _ in range(4 * STREAMS):
            call = watch(health_pb2.HealthCheckRequest(), timeout=60)
            try:
                assert next(call).status == serving
                open_watches.append(call)
            except grpc.RpcError as error:
                code, why, retry_s = reason(error)
                assert (code, why) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
                assert retry_s > 0
                refused += 1
        assert (len(open_watches), refused) == (STREAMS, 3 * STREAMS)
        assert ask(channel, opening("a-1"))[0].opened.release == 1
        open_watches[0].cancel()
        deadline = time.monotonic() + 10
        while True:
            try:
                assert next(watch(health_pb2.HealthCheckRequest(), timeout=60)).status == serving
                break
            except grpc.RpcError:
                assert time.monotonic() < deadline


def test_the_page_for_other_clients_has_every_reason_and_its_code() -> None:
    page = (Path(__file__).parents[2] / "docs" / "wire.md").read_text()
    told = re.findall(r"(?m)^\| `([A-Z_]+)` \| `([A-Z_]+)` \|", page)
    codes = {code.value[0]: code.name for code in grpc.StatusCode}
    assert told == [(one.value, codes[refusal.status_of(CallError(one, "")).code]) for one in Reason]
