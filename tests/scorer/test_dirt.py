"""Dirty data on the real server: every kind has a typed answer and a counter, and leaves nothing behind in a window.

Beside each dirty asset a clean one gets the same good readings. Once a window has passed since the dirt, both must have
the same features, bit for bit.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
from conversation import Conversation
from grpc_health.v1 import health_pb2, health_pb2_grpc
from presses import content
from prometheus_client.parser import text_string_to_metric_families
from serving import MINUTE_US, Running, ask, block, now_us, opening, run_server
from wheeltapper.pack import write_pack
from wheeltapper.registry import Registry
from wheeltapper_proto import scoring_pb2 as pb

NAN, INF = math.nan, math.inf
BEFORE, AFTER = 10, 12  # clean readings before the dirt and after it: more than the window of 8 and the lateness of 3
HOUR = 60


@dataclass(frozen=True)
class Dirt:
    """A row at `minute` of the asset's timeline (the latest clean reading before it is at BEFORE − 1)."""

    name: str
    status: str
    minute: float = BEFORE
    values: tuple[float, ...] = (50, 2, 3)
    health: str = ""
    handle: int = 0
    skipped: int = -1  # a minute without a clean reading


CLOCK = 40  # the timeline begins so many minutes ago: it ends before now
MATRIX = [
    Dirt("nan", "ok", values=(NAN, 2, 3), health="missing"),
    Dirt("all_nan", "ok", values=(NAN, NAN, NAN), health="missing"),
    Dirt("inf", "ok", values=(50, INF, 3), health="not_finite"),
    Dirt("minus_inf", "ok", values=(50, 2, -INF), health="not_finite"),
    Dirt("subnormal", "ok", values=(1e-40, -1e-45, 3)),
    Dirt("huge", "ok", values=(50, 3.4e38, -3.4e38)),
    Dirt("out_of_range", "ok", values=(101, 2, 3), health="out_of_range"),
    Dirt("out_of_order", "ok", minute=BEFORE - 2, health="late", skipped=BEFORE - 2),
    Dirt("duplicate", "duplicate", minute=BEFORE - 1),
    Dirt("late", "too_late", minute=-5),
    Dirt("clock_behind", "too_late", minute=BEFORE - HOUR),
    Dirt("clock_ahead", "future", minute=CLOCK + HOUR),
    Dirt("end_of_time", "future", minute=(2**63 - 1) / MINUTE_US - 1e9),
    Dirt("before_time", "too_late", minute=-(2**62) / MINUTE_US),
    Dirt("unknown_asset", "unknown_handle", handle=7),
    Dirt("wrong_sensor_count", "wrong_width", values=(50, 2)),
    Dirt("too_many_sensors", "wrong_width", values=(50, 2, 3, 4)),
]


@dataclass
class Plant:
    server: Running
    registry: Registry
    metrics: str

    def counted(self) -> dict[str, float]:
        """Every sample of the metrics page, by name and labels."""
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=10) as page:
            text = page.read().decode()
        families = text_string_to_metric_families(text)
        return {f"{s.name}{sorted(s.labels.items())}": s.value for family in families for s in family.samples}


def rows(status: str) -> str:
    return f"wheeltapper_scorer_rows_total[('status', '{status}')]"


def unhealthy(health: str) -> str:
    return f"wheeltapper_scorer_unhealthy_rows_total[('health', '{health}')]"


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """Presses that never stood still in training, so that stillness is a fault."""
    folder: Path = tmp_path_factory.mktemp("plant")
    made = content(1)
    lively = dataclasses.replace(made.classes[0], sketch=np.ones((len(made.classes[0].golden_rows[0]), 17), np.float32))
    registry = Registry(folder / "registry")
    registry.publish(write_pack(dataclasses.replace(made, classes=(lively,))), who="a test", why="first")
    registry.promote(1, "production", who="a test", why="first", override="a test")
    with run_server(registry.path, "--metrics", "127.0.0.1:0", "--silent-seconds", "1") as server:
        yield Plant(server, registry, str(server.wait_for("metrics")["address"]))


def clean(minute: int) -> tuple[float, float, float]:
    return (50 + 7 * math.sin(minute), 2 + minute % 5, 3 - 0.1 * minute)


