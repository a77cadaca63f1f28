"""A stream without grpc, against a real fleet: names, handles, columns, row answers, revisions, limits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from serving import MINUTE_US, opening
from wheeltapper.features import KERNELS
from wheeltapper.live import LiveFleet
from wheeltapper.pack import Pack
from wheeltapper_proto import scoring_pb2 as pb
from wheeltapper_scorer.answer_memory import AnswerMemory
from wheeltapper_scorer.binding import rows_max
from wheeltapper_scorer.faults import CallError, Reason
from wheeltapper_scorer.resume import ResumePoints
from wheeltapper_scorer.session import Session
from wheeltapper_scorer.settings import Settings
from wheeltapper_scorer.wire import Events, Readings, Scores

T0 = 1_700_000_040 * 1_000_000  # on the minute
LATER = T0 + 10**12
SETTINGS = Settings()


def session_of(fleet: LiveFleet, limits: Settings = SETTINGS, points: ResumePoints | None = None) -> Session:
    return Session(fleet, limits, points or ResumePoints(10))


def readings(sequence: int, handles, minutes, values, historical: bool = False) -> Readings:
    return Readings(
        sequence,
        np.array(handles, np.uint32),
        T0 + MINUTE_US * np.array(minutes, np.int64),
        np.array(values, np.float32).ravel(),
        historical,
    )


def rows_of(values_count: int, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).uniform(10, 90, (values_count, 3)).astype(np.float32)


def status(scores: Scores) -> list[str]:
    return [pb.RowStatus.Name(int(s)).removeprefix("ROW_STATUS_") for s in scores.status]


def refusal(session: Session, message: pb.Open) -> tuple[Reason, str]:
    with pytest.raises(CallError) as caught:
        session.open(message)
    return caught.value.reason, str(caught.value)


def test_open_says_what_will_come(fleet):
    opened = session_of(fleet).open(opening("a-1", "a-2", "stranger", sensors=("oil", "force"), want_features=True))
    assert list(opened.handles) == [0, 1, 2]
    assert (opened.release, opened.pack, opened.resume_sequence) == (1, fleet.pack.sha256, 0)
    assert list(opened.outputs) == ["failure", "anomaly"]
    assert list(opened.features) == fleet.features("press")
    assert list(opened.missing_sensors) == ["heat"]
    assert list(opened.levels) == [pb.LEVEL_ASSET, pb.LEVEL_CLASS, pb.LEVEL_CLASS]
    assert opened.rows_max == SETTINGS.rows_max


@pytest.mark.parametrize(
    ("message", "reason", "words"),
    [
        (opening("a", gateway=""), Reason.OPEN_INVALID, "gateway: expected a name of 1 to 256 bytes; found 0"),
        (opening("a", gateway="é" * 129), Reason.OPEN_INVALID, "found 258"),
        (opening("a", asset_class="pump"), Reason.UNKNOWN_CLASS, "expected one of 'press'; found 'pump'"),
        (opening("a", sensors=("force", "noise")), Reason.UNKNOWN_SENSOR, "found 'noise', which it has not"),
        (opening("a", sensors=("oil", "oil")), Reason.DUPLICATE_NAME, "sensors: 'oil' is named twice"),
        (opening("a", "b", "a"), Reason.DUPLICATE_NAME, "asset_ids: 'a' is named twice"),
        (opening("a", ""), Reason.OPEN_INVALID, "asset_ids"),
        (opening("a", event_codes=["error"]), Reason.OPEN_INVALID, "expected \"kind:code\"; found 'error'"),
        (opening("a", ack=pb.ACK_LEVEL_DURABLE), Reason.JOURNAL_OFF, "keeps none; ask for SCORED"),
        (opening("a", reasons_top=65), Reason.OPEN_INVALID, "reasons_top: at most 64 reasons are given; found 65"),
        (opening("a", attributes=["age"]), Reason.OPEN_INVALID, "expected 1 assets × 1 attributes, found 0"),
        (opening("a", attributes=["hue"], attribute_values=[1]), Reason.UNKNOWN_ATTRIBUTE, "found 'hue'"),
        (opening("a", attributes=["age", "age"], attribute_values=[1, 2]), Reason.DUPLICATE_NAME, "attributes: 'age'"),
    ],
)
def test_an_open_that_cannot_be_says_why(fleet, message, reason, words):
    session = session_of(fleet)
    found, text = refusal(session, message)
    assert found is reason
    assert words in text
    assert session.open(opening("a")).handles == [0]  # nothing was half opened


def test_assets_can_be_added_and_keep_their_handles(fleet):
    session = session_of(fleet)
    session.open(opening("a-1", "x"))
    again = session.open(pb.Open(asset_ids=["y", "a-1"]))
    assert list(again.handles) == [2, 0]
    assert list(again.levels) == [pb.LEVEL_CLASS, pb.LEVEL_ASSET]
    for field, value in (("gateway", "other"), ("epoch", 9), ("sensors", ["oil"]), ("event_codes", ["error:e"])):
        reason, text = refusal(session, pb.Open(**{field: value, "asset_ids": ["z"]}))
        assert reason is Reason.OPEN_DIFFERS
        assert field in text


def test_limits_of_assets(fleet, packs):
    session = session_of(fleet, dataclasses.replace(SETTINGS, assets_max=2))
    assert refusal(session, opening("a", "b", "c"))[0] is Reason.TOO_MANY_ASSETS
    session.open(opening("a"))
    assert session.open(opening("a", "b")).handles == [0, 1]
    assert refusal(session, pb.Open(asset_ids=["c"]))[0] is Reason.TOO_MANY_ASSETS
    full = LiveFleet(Pack.from_bytes(packs["first"], KERNELS), 1, capacity_max=1)
    assert refusal(session_of(full), opening("a", "b"))[0] is Reason.CAPACITY


def test_sensors_in_any_order_give_the_same_bits(packs):
    values = rows_of(12)
    answers = []
    for order in ((0, 1, 2), (2, 0, 1)):
        session = session_of(LiveFleet(Pack.from_bytes(packs["first"], KERNELS), 1))
        names = np.array(["force", "heat", "oil"])[list(order)]
        session.open(opening("a-1", "new", sensors=names.tolist(), want_features=True))
        handles, minutes = [0, 1] * 6, np.repeat(np.arange(6), 2)
        answers.append(session.score(readings(1, handles, minutes, values[:, order]), LATER).scores)
    assert np.isfinite(answers[0].values).any()
    np.testing.assert_array_equal(answers[0].values, answers[1].values)
    np.testing.assert_array_equal(answers[0].features, answers[1].features)


def test_a_session_answers_as_the_fleet_does(fleet, packs):
    values = rows_of(8)
    session = session_of(fleet)
    session.open(opening("x", "a-1"))
    got = session.score(readings(7, [1, 0] * 4, np.repeat(range(4), 2), values), LATER).scores
    alone = LiveFleet(Pack.from_bytes(packs["first"], KERNELS), 1)
    rows = alone.open_assets("press", ["a-1", "x"])[[0, 1] * 4]
    expected = alone.score("press", rows, T0 + MINUTE_US * np.repeat(np.arange(4), 2), values, LATER)
    assert (got.sequence, got.release, got.handles.tolist()) == (7, 1, [1, 0] * 4)
    for name in ("times", "status", "values", "levels", "alarms", "health"):
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name), name)


def test_a_missing_sensor_is_nan(fleet):
    session = session_of(fleet)
    session.open(opening("x", sensors=["force"], want_features=True))
    scores = session.score(readings(1, [0], [0], [[50.0]]), LATER).scores
    assert scores.features is not None
    last = dict(zip(fleet.features("press"), scores.features[0], strict=True))
    assert last["last(force)"] == 50.0
    assert np.isnan([last["last(heat)"], last["last(oil)"]]).all()
    assert scores.health[0] & pb.HEALTH_MISSING


def test_every_bad_row_is_answered_and_the_good_ones_are_scored(fleet):
    session = session_of(fleet)
    session.open(opening("x"))
    inf, nan = np.inf, np.nan
    assert status(session.score(readings(1, [0], [10], rows_of(1)), LATER).scores) == ["OK"]
    values = [[50, 1, 1], [50, nan, 1], [inf, -inf, 1], [101, 1, 1], [50, 1, 1], [50, 1, 1], [50, 1, 1]]
    block = readings(2, [9, 0, 0, 0, 0, 0, 0], [11, 11, 12, 13, 13, 3, 100], values)
    scores = session.score(block, T0 + 14 * MINUTE_US).scores
    assert status(scores) == ["UNKNOWN_HANDLE", "OK", "OK", "OK", "DUPLICATE", "TOO_LATE", "FUTURE"]
    assert scores.health[1] & pb.HEALTH_MISSING
    assert scores.health[2] & pb.HEALTH_NOT_FINITE
    assert scores.health[3] & pb.HEALTH_OUT_OF_RANGE
    assert np.isnan(scores.values[[0, 5, 6]]).all()
    assert np.isfinite(scores.values[[1, 2, 3, 4], 0]).all()


def test_the_first_handle_that_is_none_is_unknown(fleet):
    session = session_of(fleet)
    session.open(opening("x", "y"))
    scores = session.score(readings(1, [1, 2, 2**32 - 1], [0, 0, 0], rows_of(3)), LATER).scores
    assert status(scores) == ["OK", "UNKNOWN_HANDLE", "UNKNOWN_HANDLE"]
    assert scores.handles.tolist() == [1, 2, 2**32 - 1]


def test_reasons_of_raised_alarms_are_those_of_the_fleet(fleet, packs):
    session = session_of(fleet)
    opened = session.open(opening("x", "a-1", reasons_top=3))
    assert list(opened.features) == fleet.features("press")
    assert opened.rows_max == SETTINGS.rows_max
    values, minutes = rows_of(40), np.repeat(range(20), 2)
    scores = session.score(readings(7, [1, 0] * 20, minutes, values), LATER).scores
    assert scores.features is None  # of them only the names were asked for
    raised = {tuple(at) for at in np.argwhere(scores.alarms == pb.ALARM_STATE_RAISED).tolist()}
    assert raised
    assert set(zip(scores.reasons.row.tolist(), scores.reasons.output.tolist(), strict=True)) == raised
    alone = LiveFleet(Pack.from_bytes(packs["first"], KERNELS), 1)
    rows = alone.open_assets("press", ["a-1", "x"])[[0, 1] * 20]
    expected = alone.score("press", rows, T0 + MINUTE_US * minutes, values, LATER, want_features=True)
    for got, wanted in zip(scores.reasons, alone.reasons("press", expected, 3), strict=True):
        assert got.tolist() == wanted.tolist()


def test_every_row_is_explained_on_request_revisions_too(fleet):
    session = session_of(fleet, dataclasses.replace(SETTINGS, rows_max=2_000))
    opened = session.open(opening("x", reasons_top=2, reasons_always=True, want_features=True))
    assert opened.rows_max == 256  # explaining costs more than scoring
    values = rows_of(3)
    first = session.score(readings(1, [0, 0], [0, 2], values[:2]), LATER).scores
    assert set(first.reasons.row.tolist()) == {0, 1}
    assert set(first.reasons.output.tolist()) == {0, 1}
    late = session.score(readings(2, [0], [1], values[2]), LATER)
    [revised] = late.revisions
    assert set(revised.reasons.row.tolist()) == set(late.scores.reasons.row.tolist()) == {0}
    assert revised.features.shape == late.scores.features.shape
    unknown = session.score(readings(3, [9], [3], values[0]), LATER).scores
    assert len(unknown.reasons.row) == 0


def test_no_reasons_unless_asked_for(fleet):
    session = session_of(fleet)
    assert list(session.open(opening("x", reasons_always=True)).features) == []
    assert session.score(readings(1, [0], [0], rows_of(1)), LATER).scores.reasons is None


def test_backlog_is_scored_and_raises_no_alarm(fleet):
    session = session_of(fleet)
    session.open(opening("live", "backlog"))
    live = session.score(readings(1, [0] * 4, range(4), rows_of(4)), LATER).scores
    old = session.score(readings(2, [1] * 4, range(4), rows_of(4), historical=True), LATER).scores
    np.testing.assert_array_equal(live.values, old.values)
    assert pb.ALARM_STATE_RAISED in live.alarms
    assert set(old.alarms.ravel()) == {pb.ALARM_STATE_NONE}


def test_rows_of_the_wrong_width_are_answered(fleet):
    session = session_of(fleet)
    session.open(opening("x", want_features=True))
    for handles, times, values in (([0, 0], 2, 5), ([0, 0], 2, 7), ([0, 0], 1, 6), ([0], 2, 6), ([], 2, 6)):
        block = readings(3, handles, range(times), np.ones(values))
        scores = session.score(block, LATER).scores
        assert status(scores) == ["WRONG_WIDTH"] * 2
        assert scores.values.shape == (2, 2)
        assert scores.features is not None
        assert scores.features.shape == (2, len(fleet.features("press")))
        assert np.isnan(scores.values).all()
    assert status(session.score(readings(4, [0], [0], rows_of(1)), LATER).scores) == ["OK"]  # nothing was placed


def test_an_empty_block_is_answered(fleet):
    session = session_of(fleet)
    session.open(opening("x"))
    answered = session.score(readings(5, [], [], []), LATER)
    assert (answered.scores.sequence, len(answered.scores.handles), answered.revisions) == (5, 0, [])
    assert len(session.take_events(Events(6, *(np.zeros(0, t) for t in ("u4", "i8", "u4"))), LATER).scores.status) == 0


def test_a_block_before_open_or_beyond_the_limit_ends_the_stream(fleet):
    session = session_of(fleet, dataclasses.replace(SETTINGS, rows_max=4))
    with pytest.raises(CallError) as caught:
        session.score(readings(1, [0], [0], rows_of(1)), LATER)
    assert caught.value.reason is Reason.NOT_OPENED
    assert session.open(opening("x")).rows_max == 4
    assert len(session.score(readings(1, [0] * 4, range(4), rows_of(4)), LATER).scores.status) == 4
    with pytest.raises(CallError) as caught:
        session.score(readings(1, [0] * 5, range(5), rows_of(5)), LATER)
    assert caught.value.reason is Reason.BLOCK_TOO_LARGE


def test_a_late_row_revises_what_it_touches(fleet):
    session = session_of(fleet, dataclasses.replace(SETTINGS, rows_max=2))
    session.open(opening("other"))
    session.open(opening("x", "other"))
    values = rows_of(4)
    for i, minute in enumerate((0, 2, 3)):
        session.score(readings(i, [1], [minute], values[i]), LATER)
    answered = session.score(readings(9, [1], [1], values[3]), LATER)
    assert status(answered.scores) == ["OK"]
    assert answered.scores.health[0] & pb.HEALTH_LATE
    assert [block.handles.tolist() for block in answered.revisions] == [[1, 1]]
    assert [block.sequence for block in answered.revisions] == [9]
    assert answered.revisions[0].times.tolist() == [T0 + 2 * MINUTE_US, T0 + 3 * MINUTE_US]


def test_a_block_that_comes_again_revises_again(fleet):
    """Its answer may have been lost, and be forgotten here; a mere duplicate under a new number changes nothing."""
    points, values = ResumePoints(10, AnswerMemory(bytes_max=0)), rows_of(4)
    session = session_of(fleet, points=points)
    session.open(opening("x", event_codes=["error:e1"]))
    for i, minute in enumerate((0, 2, 3)):
        session.score(readings(i + 1, [0], [minute], values[i]), LATER)
    first = session.score(readings(4, [0], [1], values[3]), LATER)
    event = Events(5, np.zeros(1, np.uint32), np.array([T0 + 2 * MINUTE_US]), np.zeros(1, np.uint32))
    changed = session.take_events(event, LATER)
    other = session_of(fleet, points=points)  # after the connection broke
    other.open(opening("x", event_codes=["error:e1"]))
    again = other.score(readings(4, [0], [1], values[3]), LATER)
    assert status(again.scores) == ["DUPLICATE"]
    assert [block.times.tolist() for block in again.revisions] == [block.times.tolist() for block in first.revisions]
    assert len(first.revisions) == 1
    repeated = other.take_events(event, LATER)
    assert [block.times.tolist() for block in repeated.revisions] == [[T0 + 2 * MINUTE_US, T0 + 3 * MINUTE_US]]
    np.testing.assert_array_equal(repeated.revisions[0].values, changed.revisions[0].values)
    assert other.score(readings(6, [0], [1], values[3]), LATER).revisions == []
    assert other.take_events(event._replace(sequence=7), LATER).revisions == []


def test_revisions_are_cut_to_the_limit_and_name_their_assets(fleet):
    narrow = session_of(fleet, dataclasses.replace(SETTINGS, rows_max=1))
    narrow.open(opening(*"edcba"))
    for i, minute in enumerate((0, 2, 3)):
        narrow.score(readings(i, [3], [minute], rows_of(3)[i]), LATER)
    revisions = narrow.score(readings(9, [3], [1], rows_of(1)), LATER).revisions
    assert [block.handles.tolist() for block in revisions] == [[3], [3]]
    other = session_of(fleet)  # the same asset under another handle
    other.open(opening(*"xab"))
    other.score(readings(1, [1], [8], rows_of(1)), LATER)
    revisions = other.score(readings(1, [1], [7], rows_of(1, 8)), LATER).revisions
    assert [block.handles.tolist() for block in revisions] == [[1]]


def test_events_are_taken_and_change_what_follows(fleet):
    session = session_of(fleet)
    session.open(opening("x", event_codes=["error:e1", "sale:none"], want_features=True))
    before = session.score(readings(1, [0], [0], rows_of(1)), LATER).scores
    minutes = T0 + MINUTE_US * np.array([1, 1, 1, 1], np.int64)
    events = Events(2, np.array([0, 0, 7, 0], np.uint32), minutes, np.array([0, 1, 0, 2], np.uint32))
    answered = session.take_events(events, LATER)
    assert status(answered.scores) == ["TAKEN", "TAKEN", "UNKNOWN_HANDLE", "UNKNOWN_CODE"]
    assert np.isnan(answered.scores.values).all()
    after = session.score(readings(3, [0], [1], rows_of(1)), LATER).scores
    assert before.features is not None
    assert after.features is not None
    column = fleet.features("press").index("count(error:*, 1h)")
    assert (before.features[0, column], after.features[0, column]) == (0, 1)
    odd = Events(2, np.array([0, 0], np.uint32), minutes[:2], np.array([0], np.uint32))
    assert status(session.take_events(odd, LATER).scores) == ["WRONG_WIDTH"] * 2


def test_attributes_reach_an_asset_that_the_pack_does_not_know(fleet):
    session = session_of(fleet)
    session.open(opening("x", "y", attributes=["age"], attribute_values=[4.0, np.nan], want_features=True))
    session.open(opening("x", "z", attributes=["age"], attribute_values=[8.0, 6.0]))
    scores = session.score(readings(1, [0, 1, 2], [0, 0, 0], rows_of(3)), LATER).scores
    assert scores.features is not None
    np.testing.assert_array_equal(scores.features[:, -1], np.float32([4.0, np.nan, 6.0]))


def test_a_swap_between_blocks_shows_in_release_and_columns(fleet, packs):
    session = session_of(fleet)
    session.open(opening("a-1"))
    values = rows_of(3)
    first = session.score(readings(1, [0], [0], values[0]), LATER)
    fleet.swap(Pack.from_bytes(packs["second"], KERNELS), 2)
    second = session.score(readings(2, [0], [1], values[1]), LATER)
    fleet.swap(Pack.from_bytes(packs["narrow"], KERNELS), 3)
    third = session.score(readings(3, [0], [2], values[2]), LATER)
    assert [a.scores.release for a in (first, second, third)] == [1, 2, 3]
    assert first.reopened is None
    assert second.reopened is None
    assert third.reopened is not None
    assert (list(third.reopened.outputs), list(third.reopened.handles)) == (["failure"], [0])
    assert third.scores.values.shape == (1, 1)


@pytest.mark.parametrize("of_events", [False, True])
def test_a_bad_block_behind_a_swap_is_answered_in_the_columns_that_are_announced(fleet, packs, of_events):
    """A gateway that reads other columns than it was told of can only hang up, and would come back with the block."""
    session = session_of(fleet)
    session.open(opening("a-1", event_codes=["error:e1"]))
    for release, name, outputs in ((2, "narrow", 1), (3, "first", 2)):
        fleet.swap(Pack.from_bytes(packs[name], KERNELS), release)
        if of_events:
            odd = Events(1, np.zeros(2, np.uint32), np.array([T0]), np.zeros(1, np.uint32))
            answered = session.take_events(odd, LATER)
        else:
            answered = session.score(readings(1, [0], [0], [1.0]), LATER)
        assert set(status(answered.scores)) == {"WRONG_WIDTH"}
        assert answered.reopened.release == answered.scores.release == release
        assert len(answered.reopened.outputs) == answered.scores.values.shape[1] == outputs


def test_rows_max_keeps_messages_below_their_limit():
    shapes = ((3, 2, 0, 0), (600, 2, 0, 0), (3, 2, 3_000, 0), (0, 0, 0, 0), (10**6, 1, 0, 0), (3, 20, 0, 1_280))
    for sensors, outputs, features, reasons in shapes:
        rows = rows_max(sensors, outputs, features, reasons, SETTINGS)
        assert 1 <= rows <= SETTINGS.rows_max
        block = pb.ReadingBlock(sequence=2**63, handles=[1] * rows, times=[1] * rows)
        scores = pb.ScoreBlock(sequence=1, release=2**63, handles=[1] * rows, times=[1] * rows, status=bytes(rows))
        assert rows == 1 or block.ByteSize() + 4 * sensors * rows < SETTINGS.message_bytes_max
        assert (
            rows == 1
            or scores.ByteSize() + rows * (1 + 6 * outputs + 4 * features + 16 * reasons) < SETTINGS.message_bytes_max
        )
