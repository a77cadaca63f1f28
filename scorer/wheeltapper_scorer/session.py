"""One stream, without grpc: an Open, then blocks in, answers out. A Score call is a stream of one block.

A session only maps: handles of the stream to rows of the fleet, the gateway's columns to the class's, answers to
blocks. What a reading means is the fleet's business.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from wheeltapper.errors import Refused
from wheeltapper.live import Answers, LiveFleet
from wheeltapper.reasons import Reasons
from wheeltapper_proto import scoring_pb2

from wheeltapper_scorer import kept_answers, opening, wire
from wheeltapper_scorer.answer_memory import Asked, Body, Named, Told, asked
from wheeltapper_scorer.binding import Binding, bind
from wheeltapper_scorer.faults import CallError, Reason
from wheeltapper_scorer.handles import UNKNOWN, Handles
from wheeltapper_scorer.resume import ResumePoints
from wheeltapper_scorer.settings import Settings
from wheeltapper_scorer.switch import StreamSwitch, Switch
from wheeltapper_scorer.wire import Events, Readings, Scores


class Answered(NamedTuple):
    """A block's answer: `reopened` where it has other columns than the one before, revisions, then the scores."""

    reopened: scoring_pb2.Opened | None
    revisions: list[Scores]
    scores: Scores
    messages: tuple[bytes, ...]  # of a stream: revisions, then scores, as they leave
    clock_us: int  # when the block was taken
    again: bool = False  # that was earlier: it is answered as it was then