class Twins:
    """Two assets, "dirty" (handle 0) and "clean" (handle 1), that get the same good readings at the same minutes."""

    def __init__(self, channel: grpc.Channel, name: str) -> None:
        self.stream = Conversation(channel)
        self.stream.ask(opening(f"{name}-dirty", f"{name}-clean", gateway=name, want_features=True))
        self.start = now_us() - CLOCK * MINUTE_US
        self._sequence = itertools.count(1)

    def at(self, minute: float) -> int:
        return max(-(2**63), min(2**63 - 1, self.start + round(minute * MINUTE_US)))

    def send(self, handles: list[int], minutes: list[float], values: object) -> pb.ScoreBlock:
        request = block(next(self._sequence), handles, [self.at(minute) for minute in minutes], values)
        self.stream.say(request)
        while True:
            heard = self.stream.hear()
            if heard.WhichOneof("body") == "scores":
                return heard.scores

    def both(self, minute: int) -> bool:
        """The same good reading for both; whether their features are the same."""
        scores = self.send([0, 1], [minute, minute], [clean(minute), clean(minute)])
        assert list(scores.status) == [pb.ROW_STATUS_OK] * 2
        features = np.array(scores.features, np.float32).reshape(2, -1)
        return features[0].tobytes() == features[1].tobytes()


@pytest.mark.parametrize("dirt", MATRIX, ids=lambda dirt: dirt.name)
def test_dirt_is_answered_and_counted_and_leaves_nothing_behind(plant: Plant, dirt: Dirt) -> None:
    with plant.server.channel() as channel:
        twins = Twins(channel, dirt.name)
        assert all(twins.both(minute) for minute in range(BEFORE) if minute != dirt.skipped)
        before = plant.counted()
        scores = twins.send([dirt.handle], [dirt.minute], dirt.values)
        assert [pb.RowStatus.Name(status).lower() for status in scores.status] == [f"row_status_{dirt.status}"]
        known = {name.removeprefix("HEALTH_").lower(): bit for name, bit in pb.Health.items() if bit}
        assert not dirt.health or scores.health[0] & known[dirt.health]
        after = plant.counted()
        assert after[rows(dirt.status)] == before[rows(dirt.status)] + 1
        assert not dirt.health or after[unhealthy(dirt.health)] > before[unhealthy(dirt.health)]
        same = [twins.both(minute) for minute in range(BEFORE + 1, BEFORE + 1 + AFTER)]
        assert all(same[8:]), same
        if dirt.status != "ok":
            assert all(same), "a row that was refused must not touch the window at all"
        assert twins.stream.half_close() == []


@pytest.mark.parametrize("dirt", [dirt for dirt in MATRIX if dirt.status != "wrong_width"], ids=lambda dirt: dirt.name)
def test_a_bad_row_never_fails_its_block(plant: Plant, dirt: Dirt) -> None:
    with plant.server.channel() as channel:
        twins = Twins(channel, f"{dirt.name}-block")
        for minute in range(BEFORE):
            twins.both(minute)
        handles, minutes = [1, dirt.handle, 1], [BEFORE, dirt.minute, BEFORE + 1]
        scores = twins.send(handles, minutes, [clean(BEFORE), dirt.values, clean(BEFORE + 1)])
        assert [scores.status[0], scores.status[2]] == [pb.ROW_STATUS_OK] * 2
        assert len(scores.status) == 3
        values = np.array(scores.values, np.float32).reshape(3, -1)
        assert not np.isnan(values[[0, 2]]).any()


def test_a_stuck_sensor_is_told(plant: Plant) -> None:
    with plant.server.channel() as channel:
        twins = Twins(channel, "stuck")
        before = plant.counted()
        healths = [twins.send([0], [minute], clean(3)).health[0] & pb.HEALTH_STUCK for minute in range(9)]
        assert (healths[0], bool(healths[-1])) == (0, True)
        assert plant.counted()[unhealthy("stuck")] >= before[unhealthy("stuck")] + 1
        for minute in range(9):
            twins.send([1], [minute], clean(minute))
        assert all([twins.both(minute) for minute in range(9, 9 + AFTER)][8:])


