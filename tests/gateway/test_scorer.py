"""A gateway against the real scorer, a process of its own: no skew, and a restart in the middle."""

from __future__ import annotations

import shutil
import signal
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from presses import MINUTE_US, content
from serving import Running, promote, run_server
from wheeltapper.features import KERNELS
from wheeltapper.live import LiveFleet
from wheeltapper.pack import Pack, open_pack, write_pack
from wheeltapper.registry import Registry
from wheeltapper_command.errors import Refused
from wheeltapper_command.progress import Progress
from wheeltapper_gateway import Answer, Gateway, Settings
from wheeltapper_gateway.disorder import Disorder
from wheeltapper_gateway.replay import Plan, open_history, replay
from wheeltapper_trainer.offline import Order, score_history

T0 = 1_700_000_000_000_000 // MINUTE_US * MINUTE_US
SENSORS = ("heat", "force", "oil")  # not the order of the class
ASSETS = ("a-1", "a-2", "new")
ROWS = 60


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    made = Registry(tmp_path_factory.mktemp("scorer") / "registry")
    made.publish(write_pack(content(1)), who="a test", why="first")
    promote(made, 1)
    return made


@pytest.fixture(scope="module")
def scorer_process(registry: Registry) -> Iterator[Running]:
    with run_server(registry.path) as running:
        yield running


