"""The real process on loopback: both calls, health, every bad input, hot reload, limits."""

from __future__ import annotations

import dataclasses
import time

import grpc
import numpy as np
import pytest
from conversation import SERVING, Conversation, health, numbers, refused
from presses import PRESS, content
from serving import (
    MINUTE_US,
    Running,
    ask,
    block,
    now_us,
    opening,
    promote,
    reason,
    run_server,
    values_of,
)
from wheeltapper.features import KERNELS
from wheeltapper.live import LiveFleet
from wheeltapper.pack import Pack, write_pack
from wheeltapper_proto import scoring_pb2 as pb
from wheeltapper_proto import scoring_pb2_grpc

Status = pb.RowStatus


def is_admitted(channel: grpc.Channel) -> bool:
    try:
        ask(channel, opening("x"))
    except grpc.RpcError as error:
        if reason(error)[1] != "TOO_MANY_STREAMS":
            raise
        return False
    return True


def test_streams_calls_and_bad_input(running: Running, packs: dict[str, bytes]):
    """One server for all that needs no server of its own: starting one costs seconds."""
    with running.channel() as channel:
        for service in ("", "wheeltapper.v1.Scoring"):
            assert health(channel, service) == SERVING
        with pytest.raises(grpc.RpcError) as caught:
            health(channel, "another.Service")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        check_two_streams_equal_the_fleet(channel, packs["first"])
        check_score_equals_stream(channel)
        check_a_refused_call_has_taken_nothing(channel)
        check_rows(channel)
        check_revisions_come_first(channel)
        check_resume_point(channel)
        check_refusals(channel)
        check_reflection_is_off(channel)
    report = running.lines()
    assert not [line for line in report if line["level"] not in ("info",)], report


def check_two_streams_equal_the_fleet(channel: grpc.Channel, pack: bytes) -> None:
    """Two gateways at once, bit for bit what the fleet says of each asset."""
    start, n = now_us() - 20 * MINUTE_US, 16
    times = [start + i * MINUTE_US for i in range(n)]
    values = numbers(2 * n)
    streams = [Conversation(channel) for _ in range(2)]
    for number, stream in enumerate(streams):
        opened = stream.ask(opening("a-1" if number == 0 else "never-seen", gateway=f"gw-{number}")).opened
        assert (opened.release, list(opened.levels)) == (1, [pb.LEVEL_ASSET if number == 0 else pb.LEVEL_CLASS])
    blocks: list[list[pb.ScoreBlock]] = [[], []]
    for i in range(0, n, 4):
        for number, stream in enumerate(streams):
            rows = values[number * n + i : number * n + i + 4]
            blocks[number].append(stream.ask(block(i, [0] * 4, times[i : i + 4], rows)).scores)
    assert [stream.half_close() for stream in streams] == [[], []]
    fleet = LiveFleet(Pack.from_bytes(pack, KERNELS), 1)
    for number, asset in enumerate(("a-1", "never-seen")):
        rows = np.repeat(fleet.open_assets("press", [asset]), n)
        answers = fleet.score(
            "press", rows, np.array(times), values[number * n : number * n + n], time.time_ns() // 1000
        )
        got = np.concatenate([values_of(scores, 2) for scores in blocks[number]])
        np.testing.assert_array_equal(got, answers.values)
        assert b"".join(scores.status for scores in blocks[number]) == answers.status.tobytes()
        assert b"".join(scores.levels for scores in blocks[number]) == answers.levels.tobytes()
        assert b"".join(scores.alarms for scores in blocks[number]) == answers.alarms.tobytes()
        assert [scores.sequence for scores in blocks[number]] == list(range(0, n, 4))


