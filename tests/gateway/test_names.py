"""One bad name stops nobody: it is refused where it is given, and one that an old spool holds is answered."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any

import grpc
import pytest
from presses import MINUTE_US, content
from serving import promote, run_server
from test_gateway import gateway_to, send, until
from wheeltapper.pack import write_pack
from wheeltapper.registry import Registry
from wheeltapper_command.errors import Refused, UsageError
from wheeltapper_gateway.spool import Kind, Spool

T0 = 1_700_000_040 * 1_000_000
SENSORS = ("force", "heat", "oil")


@pytest.mark.parametrize("name", ["", "x" * 257, "é" * 129, "\ud800"])
def test_a_bad_asset_id_is_refused_with_all_of_its_call(scorer: Any, tmp_path: Path, name: str) -> None:
    with gateway_to(scorer.address, spool=tmp_path / "s") as gateway:
        for call in (
            lambda: gateway.send(name, 1, [1.0, 2.0]),
            lambda: gateway.send_many(["new", name], [1, 2], [[1.0, 2.0]] * 2),
            lambda: gateway.numbers(["new", name]),
            lambda: gateway.send_events(["new", name], [1, 2], ["error:new", "error:new"]),
        ):
            with pytest.raises(UsageError, match="asset id: expected a name of 1 to 256 bytes"):
                call()
        assert (gateway._ledger.unsettled_rows, [*gateway._spool.names(0), *gateway._spool.names(1)]) == (0, [])
        send(gateway, range(5))
        assert gateway.flush(10)
    assert len(scorer.rows) == 5


@pytest.mark.parametrize("code", ["", "maintenance", ":bearing", "maintenance:", "maintenance:" + "x" * 256])
def test_a_bad_event_code_is_refused_with_all_of_its_call(scorer: Any, code: str) -> None:
    with gateway_to(scorer.address) as gateway:
        with pytest.raises(UsageError, match='event code: expected "kind:code"'):
            gateway.send_events(["new", "new"], [1, 2], ["error:new", code])
        assert (gateway._ledger.unsettled_rows, [*gateway._spool.names(0), *gateway._spool.names(1)]) == (0, [])


def test_a_call_with_another_fault_keeps_no_name(scorer: Any) -> None:
    with gateway_to(scorer.address) as gateway:
        for call in (
            lambda: gateway.send_many(["new"], ["tomorrow"], [[1.0, 2.0]]),
            lambda: gateway.send_events(["new"], [1, 2], ["error:new"]),
        ):
            with pytest.raises((UsageError, AttributeError)):
                call()
        assert [*gateway._spool.names(0), *gateway._spool.names(1)] == []


@pytest.mark.parametrize(
    "named",
    [
        {"assets": ["good", ""]},
        {"events": ["maintenance"]},
        {"events": [f"error:{i}" for i in range(4097)]},
        {"sensors": ["a", ""]},
        {"sensors": [f"s{i}" for i in range(4097)]},
        {"assets": {"good": {"x" * 257: 1.0}}},
        {"name": "x" * 257},
        {"asset_class": "\ud800"},
    ],
)
def test_a_gateway_of_bad_names_is_refused_and_leaves_its_spool_free(tmp_path: Path, named: dict[str, Any]) -> None:
    with pytest.raises(UsageError), gateway_to("127.0.0.1:1", spool=tmp_path / "s", **named):
        pass
    with gateway_to("127.0.0.1:1", spool=tmp_path / "s"):  # not locked
        pass


def test_a_name_is_asked_for_while_rows_need_it(scorer: Any) -> None:
    """Not what was answered long ago, by a scorer that may have other grants by now."""
    with gateway_to(scorer.address, assets=["declared"]) as gateway:
        until(lambda: scorer.opens)
        for asset in ("first", "second"):
            send(gateway, range(1), asset)
            assert gateway.flush(10)
        gateway._link.hang_up()
        until(lambda: len(scorer.opens) == 4)
        send(gateway, range(1), "third")
        assert gateway.flush(10)
    assert [list(opened.asset_ids) for opened in scorer.opens] == [
        ["declared"],
        ["first"],
        ["second"],
        ["declared"],
        ["third"],
    ]


def test_rows_that_wait_are_named_together(scorer: Any, tmp_path: Path) -> None:
    """One Open for many blocks, where an outage ends."""
    with gateway_to("127.0.0.1:1", spool=tmp_path / "s") as gateway:
        for number in range(1000):
            send(gateway, range(1), f"asset {number}")
    with gateway_to(scorer.address, {"batch_rows": 10}, spool=tmp_path / "s") as gateway:
        assert gateway.flush(20)
    assert [len(opened.asset_ids) for opened in scorer.opens] == [1000]


def old_spool(path: Path, rows: list[tuple[Kind, int, int]], names: list[tuple[int, int, str]]) -> None:
    """As a release wrote it that took every name. rows: kind, asset number, and a time or a code's number."""
    spool = Spool(path, "plant-1", "press", SENSORS, 1 << 20, 1)
    for kind, asset, value in rows:
        cells = array("f", [50.0] * 3) if kind is Kind.READINGS else array("I", [value])
        time = T0 + value * MINUTE_US
        spool.append(kind, array("I", [asset]), array("q", [time]), cells, 1)
    spool._database.executemany("INSERT INTO names VALUES (?, ?, ?)", names)
    spool.close()


