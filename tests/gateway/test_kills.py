"""A gateway process killed with SIGKILL at random moments and at named steps: what `send` returned from is answered as
in a run that nothing happened to, every reading of it, and told once."""

from __future__ import annotations

import itertools
import json
import random
import signal
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from presses import content
from sender import ASSETS, IN_FLIGHT_BLOCKS_MAX, MINUTE_US, SENSORS, STEPS, Site, row
from serving import Running, promote, run_server
from told import Answer, Row, undisturbed
from wheeltapper.features import KERNELS
from wheeltapper.live import LiveFleet
from wheeltapper.pack import Pack, write_pack
from wheeltapper.registry import Registry
from wheeltapper_proto import scoring_pb2 as pb
from wheeltapper_proto import scoring_pb2_grpc

ROWS = 150  # that a program may send before it is killed
FATES = [(step, after) for step in STEPS for after in (False, True)]


def kill_gateways(folder: Path, seed: int, kills: int) -> None:
    registry = Registry(folder / "registry")
    registry.publish(write_pack(content(1)), who="a test", why="first")
    promote(registry, 1)
    rng = random.Random(seed)
    with run_server(registry.path, "--state", str(folder / "state")) as server:
        site = Site(server.address, folder, seed)
        for kill in range(kills):
            if kill % 2:
                site.begin(ROWS * (kill + 1))
                time.sleep(rng.uniform(0, 0.3))
                site.kill()
                assert site.ended() in (0, -signal.SIGKILL)  # it may have been done
            else:
                step, after = FATES[(kill // 2 + seed) % len(FATES)]
                site.begin(ROWS * (kill + 1), step, rng.randrange(1, STEPS[step]), after)
                assert site.ended() == -signal.SIGKILL, f"no {step!r}"
        site.begin(ROWS * kills)
        assert site.ended() == 0
        site.close()
        judge(server, folder / "heard", seed, ROWS * kills, kills)


def judge(server: Running, heard: Path, seed: int, rows: int, kills: int) -> None:
    """Every reading was sent in one block, or in two where the program was killed before it noted that. Every block was
    answered, with status, scores, features, alarms and revisions of an undisturbed run. One more reading of each asset
    has those too, so the scorer holds each reading, in its place."""
    told = told_once(json.loads(line) for line in heard.read_text().splitlines())
    assert sorted(told) == list(range(1, len(told) + 1))
    answers = [answer for sequence in sorted(told) for answer in told[sequence]]
    blocks = [answer[1] for answer in answers if not answer[0]]
    sent = [reading for block in blocks for reading in block]
    expected = [row(number, seed) for number in range(rows)]
    assert [reading for reading, _ in itertools.groupby(sent)] == [(asset, when) for asset, when, _ in expected]
    assert len(sent) - rows <= kills
    fleet = LiveFleet(Pack.from_bytes(write_pack(content(1)), KERNELS), 1)
    assert answers == undisturbed(fleet, "press", {(asset, when): cells for asset, when, cells in expected}, blocks)
    assert any(answer[0] for answer in answers)  # revisions were among them
    check_windows(server, fleet, max(when for _, when in sent) + MINUTE_US)


def told_once(lines: itertools.chain[object]) -> dict[int, list[Answer]]:
    """By sequence what was told of a block: revisions, then the answer. A program is told a second time what the one
    before it may not have settled when it was killed, and it is told the same."""
    told: dict[int, list[Answer]] = {}
    mine: dict[int, list[Answer]] = {}  # of the program that lives
    cut: list[tuple[int, list[Answer]]] = []  # revisions whose answer a killed program did not live to hear
    newest = 0  # that programs before it were told
    for line in [*lines, "begins"]:
        if line == "begins":
            newest = max(told, default=0)
            cut += [(sequence, answers) for sequence, answers in mine.items() if answers[-1][0]]
            mine = {}
            continue
        revision, sequence, rows, *columns = line
        own = mine.setdefault(sequence, [])
        assert not own or own[-1][0], f"block {sequence} was told twice to one program"
        keys: list[Row] = [(asset, when) for asset, when in rows]
        own.append((revision, keys, *map(bytes.fromhex, columns)))
        if not revision:
            assert told.setdefault(sequence, own) == own, f"block {sequence} was told in another way"
            assert sequence > newest - IN_FLIGHT_BLOCKS_MAX, f"block {sequence} was settled, and told again"
    for sequence, answers in cut:
        assert told[sequence][: len(answers)] == answers
    return told


def check_windows(server: Running, fleet: LiveFleet, when: int) -> None:
    times, cells = [when] * len(ASSETS), np.tile(np.float32([95.0, 50.0, 5.0]), (len(ASSETS), 1))
    places = fleet.open_assets("press", ASSETS)
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
    kill_gateways(tmp_path, seed=1, kills=20)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("seed", range(10, 14))
def test_two_hundred_kills_of_the_gateway(tmp_path: Path, seed: int) -> None:
    kill_gateways(tmp_path, seed, kills=50)