def test_a_silent_asset_turns_stale_and_comes_back(plant: Plant) -> None:
    """Cadence 1 min, silent after 5 slots: a reading of now is fresh, one of ten minutes ago is not."""
    silent = "wheeltapper_scorer_assets_silent[('asset_class', 'press')]"
    with plant.server.channel() as channel:
        health = health_pb2_grpc.HealthStub(channel)

        def state(asset: str) -> int:
            return health.Check(health_pb2.HealthCheckRequest(service=f"asset:press/{asset}"), timeout=10).status

        serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        began = plant.counted()[silent]
        stream = Conversation(channel)
        stream.ask(opening("quiet", "mute", gateway="silence"))
        assert (state("quiet"), state("mute")) == (not_serving, not_serving)  # opened, and nothing heard yet
        assert plant.counted()[silent] == began + 2
        stream.ask(block(1, [0, 1], [now_us() - 10 * MINUTE_US] * 2, [(1, 2, 3)] * 2))
        assert (state("quiet"), plant.counted()[silent]) == (not_serving, began + 2)
        stream.ask(block(2, [0], [now_us()], (1, 2, 3)))
        assert (state("quiet"), state("mute"), plant.counted()[silent]) == (serving, not_serving, began + 1)
        with pytest.raises(grpc.RpcError) as caught:
            state("never-opened")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("subject", [("asset", "kill-dirty"), ("class", "press"), ("fleet", "")])
def test_the_kill_switch_silences_and_forgets_nothing(plant: Plant, subject: tuple[str, str]) -> None:
    """Off: answered as blocked, without scores, alarms or revisions. On again: as if nothing had been."""
    health_request = health_pb2.HealthCheckRequest(service="asset:press/kill-dirty")
    words = {"who": "a test", "why": "smoke"}
    with plant.server.channel() as channel:
        twins = Twins(channel, "kill")
        twins.start += {"asset": 0, "class": 12, "fleet": 24}[subject[0]] * MINUTE_US
        for minute in range(4):
            assert twins.both(minute)
        blocked = plant.counted()[rows("blocked")]
        plant.registry.switch(*subject, on=False, **words)
        wait(lambda: plant.counted()["wheeltapper_scorer_assets_blocked[('asset_class', 'press')]"] > 0)
        scores = twins.send([0, 1], [4, 4], [clean(4), clean(4)])
        expected = [pb.ROW_STATUS_BLOCKED, pb.ROW_STATUS_OK if subject[0] == "asset" else pb.ROW_STATUS_BLOCKED]
        assert list(scores.status) == expected
        assert np.isnan(np.array(scores.values, np.float32).reshape(2, -1)[0]).all()
        assert not any(scores.levels[:2] + scores.alarms[:2])
        assert plant.counted()[rows("blocked")] == blocked + expected.count(pb.ROW_STATUS_BLOCKED)
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_request, timeout=10).status == health_pb2.HealthCheckResponse.NOT_SERVING
        plant.registry.switch(*subject, on=True, **words)
        wait(lambda: plant.counted()["wheeltapper_scorer_assets_blocked[('asset_class', 'press')]"] == 0)
        assert twins.both(5), "the window went on while the asset was off"


def test_metadata_beyond_its_limit_is_refused(plant: Plant) -> None:
    with plant.server.channel() as channel:
        call = channel.unary_unary("/wheeltapper.v1.Scoring/Score")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", metadata=[("much", "x" * 32 * 1024)], timeout=10)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert ask(channel, opening("after"))[0].opened.release == 1


def wait(condition: object, within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_every_metric_is_documented_and_none_has_an_asset(plant: Plant) -> None:
    """docs/metrics.md names what the page shows, and the page shows what docs/metrics.md names."""
    with plant.server.channel() as channel, pytest.raises(grpc.RpcError):
        ask(channel, opening("x", sensors=["noise"]))
    with urllib.request.urlopen(f"http://{plant.metrics}/metrics", timeout=10) as page:
        families = list(text_string_to_metric_families(page.read().decode()))
    own = {family.name: family for family in families if family.name.startswith("wheeltapper_")}
    root = Path(__file__).parents[2]
    told = (root / "docs" / "metrics.md").read_text()
    named = {
        line.split("`")[1].removesuffix("_total") for line in told.splitlines() if line.startswith("| `wheeltapper_")
    }
    assert named == set(own)
    assert not {label for family in own.values() for sample in family.samples for label in sample.labels} - {
        "status", "health", "reason", "result", "asset_class", "le",
    }  # fmt: skip
    assert "wheeltapper_scorer_refused_total[('reason', 'UNKNOWN_SENSOR')]" in plant.counted()
    for file in ("deploy/prometheus-alerts.yml", "deploy/grafana-scorer.json"):
        words = (
            (root / file).read_text().replace('"', " ").replace("(", " ").replace("[", " ").replace("{", " ").split()
        )
        for word in words:
            if word.startswith("wheeltapper_scorer_"):
                base = word.rstrip(",)").removesuffix("_total").removesuffix("_bucket")
                assert base in own, (file, word)