class Session:
    """Raises CallError where the stream must end; a row that cannot be scored is answered, not raised."""

    def __init__(
        self,
        fleet: LiveFleet,
        settings: Settings,
        points: ResumePoints,
        switch: Switch | None = None,
        is_call: bool = False,
    ) -> None:
        """is_call: of one block, whose answer is not kept: whoever calls hears at once that it did not come."""
        self._fleet = fleet
        self._settings = settings
        self._points = points
        self._assets = Handles()
        self._is_call = is_call
        self._speaker: opening.Speaker | None = None  # with the first Open, and the three below with it
        self._bound: Binding
        self._shown: tuple[Any, ...]  # the columns that the gateway was told of last
        self._switch: StreamSwitch
        self._fleet_switch = switch or Switch()

    def open(self, message: scoring_pb2.Open) -> scoring_pb2.Opened:
        """Open the stream, or add assets to it. Nothing is changed where it raises CallError."""
        first = self._speaker
        if first is None:
            told = opening.speaker(message, self._fleet.class_names(), self._settings)
        else:
            opening.check_again(first, message)
            told = first
        spec = self._fleet.spec(told.asset_class)
        opening.sensor_columns(spec, told.sensors)
        ids = opening.asset_ids(message, self._settings)
        statics = opening.statics(spec, message)
        self._add_assets(told.asset_class, ids, statics)
        if first is None:
            self._speaker = told
            self._switch = StreamSwitch(self._fleet_switch, told.asset_class, self._assets.ids)
        self._bound = bind(self._fleet, told, self._settings)
        return self._opened(self._assets.of(ids), self._bound.named)

    def score(self, block: Readings, now_us: int, recall: bool = True, remember: bool = True) -> Answered:
        """Every row answered, in order: as before, where the block was answered before. Raises CallError NOT_OPENED or
        BLOCK_TOO_LARGE. A replay says whether it may `recall` an answer, and whether this one is whole to `remember`.
        """
        told, rows_count = self.accept(block)
        handles, times = _fit(block.handles, rows_count), _fit(block.times, rows_count)
        sensors = len(told.sensors)
        if len(block.handles) != len(block.times) or len(block.values) != rows_count * sensors:
            return self._wrong_width(block.sequence, handles, times, now_us)
        rows = self.rows_of(handles)
        question = self._asked(Body.READINGS, block, rows, times, block.values)
        if recall and (known := self._known(question, handles)) is not None:
            return known
        reopened = self._announced()
        answers = self._fleet.score(
            told.asset_class,
            rows,
            times,
            self._bound.placed(block.values.reshape(rows_count, sensors)),
            now_us,
            historical=block.historical,
            want_features=told.needs_features,
            repeated=self._points.taken(told.gateway, told.epoch, block.sequence),
        )
        self._switch.apply(answers, handles)
        revisions = self._revisions(block.sequence, answers.revisions)
        answered = self._said(reopened, revisions, self._scores(block.sequence, handles, answers), now_us)
        if remember:
            self._remember(question, answered)
        return answered

    def take_events(self, block: Events, now_us: int, recall: bool = True, remember: bool = True) -> Answered:
        """Every event row answered: TAKEN, or why not. The rest is as in `score`."""
        told, rows_count = self.accept(block)
        handles, times = _fit(block.handles, rows_count), _fit(block.times, rows_count)
        if not len(block.handles) == len(block.times) == len(block.codes):
            return self._wrong_width(block.sequence, handles, times, now_us)
        rows = self.rows_of(handles)
        question = self._asked(Body.EVENTS, block, rows, times, block.codes)
        if recall and (known := self._known(question, handles)) is not None:
            return known
        reopened = self._announced()
        answer = self._bound.blank(block.sequence, handles, times, scoring_pb2.ROW_STATUS_TAKEN)
        listed = block.codes < len(self._bound.codes)
        answer.status[~listed] = scoring_pb2.ROW_STATUS_UNKNOWN_CODE
        answer.status[rows == UNKNOWN] = scoring_pb2.ROW_STATUS_UNKNOWN_HANDLE
        chosen = np.flatnonzero(listed & (rows != UNKNOWN))
        taken = self._fleet.take_events(
            told.asset_class,
            rows[chosen],
            times[chosen],
            self._bound.codes[block.codes[chosen]],
            now_us,
            want_features=told.needs_features,
            repeated=self._points.taken(told.gateway, told.epoch, block.sequence),
        )
        answer.status[chosen] = taken.status
        answered = self._said(reopened, self._revisions(block.sequence, taken.revisions), answer, now_us)
        if remember:
            self._remember(question, answered)
        return answered

    def _wrong_width(
        self, sequence: int, handles: NDArray[np.uint32], times: NDArray[np.int64], now_us: int
    ) -> Answered:
        reopened = self._announced()  # first: the answer has the columns that it tells of
        blank = self._bound.blank(sequence, handles, times, scoring_pb2.ROW_STATUS_WRONG_WIDTH)
        return self._said(reopened, [], blank, now_us)

    def answered(self, sequence: int) -> None:
        """The answer of a block has left: the gateway may resume after it."""
        if self._speaker is not None:
            self._points.answered(self._speaker.gateway, self._speaker.epoch, sequence)

    def _add_assets(self, asset_class: str, ids: list[str], statics: NDArray[np.float32] | None) -> None:
        """Fresh assets get the next handles; one that is open already keeps its own."""
        assets = self._assets
        fresh = assets.fresh(ids)
        if len(assets.ids) + len(fresh) > self._settings.assets_max:
            raise CallError(Reason.TOO_MANY_ASSETS, f"a stream may open at most {self._settings.assets_max:,} assets")
        fresh_ids = [ids[i] for i in fresh]
        try:
            rows = self._fleet.open_assets(asset_class, fresh_ids, None if statics is None else statics[fresh])
        except Refused as error:
            raise CallError(Reason.CAPACITY, f"{error}; another scorer must take these assets") from error
        assets.add(fresh_ids, rows)

    def _announced(self) -> scoring_pb2.Opened | None:
        """Bind again where a new release serves; what the gateway must hear of it, if its columns are other ones."""
        if self._bound.release != self._fleet.release:
            self._bound = bind(self._fleet, self._told(), self._settings)
        return self._other_columns(self._bound.named)

    def _other_columns(self, named: Named) -> scoring_pb2.Opened | None:
        """What must be said before an answer of these columns; None where the gateway knows them already."""
        if self._shown == (named.outputs, named.features, self._bound.rows_max):
            return None
        return self._opened(np.arange(len(self._assets.ids)), named)

    def _opened(self, handles: NDArray[np.int64], named: Named) -> scoring_pb2.Opened:
        told = self._told()
        self._shown = named.outputs, named.features, self._bound.rows_max
        return scoring_pb2.Opened(
            handles=handles.tolist(),
            release=named.release,
            pack=named.pack,
            resume_sequence=self._points.resume(told.gateway, told.epoch, told.durable),
            outputs=named.outputs,
            features=named.features,
            missing_sensors=self._bound.missing,
            rows_max=self._bound.rows_max,
            levels=self._fleet.levels(told.asset_class, self._assets.rows[handles]).tolist(),
        )

    def _asked(self, body: Body, block: Readings | Events, *columns: NDArray[Any]) -> Asked | None:
        """The block by name, for the memory of answers; None where nothing is kept of it."""
        told = self._told()
        if self._is_call or not block.sequence:
            return None
        self._points.answers.settle(told.gateway, told.epoch, block.settled)
        return asked(body, block.sequence, columns)

    def _known(self, question: Asked | None, handles: NDArray[np.uint32]) -> Answered | None:
        """The answer that this block has had already, in the handles of this stream."""
        who = self._told()
        if question is None:
            return None
        told = self._points.answers.find(who.gateway, who.epoch, question, self._bound.named.wanted)
        if told is None:
            return None
        revisions = [kept_answers.scores_of(one, told.named) for one in told.revisions]
        mine = [one._replace(handles=self._assets.of_rows(one.handles.astype(np.int64))) for one in revisions]
        scores = kept_answers.scores_of(told.scores, told.named)._replace(handles=handles)
        *heard, last = [self._switch.applied(one) for one in (*mine, scores)]
        return self._said(self._other_columns(told.named), heard, last, told.clock_us, again=True)

    def _remember(self, question: Asked | None, answered: Answered) -> None:
        """Keep an answer until the gateway will not ask for it again."""
        if question is None:
            return
        who = self._told()
        kept = tuple([wire.encode_scores(self._by_row(one)) for one in answered.revisions])
        told = Told(*question, answered.clock_us, self._bound.named, kept, answered.messages[-1])
        self._points.answers.keep(who.gateway, who.epoch, told)

    def _by_row(self, scores: Scores) -> Scores:
        """The same with rows of the fleet for handles, which another stream can tell."""
        return scores._replace(handles=self.rows_of(scores.handles).astype(np.uint32))

    def _said(
        self,
        reopened: scoring_pb2.Opened | None,
        revisions: list[Scores],
        scores: Scores,
        clock_us: int,
        again: bool = False,
    ) -> Answered:
        """An answer, and what is sent of it; a call encodes its own, all in one."""
        messages: tuple[bytes, ...] = ()
        if not self._is_call:
            messages = (*[wire.encode_revisions(one) for one in revisions], wire.encode_scores(scores))
        return Answered(reopened, revisions, scores, messages, clock_us, again)

    def _told(self) -> opening.Speaker:
        if self._speaker is None:
            raise CallError(Reason.NOT_OPENED, "expected Open as the first message; found a block")
        return self._speaker

    def accept(self, block: Readings | Events) -> tuple[opening.Speaker, int]:
        """Who speaks, and how many rows must be answered: one per handle or time, whichever are more. Nothing is taken
        yet. Raises CallError NOT_OPENED or BLOCK_TOO_LARGE."""
        told = self._told()
        rows_count = max(len(block.handles), len(block.times))
        if rows_count > self._bound.rows_max:
            raise CallError(
                Reason.BLOCK_TOO_LARGE,
                f"expected at most {self._bound.rows_max:,} rows in a block, as Opened.rows_max says; "
                f"found {rows_count:,}",
            )
        return told, rows_count

    def rows_of(self, handles: NDArray[np.uint32]) -> NDArray[np.int64]:
        """The fleet's rows of handles, −1 where this stream has none."""
        return self._assets.rows_of(handles)

    def _revisions(self, sequence: int, answers: Answers | None) -> list[Scores]:
        """Blocks of at most rows_max rows, so that none passes the message limit."""
        if answers is None or len(answers.rows) == 0:
            return []
        handles = self._assets.of_rows(answers.rows)
        self._switch.apply(answers, handles)
        whole = self._scores(sequence, handles, answers)
        return [whole.cut(i, i + self._bound.rows_max) for i in range(0, len(answers.rows), self._bound.rows_max)]

    def _scores(self, sequence: int, handles: NDArray[np.uint32], answers: Answers) -> Scores:
        return Scores(
            sequence,
            self._bound.release,
            handles,
            answers.times,
            answers.status,
            answers.values,
            answers.levels,
            answers.alarms,
            answers.health,
            answers.features if self._told().want_features else None,
            self._reasons(answers),
        )

    def _reasons(self, answers: Answers) -> Reasons | None:
        told = self._told()
        if not told.reasons_top:
            return None
        which = np.ones(answers.values.shape, dtype=np.bool_) if told.reasons_always else None
        return self._fleet.reasons(told.asset_class, answers, told.reasons_top, which)


def _fit(column: NDArray[Any], rows_count: int) -> NDArray[Any]:
    """`column` with zeros at its end where the sender left some out."""
    return (
        column
        if len(column) == rows_count
        else np.concatenate((column, np.zeros(rows_count - len(column), column.dtype)))
    )
