"""SIGTERM with many durable streams in full flow: last Acks, half-close, exit in time, and nothing of it lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from serving import MINUTE_US, now_us, opening, run_server, wrap
from serving import block as block_of
from wheeltapper.registry import Registry
from wheeltapper_proto import scoring_pb2 as pb
from wheeltapper_proto import scoring_pb2_grpc
from wheeltapper_scorer.aside import aside

EXIT_SECONDS_MAX = 20.0


class Talker:
    """A gateway that sends a block whenever the last is answered, until it is asked to go."""

    def __init__(self, number: int, channel: grpc.aio.Channel) -> None:
        self.name = f"gw-{number}"
        self.sent = self.answered = self.acked = 0
        self._channel = channel

    def opening(self) -> pb.Open:
        return opening(f"asset-{self.name}", gateway=self.name, ack=pb.ACK_LEVEL_DURABLE)

    async def talk(self, begun: asyncio.Semaphore, start_us: int) -> None:
        call = scoring_pb2_grpc.ScoringStub(self._channel).StreamScores()
        await call.write(wrap(self.opening()))
        draining = False
        while (response := await call.read()) is not grpc.aio.EOF:
            if response.HasField("ack"):
                if not self.acked:
                    begun.release()
                self.acked = response.ack.sequence
            if response.HasField("drain"):
                draining = True
                await call.done_writing()
            if response.HasField("scores"):
                self.answered = response.scores.sequence
            if not draining and not response.HasField("ack"):
                self.sent += 1
                when = start_us + self.sent * MINUTE_US
                await call.write(wrap(block_of(self.sent, [0], [when], (50, 1, 1))))
        assert await call.code() is grpc.StatusCode.OK


async def talk_until_drained(address: str, streams: int, stop) -> list[Talker]:
    channels = [grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) for _ in range(10)]
    talkers = [Talker(i, channels[i % 10]) for i in range(streams)]
    begun, start_us = asyncio.Semaphore(0), now_us() - 100_000 * MINUTE_US
    tasks = [asyncio.create_task(talker.talk(begun, start_us)) for talker in talkers]
    for _ in range(streams):
        await begun.acquire()
    stop()
    await asyncio.gather(*tasks)
    for channel in channels:
        await channel.close()
    return talkers


async def resume_points(address: str, talkers: list[Talker]) -> list[int]:
    async with grpc.aio.insecure_channel(address) as channel:
        points = []
        for talker in talkers:
            call = scoring_pb2_grpc.ScoringStub(channel).StreamScores()
            await call.write(wrap(talker.opening()))
            await call.done_writing()
            points.append((await call.read()).opened.resume_sequence)
        return points


def drain(registry: Registry, state: Path, streams: int) -> float:
    words = ("--state", str(state), "--streams-max", str(streams + 10))
    with run_server(registry.path, *words) as server:
        told = 0.0

        def stop() -> None:
            nonlocal told
            told = time.monotonic()
            server.process.send_signal(signal.SIGTERM)

        talkers = asyncio.run(talk_until_drained(server.address, streams, stop))
        assert server.process.wait(EXIT_SECONDS_MAX) == 0
        took = time.monotonic() - told
        assert "cut off" not in server.events()
        assert server.lines()[-1]["faults"] == 0, server.lines()[-1]
    assert took < EXIT_SECONDS_MAX
    assert all(talker.sent == talker.answered == talker.acked for talker in talkers)
    with run_server(registry.path, *words) as server:
        points = asyncio.run(resume_points(server.address, talkers))
    assert points == [talker.acked for talker in talkers]
    return took


def test_fifty_streams_are_drained(registry: Registry, tmp_path: Path) -> None:
    drain(registry, tmp_path / "state", 50)


@pytest.mark.slow
def test_a_thousand_streams_are_drained(registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    took_s = drain(registry, tmp_path / "state", 1_000)
    with capsys.disabled():
        print(f"\n1,000 streams drained in {took_s:.1f} s")


@contextlib.contextmanager
def deaf(address: str, path: str, message: bytes) -> Iterator[None]:
    """A caller who says one thing and has no room for an answer: an HTTP/2 window of no bytes."""

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload

    def header(name: str, value: str) -> bytes:
        return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()

    method, who = header(":method", "POST"), header(":scheme", "http") + header(":authority", address)
    kind = header("content-type", "application/grpc") + header("te", "trailers")
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port))) as line:
        line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, struct.pack(">HI", 4, 0)))
        line.sendall(frame(1, 4, 1, method + who + header(":path", path) + kind))
        line.sendall(frame(0, 0, 1, b"\0" + struct.pack(">I", len(message)) + message))
        yield


def test_sigterm_is_obeyed_beside_who_does_not_read(registry: Registry) -> None:
    watch, speak = "/grpc.health.v1.Health/Watch", "/wheeltapper.v1.Scoring/StreamScores"
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(run_server(registry.path, "--drain-seconds", "1"))
        stack.enter_context(deaf(server.address, watch, b""))
        stack.enter_context(deaf(server.address, speak, wrap(opening("a-1")).SerializeToString()))
        deadline = time.monotonic() + 20
        while "opened" not in server.events():
            assert time.monotonic() < deadline, "the scorer has not heard who does not read"
            time.sleep(0.02)
        with server.channel() as channel:
            other = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=20)
            assert next(other).status == health_pb2.HealthCheckResponse.SERVING
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            assert next(other).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert server.process.wait(EXIT_SECONDS_MAX) == 0
        assert time.monotonic() - began < EXIT_SECONDS_MAX


def test_the_end_does_not_wait_for_a_file_that_hangs(tmp_path: Path) -> None:
    """As a registry does on a network disk that is gone: here a pipe that nobody writes to."""
    os.mkfifo(tmp_path / "hangs")
    program = """if True:
        import asyncio, sys
        from pathlib import Path
        from wheeltapper_scorer.aside import aside

        async def main():
            look = asyncio.create_task(aside(Path(sys.argv[1]).read_bytes))
            await asyncio.sleep(0.1)
            look.cancel()

        asyncio.run(main())
    """
    subprocess.run([sys.executable, "-c", program, tmp_path / "hangs"], check=True, timeout=60)


def test_what_is_done_aside_cannot_end_the_loop_that_waits_for_it() -> None:
    async def look() -> None:
        await aside(sys.exit, 3)

    with pytest.raises(RuntimeError, match="SystemExit"):
        asyncio.run(look())


def test_a_disk_that_hangs_cannot_keep_a_scorer_from_ending(tmp_path: Path, packs: dict[str, bytes]) -> None:
    """It hangs while a start makes safe what it has read; then a log that nobody reads hangs as well."""
    (tmp_path / "press.pack").write_bytes(packs["first"])
    program = """if True:
        import sys, time
        from pathlib import Path
        from wheeltapper_scorer import logs, server
        from wheeltapper_scorer.disk import Folder
        from wheeltapper_scorer.reload import PackFile
        from wheeltapper_scorer.settings import Settings

        class Hanging(Folder):
            def sync(self, name):
                print("hangs", flush=True)
                time.sleep(1_000)

        server._LAST_S = 1.0
        logs.to_stderr()
        folder = Path(sys.argv[1])
        disk = Hanging(folder / "state")
        (disk.path / "segment-000000000001.journal").write_bytes(b"torn")
        settings = Settings(listen="127.0.0.1:0", state=disk.path)
        server.serve(settings, PackFile(folder / "press.pack"), lambda *_: None, disk)
    """
    words = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == b"hangs\n"
            with contextlib.suppress(BlockingIOError):  # until the pipe of its log is full
                log = os.open(f"/proc/{process.pid}/fd/2", os.O_WRONLY | os.O_NONBLOCK)
                while True:
                    os.write(log, bytes(4_096))
            os.close(log)
            process.send_signal(signal.SIGTERM)
            assert process.wait(EXIT_SECONDS_MAX) == 1
        finally:
            process.kill()
