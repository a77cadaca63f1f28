"""A gateway process killed with SIGKILL at random moments: what `send` returned from reaches the scorer, once."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from presses import content
from sender import ASSETS, MINUTE_US, SENSORS, row
from serving import Running, promote, run_server
from wheeltapper.features import KERNELS
from wheeltapper.live import LiveFleet
from wheeltapper.pack import Pack, write_pack
from wheeltapper.registry import Registry
from wheeltapper_proto import scoring_pb2 as pb
from wheeltapper_proto import scoring_pb2_grpc

SENDER = Path(__file__).parent / "sender.py"


def kill_gateways(folder: Path, seed: int, kills: int) -> None:
    registry = Registry(folder / "registry")
    registry.publish(write_pack(content(1)), who="a test", why="first")
    promote(registry, 1)
    rng, rows = random.Random(seed), 150 * kills
    with run_server(registry.path, "--state", str(folder / "state")) as server:
        words = [sys.executable, str(SENDER), server.address, str(folder / "spool"), str(folder / "note"), str(rows)]
        for _ in range(kills):
            process = subprocess.Popen([*words, str(seed)], stdout=subprocess.PIPE)
            assert process.stdout is not None
            process.stdout.readline()  # it has opened its spool
            time.sleep(rng.uniform(0, 0.3))
            process.kill()
            process.wait()
            process.stdout.close()
        assert subprocess.run([*words, str(seed)], check=False, timeout=120, stdout=subprocess.DEVNULL).returncode == 0
        judge(server, seed, rows)


def judge(server: Running, seed: int, rows: int) -> None:
    """One more reading of each asset has the features, scores and alarms of a run that nothing happened to."""
    fleet = LiveFleet(Pack.from_bytes(write_pack(content(1)), KERNELS), 1)
    places = fleet.open_assets("press", ASSETS)
    for number in range(rows):
        asset, when, values = row(number, seed)
        place = places[ASSETS.index(asset) : ASSETS.index(asset) + 1]
        fleet.score("press", place, np.array([when]), np.array([values], np.float32), 2**62)
    times = [row(rows - 1, seed)[1] + MINUTE_US] * len(ASSETS)
    cells = np.tile(np.float32([95.0, 50.0, 5.0]), (len(ASSETS), 1))
    expected = fleet.score("press", places, np.array(times), cells, 2**62, want_features=True)
    with grpc.insecure_channel(server.address) as channel:
        request = pb.ScoreRequest(
            open=pb.Open(gateway="judge", asset_class="press", sensors=SENSORS, asset_ids=ASSETS, want_features=True),
            readings=pb.ReadingBlock(handles=range(len(ASSETS)), times=times, values=cells.ravel().tolist()),
        )
        found = scoring_pb2_grpc.ScoringStub(channel).Score(request, timeout=20).scores
    assert expected.features is not None
    assert np.array(found.features, np.float32).tobytes() == expected.features.tobytes()
    assert np.array(found.values, np.float32).tobytes() == expected.values.tobytes()
    assert (found.alarms, found.status) == (expected.alarms.tobytes(), expected.status.tobytes())


def test_a_few_kills_of_the_gateway(tmp_path: Path) -> None:
    kill_gateways(tmp_path, seed=1, kills=5)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("seed", range(10, 14))
def test_two_hundred_kills_of_the_gateway(tmp_path: Path, seed: int) -> None:
    kill_gateways(tmp_path, seed, kills=50)
