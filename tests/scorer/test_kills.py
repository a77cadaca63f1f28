"""Real processes over loopback: a scorer killed with SIGKILL at random moments and at named steps of its disk, while a
gateway in durable mode sends. Afterwards everything is as if nothing had happened."""

from __future__ import annotations

import dataclasses
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from nursery import STEPS, Nursery
from presses import MINUTE_US, content
from serving import promote
from told import Told, undisturbed
from wheeltapper.features import KERNELS
from wheeltapper.live import LiveFleet
from wheeltapper.pack import Pack, write_pack
from wheeltapper.registry import Registry
from wheeltapper_gateway import Gateway, Settings
from wheeltapper_proto import scoring_pb2 as pb
from wheeltapper_proto import scoring_pb2_grpc

T0 = 1_700_000_040 * 1_000_000
SENSORS = ("force", "heat", "oil")
ASSETS = ("a-1", "a-2", "new", "newer")
SETTINGS = Settings(
    batch_rows=8,
    durable=True,
    want_features=True,
    backoff_seconds=0.02,
    backoff_seconds_max=0.1,
    live_seconds=3_600,
    answer_timeout_seconds=20,
)


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    registry = Registry(tmp_path / "registry")
    registry.publish(write_pack(content(1)), who="a test", why="first")
    promote(registry, 1)
    made = Nursery(registry.path, tmp_path / "state")
    yield made
    made.close()


def rows_of(rng: random.Random, minutes: int) -> list[tuple[str, int, tuple[float, float, float]]]:
    """Readings in order of arrival, some up to two minutes late, some twice."""
    rows = [(asset, T0 + m * MINUTE_US) for m in range(minutes) for asset in ASSETS]
    rows.sort(key=lambda row: row[1] + (rng.randrange(3) * MINUTE_US if rng.random() < 0.1 else 0))
    values = {row: tuple(float(np.float32(rng.uniform(0, 100))) for _ in SENSORS) for row in rows}
    told = [(*row, values[row]) for row in rows]
    return [row for one in told for row in ((one, one) if rng.random() < 0.02 else (one,))]


def feed(gateway: Gateway, rows: list, pause_s: float) -> None:
    for asset, when, values in rows:
        gateway.send(asset, when, values)
        if pause_s:
            time.sleep(pause_s)


def check_as_if_nothing_had_happened(nursery: Nursery, rows: list, told: Told) -> None:
    """Every block answered once, with status, scores, features, alarms and revisions of an undisturbed run; one more
    reading of each asset has those of that run too, so windows and alarms came through bit by bit."""
    sent = [(asset, when) for asset, when, _ in rows]
    assert told.sequences == list(range(1, len(told.blocks) + 1))
    assert [row for block in told.blocks for row in block] == sent
    fleet = LiveFleet(Pack.from_bytes(write_pack(content(1)), KERNELS), 1)
    readings = {(asset, when): cells for asset, when, cells in rows}
    assert told.answers == undisturbed(fleet, "press", readings, told.blocks)
    last = max(when for _, when in sent) + MINUTE_US
    ids, times = list(ASSETS), [last] * len(ASSETS)
    cells = np.tile(np.float32([95.0, 50.0, 5.0]), (len(ASSETS), 1))
    expected = fleet.score("press", fleet.open_assets("press", ids), np.array(times), cells, 2**62, want_features=True)
    import grpc

    with grpc.insecure_channel(nursery.address) as channel:
        request = pb.ScoreRequest(
            open=pb.Open(gateway="judge", asset_class="press", sensors=SENSORS, asset_ids=ids, want_features=True),
            readings=pb.ReadingBlock(handles=range(len(ids)), times=times, values=cells.ravel().tolist()),
        )
        found = scoring_pb2_grpc.ScoringStub(channel).Score(request, timeout=20).scores
    assert expected.features is not None
    assert np.array(found.features, np.float32).tobytes() == expected.features.tobytes()
    assert np.array(found.values, np.float32).tobytes() == expected.values.tobytes()
    assert found.alarms == expected.alarms.tobytes()
    assert found.status == expected.status.tobytes()


def kill_scorers(nursery: Nursery, spool: Path, seed: int, kills: int, in_flight: int) -> None:
    rng = random.Random(seed)
    rows, told = rows_of(rng, minutes=30 * kills), Told()
    settings = dataclasses.replace(SETTINGS, in_flight_blocks_max=in_flight)
    assert nursery.begin()
    gateway = Gateway(nursery.address, name="plant", asset_class="press", sensors=SENSORS, assets=ASSETS,
                      spool=spool, settings=settings, sink=told.take)  # fmt: skip
    with gateway:
        feeder = threading.Thread(target=feed, args=(gateway, rows, 0.001), daemon=True)
        feeder.start()
        for kill in range(kills):
            time.sleep(rng.uniform(0.02, 0.25))
            if kill % 2:
                step = STEPS[kill // 2 % len(STEPS)]
                nursery.begin(step, rng.randrange(1, 20 if step in ("append", "sync") else 3), rng.random() < 0.5)
            else:
                nursery.begin()
        feeder.join()
        nursery.begin()
        assert gateway.flush(60), gateway.failure
        counters = gateway.counters
    assert counters.reconnects > 0
    check_as_if_nothing_had_happened(nursery, rows, told)


def test_a_few_kills_of_the_scorer(nursery: Nursery, tmp_path: Path) -> None:
    kill_scorers(nursery, tmp_path / "spool", seed=1, kills=8, in_flight=8)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("seed", range(10, 15))
def test_two_hundred_kills_of_the_scorer(nursery: Nursery, tmp_path: Path, seed: int) -> None:
    kill_scorers(nursery, tmp_path / "spool", seed, kills=40, in_flight=1 + 7 * (seed % 2))
