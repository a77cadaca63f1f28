"""What grpc itself bounds for a scorer: the bytes of a message, also of one that unpacks to more than it shows."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from serving import Running, ask, opening

PACKED, MIB = grpc.Compression.Gzip, 1 << 20


def peak_mb(server: Running) -> float:
    """The most memory it has ever had."""
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def test_a_message_is_measured_as_it_unpacks(running: Running) -> None:
    """128 MiB of zeros are an eighth of a MiB on the wire, and were never whole in memory."""
    before_mb = peak_mb(running)
    with grpc.insecure_channel(running.address, [("grpc.max_send_message_length", -1)]) as channel:
        score = channel.unary_unary("/wheeltapper.v1.Scoring/Score")
        stream = channel.stream_stream("/wheeltapper.v1.Scoring/StreamScores")
        for message in (bytes(5 * MIB), bytes(128 * MIB)):
            with pytest.raises(grpc.RpcError) as of_call:
                score(message, timeout=30, compression=PACKED)
            with pytest.raises(grpc.RpcError) as of_stream:
                next(stream(iter([message]), timeout=30, compression=PACKED))
            assert of_call.value.code() is of_stream.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert peak_mb(running) < before_mb + 64
        assert ask(channel, opening("after"))[0].opened.release == 1
