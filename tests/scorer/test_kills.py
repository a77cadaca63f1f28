"""Real processes over loopback: a scorer killed with SIGKILL at random moments and at named steps of its disk, while a
gateway in durable mode sends. Afterwards everything is as if nothing had happened."""

from __future__ import annotations

import dataclasses
import random
import threading
import time
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from nursery import STEPS, Nursery
from presses import MINUTE_US, content
from serving import promote
from wheeltapper.features import KERNELS
from wheeltapper.live import LiveFleet
from wheeltapper.pack import Pack, write_pack
from wheeltapper.registry import Registry
from wheeltapper_gateway import Gateway, Settings
from wheeltapper_gateway.link import Delivery
from wheeltapper_proto import scoring_pb2 as pb
from wheeltapper_proto import scoring_pb2_grpc

T0 = 1_700_000_040 * 1_000_000
SENSORS = ("force", "heat", "oil")
ASSETS = ("a-1", "a-2", "new", "newer")
SCORED = (pb.ROW_STATUS_OK, pb.ROW_STATUS_DUPLICATE)
SETTINGS = Settings(
    batch_rows=8,
    durable=True,
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


class Heard:
    """What a gateway was told: each block's rows as they were cut, and the newest scores of each reading."""

    def __init__(self) -> None:
        self.blocks: dict[int, list[tuple[str, int]]] = {}
        self.newest: dict[tuple[str, int], bytes] = {}

    def take(self, delivery: Delivery) -> None:
        scores, width = delivery.scores, len(delivery.columns.outputs)
        rows = list(zip(delivery.assets, scores.times, strict=True))
        if not delivery.revision:
            assert self.blocks.setdefault(scores.sequence, rows) == rows
        for i, row in enumerate(rows):
            if scores.status[i] in SCORED:
                self.newest[row] = array("f", scores.values[i * width : (i + 1) * width]).tobytes()


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


def undisturbed(rows: list, heard: Heard) -> tuple[LiveFleet, dict[tuple[str, int], bytes]]:
    """The same blocks, one after the other, into a fleet of this process."""
    fleet = LiveFleet(Pack.from_bytes(write_pack(content(1)), KERNELS), 1)
    values = {(asset, when): cells for asset, when, cells in rows}
    newest: dict[tuple[str, int], bytes] = {}
    for sequence in sorted(heard.blocks):
        block = heard.blocks[sequence]
        names = [asset for asset, _ in block]
        cells = np.array([values[row] for row in block], np.float32)
        answers = fleet.score(
            "press", fleet.open_assets("press", names), np.array([when for _, when in block]), cells, 2**62
        )
        for part in (answers.revisions, answers):
            for i in range(len(part.rows) if part else 0):
                if part.status[i] in SCORED:
                    asset = ASSETS[[int(r) for r in fleet.open_assets("press", ASSETS)].index(int(part.rows[i]))]
                    newest[asset, int(part.times[i])] = part.values[i].tobytes()
    return fleet, newest


def check_as_if_nothing_had_happened(nursery: Nursery, rows: list, heard: Heard, all_told: bool) -> None:
    """Every reading answered, with the scores of an undisturbed run; one more reading of each asset has the features,
    scores and alarms of that run, so windows and alarms came through bit by bit."""
    sent = [(asset, when) for asset, when, _ in rows]
    assert sorted(heard.blocks) == list(range(1, len(heard.blocks) + 1))
    assert {row for block in heard.blocks.values() for row in block} == set(sent)
    fleet, newest = undisturbed(rows, heard)
    if all_told:
        assert heard.newest == newest
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
    """With one block in flight every answer is told at last; with more, a repeated row may be behind the lateness by
    then: it was taken, and is answered TOO_LATE."""
    rng = random.Random(seed)
    rows, heard = rows_of(rng, minutes=30 * kills), Heard()
    settings = dataclasses.replace(SETTINGS, in_flight_blocks_max=in_flight)
    assert nursery.begin()
    gateway = Gateway(nursery.address, name="plant", asset_class="press", sensors=SENSORS, assets=ASSETS,
                      spool=spool, settings=settings, sink=heard.take)  # fmt: skip
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
    check_as_if_nothing_had_happened(nursery, rows, heard, all_told=in_flight == 1)


def test_a_few_kills_of_the_scorer(nursery: Nursery, tmp_path: Path) -> None:
    kill_scorers(nursery, tmp_path / "spool", seed=1, kills=8, in_flight=1)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("seed", range(10, 15))
def test_two_hundred_kills_of_the_scorer(nursery: Nursery, tmp_path: Path, seed: int) -> None:
    kill_scorers(nursery, tmp_path / "spool", seed, kills=40, in_flight=1 + 7 * (seed % 2))
