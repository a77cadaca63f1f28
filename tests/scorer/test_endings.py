"""How a server ends, and how its streams do: told to stop, with slow, deaf and broken gateways."""

from __future__ import annotations

import signal
import socket
import struct
import time

import grpc
import numpy as np
import pytest
from conversation import NOT_SERVING, Conversation, health, numbers, refused
from serving import MINUTE_US, Running, ask, block, now_us, opening, run_server


def test_sigterm_drains(registry, tmp_path):
    """Health drops, streams are told, what they sent is answered, nothing new begins, and the process ends with 0."""
    ready_file = tmp_path / "ready"
    with run_server(registry.path, "--ready-file", str(ready_file)) as server, server.channel() as channel:
        assert ready_file.read_text() == server.address + "\n"
        stream, idle = Conversation(channel), Conversation(channel)
        assert stream.ask(opening("x")).opened.release == 1
        assert idle.ask(opening("y", gateway="idle")).opened.release == 1
        server.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        for one in (stream, idle):
            assert one.hear().drain.reason
        assert health(channel) == NOT_SERVING
        assert refused(lambda: ask(channel, opening("z")))[:2] == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        times = [now_us() - (10 - i) * MINUTE_US for i in range(10)]
        for i in range(10):
            stream.say(block(i, [0], [times[i]], numbers(10)[i]))
        answers = stream.half_close()
        assert [answer.scores.sequence for answer in answers] == list(range(10))
        assert stream.call.code() is grpc.StatusCode.OK
        assert idle.half_close() == []
        assert server.process.wait(20) == 0
        assert time.monotonic() - began < 10
        assert not ready_file.exists()
        assert server.events()[-2:] == ["draining", "stopped"]
        assert server.lines()[-1]["rows_ok"] == 10
        assert server.lines()[-1]["faults"] == 0


def test_a_drain_waits_its_turn_behind_an_answer(registry):
    """A slow reader: the answer being written fills its window when the drain comes; both arrive whole."""
    rows, blocks = 2_000, 40
    with run_server(registry.path) as server, server.channel() as channel:
        stream = Conversation(channel)
        stream.ask(opening("x", want_features=True))
        start = now_us() - 2 * rows * blocks * MINUTE_US
        for i in range(blocks):
            times = start + MINUTE_US * (i * rows + np.arange(rows))
            stream.say(block(i, [0] * rows, times.tolist(), np.full((rows, 3), 50)))
        time.sleep(1.0)
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("draining")
        answers = stream.half_close()
        assert [a.scores.sequence for a in answers if a.WhichOneof("body") == "scores"] == list(range(blocks))
        assert sum(a.WhichOneof("body") == "drain" for a in answers) == 1
        assert server.process.wait(20) == 0
        assert server.lines()[-1]["faults"] == 0, server.lines()


def test_a_gateway_that_does_not_listen_cannot_hold_the_process(registry):
    with run_server(registry.path, "--drain-seconds", "0.5") as server, server.channel() as channel:
        stream = Conversation(channel)
        stream.ask(opening("x"))
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        assert server.wait_for("cut off")["streams"] == 1
        assert stream.hear().drain.reason
        with pytest.raises(grpc.RpcError):
            stream.hear()


def test_a_connection_that_breaks_leaves_nothing_behind(running: Running):
    for _ in range(3):
        with running.channel() as channel:
            stream = Conversation(channel)
            stream.ask(opening("x"))
            for i in range(50):
                stream.say(block(i, [0], [now_us()], (1, 2, 3)))
    host, port = running.address.split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(struct.pack("<64s", b"GET / HTTP/1.1\r\n\r\n"))
    with running.channel() as channel:
        assert ask(channel, opening("x"))[0].opened.release == 1
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(20) == 0
    assert running.lines()[-1]["faults"] == 0, running.lines()
    assert "cut off" not in running.events()