def test_bad_names_in_an_old_spool_are_answered_and_the_others_scored(tmp_path: Path) -> None:
    made = Registry(tmp_path / "registry")
    made.publish(write_pack(content(1)), who="a test", why="first")
    promote(made, 1)
    reading, event = Kind.READINGS, Kind.EVENTS
    rows = [
        (reading, 0, 0),
        (reading, 1, 0),
        (event, 2, 0),
        (event, 2, 1),
        (reading, 2, 1),
        (reading, 3, 1),
        (event, 0, 1),
    ]
    names = [(0, 0, ""), (0, 1, "p-1"), (0, 2, "p-2"), (0, 3, "x" * 300), (1, 0, "maintenance"), (1, 1, "error:e1")]
    old_spool(tmp_path / "s", rows, names)
    with (
        run_server(made.path) as server,
        gateway_to(server.address, spool=tmp_path / "s", asset_class="press", sensors=SENSORS) as gateway,
    ):
        assert gateway.flush(20), gateway.failure
        gateway.send("p-3", T0, [1.0, 2.0, 3.0])
        assert gateway.flush(20), gateway.failure
        answers = [(answer.asset, answer.status) for answer in gateway.answers(timeout=0.2) if not answer.revision]
        counters = gateway.counters
    unknown = "UNKNOWN_HANDLE"
    assert answers == [("", unknown), ("p-1", "OK"), ("p-2", "OK"), ("x" * 300, unknown), ("p-3", "OK")]
    assert (counters.answered_rows, counters.unknown_rows, counters.refused_events) == (8, 2, 2)


def test_rows_of_numbers_that_a_damaged_spool_does_not_name_are_answered(scorer: Any, tmp_path: Path) -> None:
    rows = [(Kind.READINGS, 0, 0), (Kind.READINGS, 7, 1), (Kind.EVENTS, 0, 5), (Kind.READINGS, 0, 2)]
    old_spool(tmp_path / "s", rows, [(0, 0, "p-1")])
    with gateway_to(scorer.address, spool=tmp_path / "s", asset_class="press", sensors=SENSORS) as gateway:
        assert gateway.flush(10), gateway.failure
        answers = [(answer.asset, answer.status) for answer in gateway.answers(timeout=0.05)]
        counters = gateway.counters
    assert answers == [("p-1", "OK"), ("", "UNKNOWN_HANDLE"), ("p-1", "OK")]
    assert (counters.unknown_rows, counters.refused_events, counters.reconnects) == (1, 1, 0)


def test_an_asset_that_is_not_granted_stops_nobody_once_its_rows_are_gone(scorer: Any, tmp_path: Path) -> None:
    scorer.refused_asset = "foreign"
    settings = {"spool_bytes_max": 1 << 16}
    scorer.refuse = (grpc.StatusCode.UNAVAILABLE, "not yet")
    with gateway_to(scorer.address, settings, spool=tmp_path / "s") as gateway:
        send(gateway, range(1), "foreign")
        send(gateway, range(1000), "own")  # the byte budget drops the oldest
        scorer.refuse = None
        assert gateway.flush(10), gateway.failure
        assert gateway.counters.dropped_rows > 0
        send(gateway, range(1), "foreign")
        with pytest.raises(Refused, match="'foreign' is not granted"):
            gateway.flush(10)
