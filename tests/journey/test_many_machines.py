"""Training on a Ray cluster of several machines: two raylets on loopback, a token at the door, one of them killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trips
from processes import Marked

_RAY = (sys.executable, "-m", "ray.scripts.scripts")
_STORE_BYTES = 100 * 2**20


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass
class Nodes:
    """A head and a worker node, each with one core."""

    folder: Path
    address: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    nodes: list[Marked] = field(default_factory=list)

    def start(self, name: str, *words: str) -> Marked:
        """Start a node and wait until it says that it runs."""
        line = (*_RAY, "start", "--block", "--num-cpus=1", f"--object-store-memory={_STORE_BYTES}", *words)
        log = self.folder / f"{name}.log"
        node = Marked(f"{self.folder.name}-{name}", command=line, environment=self.environment, log=log)
        self.nodes.append(node)
        node.wait_until(lambda: "Ray runtime started" in log.read_text(), 120)
        return node


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    folder = tmp_path_factory.mktemp("nodes")
    (folder / "token").write_text("a-token-of-at-least-thirty-two-characters")
    found = Nodes(folder)
    found.environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_health_check_period_ms": "500",
        "RAY_health_check_failure_threshold": "4",
    }
    port = free_port()
    short = Path(tempfile.mkdtemp(prefix="ray-"))  # Ray's sockets live below it, and their paths must be short
    found.address = f"127.0.0.1:{port}"
    try:
        head = ("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={short}")
        found.start("head", *head, "--node-ip-address=127.0.0.1")
        yield found
    finally:
        for node in found.nodes:
            node.sweep()
            node.process.wait(timeout=30)
        shutil.rmtree(short, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_cluster_trains_the_same_pack_though_a_node_dies(nodes: Nodes, tmp_path: Path) -> None:
    history = tmp_path / "history"
    trips.wheeltapper("simulate", history, "--assets", 24, "--days", 100, "--seed", 5)
    trips.lighter(history / "fleet.toml", rounds=120)
    words = ("train", history / "fleet.toml", "--history", history)
    alone = trips.wheeltapper(*words, "--registry", tmp_path / "alone", "--cpus", 2, seconds=300)

    second = nodes.start("second", f"--address={nodes.address}")
    run = tmp_path / "run"
    far = Marked(
        tmp_path.name,
        *words, "--registry", tmp_path / "far", "--run-dir", run, "--ray-address", nodes.address,
        environment=nodes.environment,
    )  # fmt: skip
    try:
        far.wait_until(lambda: bool(second.alive("ray::fit_class") or second.alive("ray::train_chunk")))
        for pid in second.alive():
            os.kill(pid, signal.SIGKILL)
        said, log = far.process.communicate(timeout=300)
        assert far.process.returncode == 0, log
    finally:
        far.sweep()
    result = json.loads(said)
    assert result["assets_failed"] == 0
    assert result["pack"] == alone["pack"]


@pytest.mark.slow
def test_without_the_token_nobody_trains(nodes: Nodes, tmp_path: Path) -> None:
    history = tmp_path / "history"
    trips.wheeltapper("simulate", history, "--assets", 8, "--days", 100, "--seed", 5)
    begin = time.monotonic()
    words = ("train", history / "fleet.toml", "--history", history, "--registry", tmp_path / "registry")
    line = [*trips.WHEELTAPPER, *map(str, words), "--ray-address", nodes.address, "--quiet"]
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "another-token-of-thirty-two-characters"}
    done = subprocess.run(line, capture_output=True, text=True, timeout=200, check=False, env=environment)
    assert done.returncode == 1
    assert f"Ray did not start at {nodes.address}" in done.stderr
    assert time.monotonic() - begin < 150
    assert not (tmp_path / "registry").exists()
