"""What a scorer says and holds to which nothing ever happens: the judge of every history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from presses import content
from sites import ASSETS, Answer, Site
from wheeltapper import warmth
from wheeltapper.answers import Answers
from wheeltapper.features import KERNELS
from wheeltapper.live import LiveFleet
from wheeltapper.pack import Pack, write_pack
from wheeltapper_proto import scoring_pb2 as pb

PACKS = {number: Pack.from_bytes(write_pack(content(number)), KERNELS) for number in (1, 2)}
_AGES = np.array([[1.0], [2.0], [3.0]], np.float32)


class Speaker(Protocol):
    """Whoever sent blocks and noted what was answered, by sequence."""

    name: str
    blocks: list[pb.StreamRequest]
    answers: dict[int, list[Answer]]


class Reference:
    """The assets of one speaker, in a fleet that takes its blocks one after the other."""

    def __init__(self, name: str, fleet: LiveFleet | None = None) -> None:
        self.fleet = fleet or LiveFleet(PACKS[1], 1)
        self.assets = [f"{name}/{i}" for i in range(ASSETS)]
        self._rows = self.fleet.open_assets("press", self.assets, _AGES)
        self._code = self.fleet.event_code("press", "error:e1")

    def take(self, request: pb.StreamRequest) -> list[Answer]:
        """The answer to a block: revisions, then the scores."""
        block = request.events if request.HasField("events") else request.readings
        whose, times = self._rows[list(block.handles)], np.array(block.times, np.int64)
        if request.HasField("events"):
            codes = np.full(len(times), self._code)
            taken = self.fleet.take_events("press", whose, times, codes, 2**62, want_features=True)
            return [*self._heard(taken.revisions), self._events_taken(block, taken.status)]
        values = np.array(block.values, np.float32).reshape(-1, 3)
        answers = self.fleet.score("press", whose, times, values, 2**62, want_features=True)
        return [*self._heard(answers.revisions), *self._heard(answers)]

    def state(self) -> bytes:
        return state_of(self.fleet, self.assets)

    def _heard(self, answers: Answers | None) -> list[Answer]:
        """Answers of the fleet as a gateway hears them."""
        if answers is None:
            return []
        assert answers.features is not None
        handles = (answers.rows - self._rows[0]).astype(np.uint32)
        shown = answers.status, answers.values, answers.levels, answers.alarms, answers.health, answers.features
        return [tuple(column.tobytes() for column in (handles, answers.times, *shown))]

    def _events_taken(self, block: pb.EventBlock, status: np.ndarray) -> Answer:
        n, outputs, features = len(block.handles), len(self.fleet.outputs("press")), len(self.fleet.features("press"))
        handles, times = np.array(block.handles, np.uint32).tobytes(), np.array(block.times, np.int64).tobytes()
        empty = np.full(n * outputs, np.nan, np.float32).tobytes()
        wide = np.full(n * features, np.nan, np.float32).tobytes()
        return handles, times, status.tobytes(), empty, bytes(n * outputs), bytes(n * outputs), bytes(n), wide


class Taken:
    """What a scorer holds of a site at ack=SCORED, and what it must have said. A power cut takes away the end of it:
    blocks that were answered, and never come again."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._sequences: list[int] = []
        self._answers: dict[int, list[Answer]] = {}  # to every block that was ever taken
        self._resumed = 0  # what is up to here and not held is lost
        self.lost = 0

    def check(self) -> None:
        """Every answer that the site has heard so far."""
        self._go_on(max(self._site.answers, default=0))
        for sequence, answer in self._site.answers.items():
            assert self._answers[sequence] == answer, f"{self._site.name} heard something else of {sequence}"

    def comes_back(self, fleet: LiveFleet, whole: bool) -> None:
        """A life has ended. The next one begins with a beginning of what was taken; with all that was answered, if
        that life had a `whole` end."""
        self.check()
        answered = len(self._sequences)
        self._go_on(self._site.sent)
        reference = self._at(0)
        is_open = set(reference.assets) <= set(fleet.assets("press"))  # else its Open is lost as well
        found = state_of(fleet, reference.assets) if is_open else reference.state()
        fits = [0] if reference.state() == found else []
        for count, sequence in enumerate(self._sequences, start=1):
            reference.take(self._site.blocks[sequence - 1])
            if reference.state() == found:
                fits.append(count)
        assert fits, f"{self._site.name} comes back as it never was"
        assert not whole or fits[-1] >= answered, f"{self._site.name} has lost what a stopped scorer had answered"
        self.lost += max(0, answered - fits[-1])
        del self._sequences[fits[-1] :]
        self._resumed = self._site.settled

    def _go_on(self, sequence: int) -> None:
        """Everything up to there was taken, but what was lost."""
        reference = None
        for following in range(max([self._resumed, *self._sequences[-1:]]) + 1, sequence + 1):
            reference = reference or self._at(len(self._sequences))
            self._answers[following] = reference.take(self._site.blocks[following - 1])
            self._sequences.append(following)

    def _at(self, count: int) -> Reference:
        reference = Reference(self._site.name)
        for sequence in self._sequences[:count]:
            reference.take(self._site.blocks[sequence - 1])
        return reference


def undisturbed(speakers: Sequence[Speaker]) -> tuple[LiveFleet, dict[str, dict[int, list[Answer]]]]:
    """The fleet at the end, and every answer to every speaker's blocks."""
    fleet = LiveFleet(PACKS[1], 1)
    told = {}
    for speaker in speakers:
        reference = Reference(speaker.name, fleet)
        told[speaker.name] = {place: reference.take(block) for place, block in enumerate(speaker.blocks, start=1)}
    return fleet, told


def compare(fleet: LiveFleet, speakers: Sequence[Speaker], every: bool = True) -> None:
    """Windows, alarms and answers: to `every` block, or to those that have one."""
    expected, told = undisturbed(speakers)
    for speaker in speakers:
        for sequence, answer in told[speaker.name].items():
            if every or sequence in speaker.answers:
                assert speaker.answers[sequence] == answer, f"{speaker.name} heard something else of {sequence}"
        compare_rows(fleet, expected, [f"{speaker.name}/{i}" for i in range(ASSETS)])


def compare_rows(fleet: LiveFleet, expected: LiveFleet, assets: list[str]) -> None:
    """Every byte of windows and alarms."""
    for asset in assets:
        assert state_of(fleet, [asset]) == state_of(expected, [asset]), f"windows or alarms of {asset} differ"


def state_of(fleet: LiveFleet, assets: list[str]) -> bytes:
    """Windows and alarms of assets, which are opened where they are not."""
    rows = [int(row) for row in fleet.open_assets("press", assets)]
    return b"".join(warmth.save_rows(fleet, "press", row, row + 1) for row in rows)
