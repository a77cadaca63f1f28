"""Everything that a gateway's sink was told, and what an undisturbed scorer tells of the same blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from wheeltapper.answers import Answers
from wheeltapper.live import LiveFleet
from wheeltapper_gateway.delivery import Delivery

Row = tuple[str, int]  # asset, event time
Answer = tuple[bool, list[Row], bytes, bytes, bytes, bytes, bytes, bytes]
# revision, rows, status, values, levels, alarms, health, features


class Told:
    """`answers` as they came, and `blocks`: the rows of each block in the order of the answers."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.blocks: list[list[Row]] = []
        self.sequences: list[int] = []

    def take(self, delivery: Delivery) -> None:
        """The sink of a gateway."""
        scores = delivery.scores
        rows = list(zip(delivery.assets, scores.times, strict=True))
        if not delivery.revision:
            self.blocks.append(rows)
            self.sequences.append(scores.sequence)
        shown = scores.status, scores.values, scores.levels, scores.alarms, scores.health, scores.features
        self.answers.append((delivery.revision, rows, *(bytes(column) for column in shown)))


def undisturbed(
    fleet: LiveFleet, asset_class: str, readings: Mapping[Row, Sequence[float]], blocks: Sequence[Sequence[Row]]
) -> list[Answer]:
    """The answers of a fleet that takes the blocks one after the other."""
    found: list[Answer] = []
    for block in blocks:
        cells = np.array([readings[row] for row in block], np.float32)
        rows = fleet.open_assets(asset_class, [asset for asset, _ in block])
        times = np.array([when for _, when in block])
        answers = fleet.score(asset_class, rows, times, cells, 2**62, want_features=True)
        names = fleet.assets(asset_class)
        if answers.revisions is not None:
            found.append(_answer(answers.revisions, names, revision=True))
        found.append(_answer(answers, names, revision=False))
    return found


def _answer(answers: Answers, names: Sequence[str], revision: bool) -> Answer:
    assert answers.features is not None
    rows = [(names[row], int(when)) for row, when in zip(answers.rows, answers.times, strict=True)]
    shown = answers.status, answers.values, answers.levels, answers.alarms, answers.health, answers.features
    return revision, rows, *(column.tobytes() for column in shown)