def check_score_equals_stream(channel: grpc.Channel) -> None:
    stub = scoring_pb2_grpc.ScoringStub(channel)
    times = [now_us() - 5 * MINUTE_US + i * MINUTE_US for i in range(4)]
    values = numbers(4)
    events = pb.EventBlock(sequence=1, handles=[0], times=[times[0]], codes=[0])
    unary = stub.Score(
        pb.ScoreRequest(
            open=opening("unary", event_codes=["error:e"]), events=events, readings=block(2, [0] * 4, times, values)
        ),
        timeout=30,
    )
    streamed = ask(channel, opening("stream", event_codes=["error:e"]), events, block(2, [0] * 4, times, values))
    assert [response.WhichOneof("body") for response in streamed] == ["opened", "scores", "scores"]
    assert list(streamed[1].scores.status) == [Status.ROW_STATUS_TAKEN]
    assert unary.scores.values == streamed[2].scores.values
    assert list(unary.opened.outputs) == ["failure", "anomaly"]
    assert not unary.HasField("revisions")
    again = stub.Score(pb.ScoreRequest(open=opening("unary"), readings=block(3, [0] * 4, times, values)), timeout=30)
    assert set(again.scores.status) == {Status.ROW_STATUS_DUPLICATE}
    late = stub.Score(
        pb.ScoreRequest(open=opening("late"), readings=block(1, [0, 0], [times[0], times[3]], values[:2])), timeout=30
    )
    assert list(late.scores.status) == [Status.ROW_STATUS_OK] * 2
    revised = stub.Score(
        pb.ScoreRequest(open=opening("late"), readings=block(2, [0], [times[2]], values[2])), timeout=30
    )
    assert list(revised.revisions.times) == [times[3]]


def check_a_refused_call_has_taken_nothing(channel: grpc.Channel) -> None:
    """Its events are as never sent, although its readings were what was wrong."""
    stub = scoring_pb2_grpc.ScoringStub(channel)
    now = now_us() - 5 * MINUTE_US
    events = pb.EventBlock(sequence=1, handles=[0], times=[now], codes=[0])
    told = {"event_codes": ["error:e"], "want_features": True}

    def features(asset: str) -> bytes:
        readings = block(2, [0], [now + MINUTE_US], numbers(1))
        answer = stub.Score(pb.ScoreRequest(open=opening(asset, **told), readings=readings), timeout=30)
        return np.array(answer.scores.features, np.float32).tobytes()

    too_many = block(1, [0] * 8193, [now] * 8193, [])
    with pytest.raises(grpc.RpcError) as caught:
        stub.Score(pb.ScoreRequest(open=opening("r-1", **told), events=events, readings=too_many), timeout=30)
    assert reason(caught.value)[1] == "BLOCK_TOO_LARGE"
    assert features("r-1") == features("r-2")
    stub.Score(pb.ScoreRequest(open=opening("r-3", **told), events=events, readings=block(1, [], [], [])), timeout=30)
    assert features("r-3") != features("r-2")


def check_rows(channel: grpc.Channel) -> None:
    """Each bad row has its own answer and its neighbours are scored."""
    now, inf, nan = now_us(), float("inf"), float("nan")
    rows = [
        (0, now - 9 * MINUTE_US, (50, 1, 1), Status.ROW_STATUS_OK),
        (0, now - 2 * MINUTE_US, (50, nan, 1), Status.ROW_STATUS_OK),
        (0, now - MINUTE_US, (inf, -inf, 101), Status.ROW_STATUS_OK),
        (7, now, (50, 1, 1), Status.ROW_STATUS_UNKNOWN_HANDLE),
        (2**32 - 1, now, (50, 1, 1), Status.ROW_STATUS_UNKNOWN_HANDLE),
        (0, now + 10 * MINUTE_US, (50, 1, 1), Status.ROW_STATUS_FUTURE),
        (0, now, (50, 1, 1), Status.ROW_STATUS_OK),
    ]
    for i, (handle, when, values, expected) in enumerate(rows):
        (_, answer) = ask(channel, opening("rows"), block(i, [handle], [when], values))
        assert (list(answer.scores.status), list(answer.scores.times)) == ([expected], [when])
    for i, (when, expected) in enumerate(
        [
            (now, Status.ROW_STATUS_DUPLICATE),
            (now + 1, Status.ROW_STATUS_OK),
            (now, Status.ROW_STATUS_SUPERSEDED),
            (now - 9 * MINUTE_US, Status.ROW_STATUS_TOO_LATE),
        ]
    ):
        answer = ask(channel, opening("rows"), block(i, [0], [when], (50, 1, 1)))[-1]
        assert list(answer.scores.status) == [expected], i
    wide, empty, good = (
        block(1, [0, 0], [now, now], np.ones(5)), block(2, [], [], []), block(3, [0], [now + 1], (50, 1, 1))
    )  # fmt: skip
    _, first, second, third = ask(channel, opening("rows"), wide, empty, good)
    assert list(first.scores.status) == [Status.ROW_STATUS_WRONG_WIDTH] * 2
    assert (second.scores.sequence, len(second.scores.status)) == (2, 0)
    assert list(third.scores.status) == [Status.ROW_STATUS_DUPLICATE]


