"""Conversations whose every byte is frozen: whatever becomes quicker, a gateway hears what it always heard.

tests/golden/answers-v1.json holds the digest of each conversation, under its name. A change of kernels that is meant
to move bits moves them here, too: `PYTHONPATH=tests python tests/scorer/test_golden_answers.py` writes the file anew,
and the commit says why.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from presses import MINUTE_US, ONE_OUTPUT, content
from wheeltapper.features import KERNELS
from wheeltapper.kill_switch import Blocked
from wheeltapper.live import LiveFleet
from wheeltapper.pack import Pack, write_pack
from wheeltapper_proto import scoring_pb2 as pb
from wheeltapper_scorer import kept_answers, wire
from wheeltapper_scorer.counters import Counters
from wheeltapper_scorer.resume import ResumePoints
from wheeltapper_scorer.session import Session
from wheeltapper_scorer.settings import Settings
from wheeltapper_scorer.switch import Switch

GOLDEN = Path(__file__).parent.parent / "golden" / "answers-v1.json"
T0 = 1_700_000_040 * 1_000_000  # on the minute
NOW = T0 + 45 * MINUTE_US
SENSORS = ("force", "heat", "oil")
OPENINGS = {
    "plain": {},
    "features": {"want_features": True},
    "reasons": {"reasons_top": 2},
    "explained": {"want_features": True, "reasons_top": 3, "reasons_always": True},
}
_ORDERS = {"in order": (0, 1, 2), "in another": (2, 0, 1), "one missing": (1, 0)}


class Line:
    """One gateway's streams, one after another, as bytes: what it hears is kept in `heard`."""

    def __init__(self, rows_max: int = 10_000) -> None:
        self.packs = [Pack.from_bytes(write_pack(made), KERNELS) for made in (content(1), content(3, ONE_OUTPUT))]
        self.fleet, self.points, self.switch = LiveFleet(self.packs[0], 1), ResumePoints(10), Switch()
        self.settings = dataclasses.replace(Settings(), rows_max=rows_max)
        self.counters, self.heard = Counters(), list[bytes]()
        self.connect()

    def connect(self) -> None:
        self._session = Session(self.fleet, self.settings, self.points, self.switch)

    def send(self, request: pb.StreamRequest) -> None:
        told = wire.decode_stream(request.SerializeToString())
        if isinstance(told, pb.Open):
            self.heard.append(wire.encode_opened(self._session.open(told)))
            return
        session = self._session
        answered = session.score(told, NOW) if isinstance(told, wire.Readings) else session.take_events(told, NOW)
        if answered.reopened is not None:
            self.heard.append(wire.encode_opened(answered.reopened))
        self.heard += answered.messages
        self.counters.count_rows(answered.scores.status, answered.scores.health)
        session.answered(told.sequence)

    def kept(self) -> Iterable[bytes]:
        return [kept_answers.pack(*one) for one in self.points.answers.state()]

    def digest(self) -> str:
        whole = hashlib.sha256()
        for one in (*self.heard, *self.kept(), json.dumps(self.counters.report()).encode()):
            for pack in self.packs:  # its name moves with the kernels' sources, also where no bit of an answer does
                one = one.replace(pack.sha256.encode(), b"")  # noqa: PLW2901
            whole.update(len(one).to_bytes(8, "little") + one)
        return whole.hexdigest()


def opens(*assets: str, sensors: Iterable[str] = SENSORS, **more: object) -> pb.StreamRequest:
    told = {"gateway": "site", "epoch": 1, "asset_class": "press", "event_codes": ["error:e1", "sale:none"]}
    return pb.StreamRequest(open=pb.Open(**told, asset_ids=assets, sensors=list(sensors), **more))


def block(
    sequence: int, rows: list[tuple[int, int]], order: tuple[int, ...] = (0, 1, 2), **more: int
) -> pb.StreamRequest:
    """Rows of (handle, minute); the values are a function of both."""
    values = [value for handle, minute in rows for value in _values(handle, minute)[list(order)].tolist()]
    return pb.StreamRequest(
        readings=pb.ReadingBlock(
            sequence=sequence,
            handles=[handle for handle, _ in rows],
            times=[T0 + MINUTE_US * minute for _, minute in rows],
            values=values,
            **more,
        )
    )