def readings(seed: int) -> np.ndarray:
    """float32 [assets × rows, 3]: some missing, infinite, out of range."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(0, 90, (len(ASSETS) * ROWS, 3)).astype(np.float32)
    values[rng.random(values.shape) < 0.1] = np.nan
    values[7, 0], values[9, 1] = np.inf, 1e6
    return values


def write_history(folder: Path, prefix: str, values: np.ndarray) -> Path:
    (folder / "readings").mkdir(parents=True)
    ids = np.repeat([prefix + asset for asset in ASSETS], ROWS)
    times = pa.array(np.tile(T0 + np.arange(ROWS) * MINUTE_US, len(ASSETS))).cast(pa.timestamp("us", "UTC"))
    columns = {
        "asset_id": pa.array(ids),
        "time": times,
        **{name: pa.array(values[:, i]) for i, name in enumerate(SENSORS)},
    }
    pq.write_table(pa.table({**columns, "spare": pa.array(values[:, 0])}), folder / "readings" / "press-00000.parquet")
    classes = {"asset_id": [prefix + asset for asset in ASSETS], "asset_class": ["press"] * 3}
    pq.write_table(pa.table({**classes, "age": [1.0, 2.0, 4.0], "price": [1.0, 2.0, 3.0]}), folder / "assets.parquet")
    events = {"asset_id": [prefix + "a-1"] * 2, "time": [T0 + 5 * MINUTE_US, T0 + 9 * MINUTE_US]}
    kinds = {"kind": ["error", "failure"], "code": ["e1", "bearing"]}
    stamps = pa.array(events["time"]).cast(pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({**events, "time": stamps, **kinds}), folder / "events.parquet")
    return folder


def offline(values: np.ndarray, prefix: str) -> tuple[np.ndarray, np.ndarray]:
    """The same readings, in order, one asset after the other, without a network: scores and features."""
    fleet = LiveFleet(Pack.from_bytes(write_pack(content(1)), KERNELS), 1)
    statics = np.array([[1.0], [2.0], [4.0]], np.float32)
    rows = fleet.open_assets("press", [prefix + asset for asset in ASSETS], statics)
    own = values[:, [SENSORS.index(sensor.name) for sensor in fleet.spec("press").sensors]]
    times = T0 + np.arange(ROWS) * MINUTE_US
    code = fleet.event_code("press", "error:e1")
    fleet.take_events("press", rows[:1], times[5:6], np.array([code], np.int32), 2**62)
    parts = [
        fleet.score("press", np.full(ROWS, row), times, own[i * ROWS : (i + 1) * ROWS], 2**62, want_features=True)
        for i, row in enumerate(rows)
    ]
    features = [part.features for part in parts if part.features is not None]
    return np.concatenate([part.values for part in parts]), np.concatenate(features)


@pytest.mark.parametrize(
    ("prefix", "disorder"),
    [
        ("", Disorder()),
        ("late ", Disorder(late_us=3 * MINUTE_US, duplicate_share=0.3, seed=1)),
        ("rows ", Disorder(late_rows=3, duplicate_share=1.0, seed=2)),
    ],
)
def test_streamed_equals_offline_bit_for_bit(
    scorer_process: Running, tmp_path: Path, prefix: str, disorder: Disorder
) -> None:
    values = readings(len(prefix))
    source = open_history(str(write_history(tmp_path / "h", prefix, values)))
    plan = Plan(scorer_process.address, batch_rows=7, want_features=True, disorder=disorder)
    report = replay(source, plan, Progress(quiet=True))
    assert report.as_dict()["statuses"] == {"OK": len(ASSETS) * ROWS}
    assert (report.events_sent, report.refused_events) == (2, 0)
    scores, features = offline(values, prefix)
    outputs = [name for name in report.table if name.startswith("score:")]
    names = [name for name in report.table if name.startswith("feature:")]
    assert (len(outputs), len(names)) == (scores.shape[1], features.shape[1])
    for found, expected in ((outputs, scores), (names, features)):
        for i, name in enumerate(found):
            column = np.array(report.table[name], np.float32)
            assert column.tobytes() == np.ascontiguousarray(expected[:, i]).tobytes(), name
    assert report.revisions > 0 or not disorder


def test_streamed_reasons_are_those_of_scoring_offline(
    scorer_process: Running, registry: Registry, tmp_path: Path
) -> None:
    folder = str(write_history(tmp_path / "h", "why ", readings(5)))
    plan = Plan(scorer_process.address, batch_rows=7, reasons=2, reasons_always=True)
    report = replay(open_history(folder), plan, Progress(quiet=True))
    order = Order(folder, tmp_path / "offline.parquet", reasons=2, reasons_always=True)
    score_history(order, open_pack(registry.resolve("production").pack_path), 1, Progress(quiet=True))
    expected = pq.read_table(order.out)
    for output in ("failure", "anomaly"):
        told = report.table[f"reasons:{output}"]
        assert told == expected.column(f"reasons:{output}").to_pylist()
        assert sum(text != "" for text in told) > ROWS
    assert not [name for name in report.table if name.startswith("feature:")]


def test_the_ten_lines_against_the_real_scorer(scorer_process: Running) -> None:
    with Gateway(
        scorer_process.address, name="plant-1", asset_class="press", sensors=["force", "oil"], assets=["p-1"]
    ) as gateway:
        gateway.send("p-1", T0, [2.1, 64.0])
        gateway.send("p-2", T0, [None, 64.0])
        assert gateway.flush(20)
        answers = list(gateway.answers(timeout=0.2))
    assert [(answer.asset, answer.status, answer.level) for answer in answers] == [
        ("p-1", "OK", "class"),
        ("p-2", "OK", "class"),
    ]
    assert "missing" in answers[0].health  # heat is not sent
    assert 0 < answers[0].scores["failure"] < 1


def test_the_real_scorer_refuses_an_unknown_class(scorer_process: Running) -> None:
    with Gateway(scorer_process.address, name="plant-1", asset_class="crane", sensors=["force"]) as gateway:
        gateway.send("c-1", T0, [1.0])
        with pytest.raises(Refused, match="crane"):
            gateway.flush(20)


def test_a_restart_in_the_middle_loses_nothing(registry: Registry, tmp_path: Path) -> None:
    settings = Settings(batch_rows=8, backoff_seconds=0.05, backoff_seconds_max=0.2)
    with run_server(registry.path) as first:
        address = first.address
        gateway = Gateway(
            address, name="plant-2", asset_class="press", sensors=SENSORS, spool=tmp_path / "s", settings=settings
        )
        with gateway:
            for i in range(2000):
                gateway.send_columns(
                    gateway.numbers(["r-1"]), array("q", [T0 + i * MINUTE_US]), array("f", [1.0, 2.0, 3.0])
                )
                if i == 500:
                    first.process.send_signal(signal.SIGTERM)
            first.process.wait(20)
            assert first.process.returncode == 0
            with run_server(registry.path, "--listen", address):
                assert gateway.flush(30)
                answers = list(gateway.answers(timeout=0.2))
                counters = gateway.counters
    assert sorted({answer.time_us for answer in answers if not answer.revision}) == [
        T0 + i * MINUTE_US for i in range(2000)
    ]
    assert {answer.status for answer in answers} <= {"OK", "DUPLICATE"}
    assert counters.answered_rows == 2000
    assert counters.reconnects > 0


def test_a_scorer_that_comes_back_for_smaller_blocks_answers_what_it_had_scored(
    registry: Registry, scorer: Any, tmp_path: Path
) -> None:
    """Blocks of 256 rows were sealed, sent and scored, and their answers lost with the gateway."""
    ids = [f"wide-{number}" for number in range(600)]
    named = {"name": "wide", "asset_class": "press", "sensors": SENSORS}
    scorer.silent = True
    with Gateway(scorer.address, spool=tmp_path / "lost", **named) as gateway:
        gateway.send_many(ids, [T0] * 600, [[1.0, 2.0, float(number)] for number in range(600)])
        while gateway._spool.waiting_rows:
            time.sleep(0.01)
        gateway.close(timeout=0.0)
    shutil.copy(tmp_path / "lost", tmp_path / "again")
    heard: list[list[Answer]] = []
    for spool, words in (("lost", []), ("again", ["--rows-max", "100"])):
        with (
            run_server(registry.path, "--state", str(tmp_path / "state"), *words) as server,
            Gateway(server.address, spool=tmp_path / spool, settings=Settings(durable=True), **named) as gateway,
        ):
            assert gateway.flush(30), gateway.failure
            heard.append([answer for answer in gateway.answers(timeout=0.2) if not answer.revision])
    first, again = heard
    assert [answer.asset for answer in first] == [answer.asset for answer in again] == ids
    assert ({answer.status for answer in first}, {answer.status for answer in again}) == ({"OK"}, {"DUPLICATE"})
    assert [answer.scores for answer in first] == [answer.scores for answer in again]