def check_revisions_come_first(channel: grpc.Channel) -> None:
    now = now_us()
    values = numbers(3)
    answers = ask(
        channel,
        opening("revised", want_features=True),
        block(1, [0, 0], [now - 3 * MINUTE_US, now], values[:2]),
        block(2, [0], [now - MINUTE_US], values[2]),
    )
    assert [answer.WhichOneof("body") for answer in answers] == ["opened", "scores", "revisions", "scores"]
    assert list(answers[2].revisions.times) == [now]
    assert answers[2].revisions.sequence == 2
    width = len(answers[0].opened.features)
    assert len(answers[2].revisions.features) == width > 0
    assert list(answers[2].revisions.features) != list(answers[1].scores.features)[width:]


def check_resume_point(channel: grpc.Channel) -> None:
    """A gateway that comes back hears up to where it was answered."""
    blocks = [block(i, [0], [now_us()], (1, 2, 3)) for i in (1, 2, 4)]
    assert ask(channel, opening("x", gateway="back"), *blocks)[0].opened.resume_sequence == 0
    assert ask(channel, opening("x", gateway="back"))[0].opened.resume_sequence == 2
    assert ask(channel, opening("x", gateway="back", epoch=2))[0].opened.resume_sequence == 0


def check_refusals(channel: grpc.Channel) -> None:
    """Whole streams and calls that cannot go on: a code, a stable reason, and the connection serves the next."""
    bad, exhausted = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED
    stub = scoring_pb2_grpc.ScoringStub(channel)
    raw = channel.stream_stream("/wheeltapper.v1.Scoring/StreamScores")
    unary = channel.unary_unary("/wheeltapper.v1.Scoring/Score")
    for call, expected in [
        (lambda: list(raw(iter([b"\x12\x05abc"]), timeout=10)), (bad, "MALFORMED", 0.0)),
        (lambda: list(raw(iter([b""]), timeout=10)), (bad, "MALFORMED", 0.0)),
        (lambda: unary(b"\xff\xff", timeout=10), (bad, "MALFORMED", 0.0)),
        (lambda: unary(b"", timeout=10), (bad, "OPEN_INVALID", 0.0)),
        (lambda: ask(channel, block(1, [0], [1], [1, 2, 3])), (bad, "NOT_OPENED", 0.0)),
        (lambda: ask(channel, opening("x", sensors=["noise"])), (bad, "UNKNOWN_SENSOR", 0.0)),
        (lambda: ask(channel, opening("x", asset_class="?")), (grpc.StatusCode.NOT_FOUND, "UNKNOWN_CLASS", 0.0)),
        (
            lambda: ask(channel, opening("x", ack=pb.ACK_LEVEL_DURABLE)),
            (grpc.StatusCode.FAILED_PRECONDITION, "JOURNAL_OFF", 0.0),
        ),
        (lambda: ask(channel, opening("x"), block(1, [0] * 8193, [1] * 8193, [])), (bad, "BLOCK_TOO_LARGE", 0.0)),
        (lambda: stub.Score(pb.ScoreRequest(open=opening("x", "x")), timeout=10), (bad, "DUPLICATE_NAME", 0.0)),
    ]:
        assert refused(call) == expected
    with pytest.raises(grpc.RpcError) as caught:
        unary(bytes(5 * 1024 * 1024), timeout=10)
    assert caught.value.code() is exhausted
    assert ask(channel) == []
    assert ask(channel, opening("after"))[0].opened.release == 1


