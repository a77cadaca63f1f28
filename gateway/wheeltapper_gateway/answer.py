"""What a gateway gives back for a reading: an `Answer` in words, made from the columns of a score block on demand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import NamedTuple

from wheeltapper_proto import scoring_pb2 as contract

from wheeltapper_gateway.wire import Columns, Scores

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
STATUS = {number: name.removeprefix("ROW_STATUS_") for name, number in contract.RowStatus.items()}
LEVEL = {number: name.removeprefix("LEVEL_").lower() for name, number in contract.Level.items()}
ALARM = {number: name.removeprefix("ALARM_STATE_").lower() for name, number in contract.AlarmState.items()}
HEALTH = {bit: name.removeprefix("HEALTH_").lower() for name, bit in contract.Health.items() if bit}
SCORED = (contract.ROW_STATUS_OK, contract.ROW_STATUS_DUPLICATE)
_OVER_THE_LINE = ("raised", "active")


class Reason(NamedTuple):
    """A feature that made an output what it is. contribution: what it adds to the margin behind the output (hours or
    readings of life, log-odds of failure); of an anomaly, its sensor's share of the score."""

    output: str
    feature: str
    contribution: float


@dataclass(frozen=True, slots=True)
class Answer:
    """One reading's answer. `scores`, `levels`, `alarms` are by output ("rul", "failure:bearing", ...)."""

    asset: str
    time_us: int  # event time, microseconds since 1970 UTC
    status: str  # "OK", "DUPLICATE", "TOO_LATE", ...
    release: int
    scores: Mapping[str, float]  # NaN where there is no score
    levels: Mapping[str, str]  # "asset", "class", "fleet" or "none": who answered
    alarms: Mapping[str, str]  # "none", "pending", "raised", "active" or "cleared"
    health: tuple[str, ...]  # what was wrong with the data: "missing", "out_of_range", ...
    features: Mapping[str, float]  # empty unless asked for
    revision: bool  # a late reading changed an answer given earlier
    reasons: tuple[Reason, ...] = ()  # why, by output, weightiest first; empty unless asked for

    @property
    def time(self) -> datetime:
        return _EPOCH + timedelta(microseconds=self.time_us)

    @property
    def level(self) -> str:
        """The most specific level that answered any output."""
        return max(self.levels.values(), key=lambda name: _RANK.get(name, 0), default="none")

    @property
    def alarm(self) -> bool:
        """Whether any output is over its threshold for its hold time."""
        return any(state in _OVER_THE_LINE for state in self.alarms.values())


_RANK = {name: number for number, name in LEVEL.items()}


def answers_of(scores: Scores, assets: Sequence[str], columns: Columns, revision: bool) -> Iterator[Answer]:
    """The rows of a block, `assets[i]` being the asset id of row i. Rows that answer events are left out if taken."""
    outputs, features = columns.outputs, columns.features
    width, asked = len(outputs), len(features) if len(scores.features) else 0
    reasons = reasons_of(scores, columns)
    for row, status in enumerate(scores.status):
        if status == contract.ROW_STATUS_TAKEN:
            continue
        cells = slice(row * width, (row + 1) * width)
        bits = scores.health[row]
        yield Answer(
            asset=assets[row],
            time_us=scores.times[row],
            status=STATUS.get(status, f"STATUS_{status}"),
            release=scores.release,
            scores=dict(zip(outputs, scores.values[cells], strict=True)),
            levels={name: LEVEL.get(n, f"level_{n}") for name, n in zip(outputs, scores.levels[cells], strict=True)},
            alarms={name: ALARM.get(n, f"alarm_{n}") for name, n in zip(outputs, scores.alarms[cells], strict=True)},
            health=tuple(name for bit, name in HEALTH.items() if bits & bit),
            features=dict(zip(features, scores.features[row * asked : (row + 1) * asked], strict=True))
            if asked
            else {},
            revision=revision,
            reasons=reasons.get(row, ()),
        )


def reasons_of(scores: Scores, columns: Columns) -> dict[int, tuple[Reason, ...]]:
    """The reasons of each row that has any, in words."""
    why = scores.reasons
    cells = zip(why.rows, why.outputs, why.features, why.values, strict=True)
    return {
        row: tuple(Reason(columns.outputs[output], columns.named[feature], value) for _, output, feature, value in own)
        for row, own in groupby(cells, key=lambda cell: cell[0])
    }
