"""The real scorer as a process, and clients that speak to it in plain generated stubs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from wheeltapper.registry import Registry
from wheeltapper_command.main import main
from wheeltapper_proto import scoring_pb2 as pb
from wheeltapper_proto import scoring_pb2_grpc

MINUTE_US = 60_000_000
SENSORS = ("force", "heat", "oil")


@dataclass
class Running:
    process: subprocess.Popen[str]
    first_line: str
    log: Path

    @property
    def address(self) -> str:
        return str(json.loads(self.first_line)["listening"])

    def channel(self) -> grpc.Channel:
        return grpc.insecure_channel(self.address)

    def lines(self) -> list[dict[str, Any]]:
        """The log so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def events(self) -> list[str]:
        return [line["event"] for line in self.lines()]

    def wait_for(self, event: str, within_s: float = 20.0) -> dict[str, Any]:
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            found = [line for line in self.lines() if line["event"] == event]
            if found:
                return found[-1]
            time.sleep(0.02)
        raise AssertionError(f"no {event!r} in {self.lines()}")


def serve_words(registry: Path, *more: str) -> list[str]:
    source = ["--registry", str(registry)]
    return [sys.executable, "-m", "wheeltapper_command", "serve", *source, "--listen", "127.0.0.1:0", "--poll-seconds",
            "0.05", "-o", "json", *more]  # fmt: skip


@contextlib.contextmanager
def run_server(registry: Path, *more: str) -> Iterator[Running]:
    log = registry.parent / "serve.log"
    with log.open("w") as stderr:
        words = serve_words(registry, *more)
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        assert process.stdout is not None
        first_line = process.stdout.readline()
        assert "listening" in first_line, (first_line, log.read_text())
        yield Running(process, first_line, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)
        process.stdout.close()


def begin(registry: Registry, *words: str) -> int:
    """The exit code of a server that ends by itself, in this process: starting one costs seconds."""
    bound = threading.Timer(200, os.kill, (os.getpid(), signal.SIGTERM))  # one that serves after all drains and says 0
    bound.start()
    try:
        return main(serve_words(registry.path, *words)[3:])
    finally:
        bound.cancel()


def promote(registry: Registry, number: int) -> None:
    """Production moves to the release, whatever gates and stages say."""
    registry.promote(number, "production", who="a test", why="next", override="a test")


def opening(*assets: str, sensors: Iterable[str] = SENSORS, **more: Any) -> pb.Open:
    fields = {"gateway": "gw", "epoch": 1, "asset_class": "press", "sensors": list(sensors), "asset_ids": assets}
    return pb.Open(**{**fields, **more})


def block(sequence: int, handles: Iterable[int], times: Iterable[int], values: Any, **more: Any) -> pb.ReadingBlock:
    flat = np.asarray(values, np.float32).ravel().tolist()
    return pb.ReadingBlock(sequence=sequence, handles=handles, times=times, values=flat, **more)


def now_us() -> int:
    """A minute on the grid that is over."""
    return (time.time_ns() // 1000 // MINUTE_US - 1) * MINUTE_US


def ask(channel: grpc.Channel, *requests: pb.Open | pb.ReadingBlock | pb.EventBlock) -> list[pb.StreamResponse]:
    """Send all, half-close, and return everything that came back."""
    return list(scoring_pb2_grpc.ScoringStub(channel).StreamScores(map(wrap, requests), timeout=30))


def wrap(request: pb.Open | pb.ReadingBlock | pb.EventBlock) -> pb.StreamRequest:
    field = {pb.Open: "open", pb.ReadingBlock: "readings", pb.EventBlock: "events"}[type(request)]
    return pb.StreamRequest(**{field: request})


def reason(error: grpc.RpcError) -> tuple[grpc.StatusCode, str, float]:
    """Code, ErrorInfo.reason and RetryInfo's seconds of a failed call."""
    status = rpc_status.from_call(error)
    assert status is not None, error
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for detail in status.details:
        detail.Unpack(info) or detail.Unpack(retry)
    assert info.domain == "wheeltapper"
    return error.code(), info.reason, retry.retry_delay.ToNanoseconds() / 1e9


def values_of(scores: pb.ScoreBlock, outputs: int) -> np.ndarray:
    return np.array(scores.values, np.float32).reshape(-1, outputs)