def check_reflection_is_off(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_release_is_swapped_in_between_blocks(running: Running, registry, packs: dict[str, bytes]):
    values = numbers(400)
    start = now_us() - 500 * MINUTE_US
    heard: list[pb.StreamResponse] = []
    with running.channel() as channel:
        stream = Conversation(channel)
        pack = stream.ask(opening("a-1")).opened.pack

        def send(i: int) -> int:
            stream.say(block(i, [0], [start + i * MINUTE_US], values[i]))
            while True:
                heard.append(stream.hear())
                if heard[-1].WhichOneof("body") == "scores":
                    return heard[-1].scores.release

        def until(release: int, i: int) -> int:
            deadline = time.monotonic() + 20
            while send(i) != release:
                i += 1
                assert time.monotonic() < deadline
                time.sleep(0.02)
            return i + 1

        i = until(1, 0)
        promote(registry, 2)
        i = until(2, i)
        promote(registry, 3)
        i = until(3, i)
        registry.rollback(who="a test", why="back")
        i = until(2, i)
        assert stream.half_close() == []
        assert ask(channel, opening("b"))[0].opened.pack != pack
    running.wait_for("reloaded")
    check_every_answer_matches_its_release(heard, values, start, packs)


def check_every_answer_matches_its_release(heard, values, start: int, packs: dict[str, bytes]) -> None:
    """Each block has the scores of the very release that it names; other columns are announced before they come."""
    packs_by_release = {1: packs["first"], 2: packs["second"], 3: packs["narrow"]}
    fleet = LiveFleet(Pack.from_bytes(packs["first"], KERNELS), 1)
    rows, outputs, i = fleet.open_assets("press", ["a-1"]), 2, 0
    for response in heard:
        if response.WhichOneof("body") == "opened":
            outputs = len(response.opened.outputs)
            continue
        scores = response.scores
        if scores.release != fleet.release:
            fleet.swap(Pack.from_bytes(packs_by_release[scores.release], KERNELS), scores.release)
        answers = fleet.score(
            "press", rows, np.array([start + i * MINUTE_US]), values[i : i + 1], time.time_ns() // 1000
        )
        np.testing.assert_array_equal(values_of(scores, outputs), answers.values)
        i += 1
    assert [r.opened.release for r in heard if r.WhichOneof("body") == "opened"] == [3, 2]


def test_a_bad_pack_is_refused_and_the_old_one_serves(running: Running, registry, packs: dict[str, bytes]):
    whole = packs["second"]
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    foreign = write_pack(dataclasses.replace(content(4), kernels="of another version"))
    other_class = write_pack(content(5, dataclasses.replace(PRESS, name="lathe")))
    with running.channel() as channel:
        stream = Conversation(channel)
        stream.ask(opening("x"))
        for sequence, bad in enumerate((whole[:-1], bytes(flipped), foreign, other_class)):
            promote(registry, registry.publish(bad, who="a test", why="bad").number)
            failures = sequence + 1
            deadline = time.monotonic() + 20
            while running.events().count("reload failed") < failures:
                assert time.monotonic() < deadline, running.lines()
                time.sleep(0.02)
            scores = stream.ask(block(sequence, [0], [now_us()], (1, 2, 3))).scores
            assert scores.release == 1
        assert health(channel) == SERVING
        promote(registry, 2)
        assert running.wait_for("reloaded")["release"] == 2
        assert stream.ask(block(9, [0], [now_us()], (1, 2, 3))).scores.release == 2
        stream.half_close()


def test_streams_are_limited_and_an_ended_one_gives_its_place_back(registry):
    with run_server(registry.path, "--streams-max", "2") as server, server.channel() as channel:
        streams = [Conversation(channel) for _ in range(2)]
        for stream in streams:
            stream.ask(opening("x"))
        code, why, retry_s = refused(lambda: ask(channel, opening("x")))
        assert (code, why) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
        assert retry_s > 0
        assert health(channel) == SERVING  # a full server is a healthy one
        streams[0].half_close()
        assert ask(channel, opening("x"))[0].opened.release == 1
        held = Conversation(channel)
        held.ask(opening("x"))
        assert not is_admitted(channel)
        streams[1].call.cancel()
        deadline = time.monotonic() + 10
        while not is_admitted(channel):  # the place of a cancelled stream is free as soon as the server hears of it
            assert time.monotonic() < deadline
        assert "a call failed" not in server.events()