def events(sequence: int, rows: list[tuple[int, int, int]]) -> pb.StreamRequest:
    handles, minutes, codes = zip(*rows, strict=True)
    times = [T0 + MINUTE_US * minute for minute in minutes]
    return pb.StreamRequest(events=pb.EventBlock(sequence=sequence, handles=handles, times=times, codes=codes))


def _values(handle: int, minute: int) -> np.ndarray:
    row = np.random.default_rng(1000 * handle + minute).uniform(10, 99, 3).astype(np.float32)
    if minute % 11 == 7:
        row[minute % 3] = (np.nan, np.inf, 1e9)[handle % 3]
    return row


def talk(line: Line, order: tuple[int, ...]) -> Iterator[pb.StreamRequest]:
    """Thin blocks, thick ones, disorder, doubles, dirt, events, backlog."""
    minutes = [0, 1, 2, 2, 4, 5, 3, 8, 7, 6, 9, 30, 10, 90, 31]
    for sequence, minute in enumerate(minutes, 1):
        yield block(sequence, [(sequence % 2, minute)], order, settled_sequence=max(0, sequence - 4))
    yield block(20, [(h, m) for m in (33, 32, 34) for h in (2, 1, 0, 7)], order)
    yield events(21, [(0, 33, 0), (9, 33, 0), (1, 32, 5), (2, 34, 1)])
    yield block(22, [(2, 35), (2, 36)], order, historical=True)
    yield block(23, [], order)
    for count in (len(order) - 1, len(order) + 1):
        wrong = block(24, [(0, 37), (1, 37)], order)
        wrong.readings.values[:] = [1.0] * count
        yield wrong
    line.switch.turn(Blocked(assets=frozenset({"a-1"})))
    yield block(25, [(0, 38), (1, 38), (2, 38)], order)
    yield block(26, [(1, 37)], order)
    line.switch.turn(Blocked())
    yield block(27, [(0, 39), (3, 39)], order)


@pytest.fixture(scope="module")
def frozen() -> dict[str, str]:
    found: dict[str, str] = json.loads(GOLDEN.read_text())
    return found


@pytest.mark.parametrize("wanted", OPENINGS)
@pytest.mark.parametrize("named", _ORDERS)
def test_a_conversation_is_what_it_was(frozen, wanted, named):
    assert conversation(wanted, named) == frozen[f"{wanted}, {named}"]


@pytest.mark.parametrize("wanted", OPENINGS)
def test_a_conversation_after_a_cut_and_a_swap_is_what_it_was(frozen, wanted):
    assert resumed(wanted) == frozen[f"{wanted}, resumed"]


def conversation(wanted: str, named: str) -> str:
    line, order = Line(), _ORDERS[named]
    sensors = [SENSORS[i] for i in order]
    line.send(opens("x", "a-1", "y", sensors=sensors, **OPENINGS[wanted]))
    for request in talk(line, order):
        line.send(request)
    return line.digest()


def resumed(wanted: str) -> str:
    """The line breaks; what is sent again is answered as before, to other handles, also by the next release."""
    line = Line(rows_max=2)
    line.send(opens("x", "a-1", **OPENINGS[wanted]))
    sent = [block(n, [(0, minute), (1, minute)]) for n, minute in enumerate((0, 1, 4, 2, 3, 6, 5, 7), 1)]
    for request in sent:
        line.send(request)
    line.connect()
    line.send(opens("new", "a-1", "x", **OPENINGS[wanted]))
    for request in sent[2:7]:
        request.readings.handles[:] = [2, 1]
        line.send(request)
    line.switch.turn(Blocked(assets=frozenset({"x"})))
    line.send(sent[5])
    line.fleet.swap(line.packs[1], 2)
    line.send(sent[6])
    line.send(block(12, [(2, 9), (0, 9)]))
    return line.digest()


def _written() -> dict[str, str]:
    found = {f"{wanted}, {named}": conversation(wanted, named) for wanted in OPENINGS for named in _ORDERS}
    return found | {f"{wanted}, resumed": resumed(wanted) for wanted in OPENINGS}


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(_written(), indent=1) + "\n")
