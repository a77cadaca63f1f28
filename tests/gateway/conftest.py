"""A scorer that speaks the contract over real gRPC and misbehaves on demand: what a gateway must survive."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures

import grpc
import pytest
from wheeltapper_proto import scoring_pb2 as pb
from wheeltapper_proto import scoring_pb2_grpc

OUTPUTS = ("rul", "failure")


class EchoScorer(scoring_pb2_grpc.ScoringServicer):
    """Answers every row with scores (first value, its negative). Knobs are plain attributes, read at every block."""

    def __init__(self, port: int = 0, class_sensors: tuple[str, ...] = ("vibration", "temperature")) -> None:
        self.class_sensors = class_sensors
        self.lock = threading.Lock()
        self.opens: list[pb.Open] = []
        self.blocks: list[pb.ReadingBlock | pb.EventBlock] = []  # in the order they came, resent ones again
        self.said: list[tuple[pb.Open, pb.ReadingBlock | pb.EventBlock]] = []  # the same, and under which Open
        self.seen: dict[tuple[str, int], tuple[float, ...]] = {}  # (asset id, time) → values first taken in
        self.rows: list[tuple[str, int, bool]] = []  # (asset id, time, historical) first taken in, in order
        self.events: list[tuple[str, int, str]] = []
        self.safe: dict[tuple[str, int], int] = {}  # (gateway, epoch) → newest sequence taken in
        self.break_after = -1  # blocks answered before the stream breaks without a word; counts down
        self.swallow = 0  # blocks taken in whose answer is lost when the stream breaks
        self.drain_after = -1
        self.silent = False  # takes in, never answers
        self.lose = 0  # blocks that the line drops, while it brings the others
        self.acks = True
        self.delay_seconds = 0.0
        self.before_answer: Callable[[], None] = lambda: None
        self.refused_asset = ""
        self.refuse: tuple[grpc.StatusCode, str] | None = None
        self.rows_max = 4096  # a change is told before the next answer, as that of a release
        self.revise = False  # each block revises the first row of the block before
        self.times_revised = 1  # so often in one answer
        self.cut_revisions = 0  # streams that break after revisions, before the scores that belong to them
        self.revisions: dict[int, pb.ScoreBlock] = {}  # by the block that caused them, told again when it comes again
        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        scoring_pb2_grpc.add_ScoringServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self.address = f"127.0.0.1:{self.port}"
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None).wait()

    def Score(self, request: pb.ScoreRequest, context: grpc.ServicerContext) -> pb.ScoreResponse:  # noqa: N802
        return pb.ScoreResponse(opened=self._opened(request.open, 0))

    def StreamScores(self, requests: Iterator[pb.StreamRequest], context: grpc.ServicerContext) -> Iterator[bytes]:  # noqa: N802
        stream: list[str] = []
        codes: list[str] = []
        opened = pb.Open()
        before: pb.ScoreBlock | None = None
        rows_max = 0
        for request in requests:
            if self.refuse:
                context.abort(*self.refuse)
            body = request.WhichOneof("body")
            if body == "open":
                opened = request.open
                if self.refused_asset in opened.asset_ids:
                    context.abort(grpc.StatusCode.PERMISSION_DENIED, f"{self.refused_asset!r} is not granted")
                self.opens.append(opened)
                answer = self._opened(opened, len(stream))
                stream.extend(opened.asset_ids)
                codes[:] = opened.event_codes
                rows_max = answer.rows_max
                yield pb.StreamResponse(opened=answer)
                continue
            block = getattr(request, body)
            if self.lose > 0:
                self.lose -= 1
                continue
            if len(block.times) > rows_max:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"expected at most {rows_max} rows in a block")
            if rows_max != self.rows_max:
                rows_max = self.rows_max
                yield pb.StreamResponse(opened=self._opened(pb.Open(asset_ids=stream), 0))
            scores = self._take(block, body, stream, codes, opened)
            while self.silent and context.is_active():
                time.sleep(0.01)
            time.sleep(self.delay_seconds)
            self.before_answer()
            if self.swallow > 0:
                self.swallow -= 1
                context.abort(grpc.StatusCode.UNAVAILABLE, "cable cut")
            if self.revise and body == "readings":
                if before is not None:
                    self.revisions.setdefault(block.sequence, self._revision(before, block.sequence))
                before = scores
                if block.sequence in self.revisions:
                    for _ in range(self.times_revised):
                        yield pb.StreamResponse(revisions=self.revisions[block.sequence])
                    if self.cut_revisions > 0:
                        self.cut_revisions -= 1
                        context.abort(grpc.StatusCode.UNAVAILABLE, "cable cut")
            yield pb.StreamResponse(scores=scores)
            if opened.ack == pb.ACK_LEVEL_DURABLE and self.acks:
                yield pb.StreamResponse(ack=pb.Ack(sequence=block.sequence))
            if self.drain_after == 0:
                yield pb.StreamResponse(drain=pb.Drain(reason="rolling restart"))
            self.drain_after -= 1
            if self.break_after == 0:
                self.break_after = -1
                context.abort(grpc.StatusCode.UNAVAILABLE, "cable cut")
            self.break_after -= self.break_after > 0

    def _opened(self, opened: pb.Open, first: int) -> pb.Opened:
        return pb.Opened(
            handles=[first + 1000 + i for i in range(len(opened.asset_ids))],
            release=7,
            pack="ab" * 32,
            resume_sequence=self.safe.get((opened.gateway, opened.epoch), 0),
            outputs=OUTPUTS,
            features=["vibration mean"] if opened.want_features or opened.reasons_top else [],
            missing_sensors=[name for name in self.class_sensors if name not in opened.sensors],
            rows_max=self.rows_max,
        )

    def _take(
        self, block: pb.ReadingBlock | pb.EventBlock, body: str, stream: list[str], codes: list[str], opened: pb.Open
    ) -> pb.ScoreBlock:
        rows, width = len(block.times), len(opened.sensors)
        names = dict(enumerate(stream, start=1000))
        status, values = bytearray(), []
        with self.lock:
            self.blocks.append(block)
            self.said.append((opened, block))
            key = (opened.gateway, opened.epoch)
            self.safe[key] = max(self.safe.get(key, 0), block.sequence)
            for i in range(rows):
                asset, when = names.get(block.handles[i]), block.times[i]
                is_known = body == "readings" or block.codes[i] < len(codes)
                if asset is None or not is_known or body == "events":
                    values += [float("nan")] * len(OUTPUTS)
                    status.append(pb.ROW_STATUS_UNKNOWN_HANDLE if asset is None else pb.ROW_STATUS_UNKNOWN_CODE)
                    if asset is not None and is_known:
                        status[-1] = pb.ROW_STATUS_TAKEN
                        self.events.append((asset, when, codes[block.codes[i]]))
                    continue
                cells = tuple(block.values[i * width : (i + 1) * width])
                known = (asset, when) in self.seen
                if not known:
                    self.rows.append((asset, when, block.historical))
                cells = self.seen.setdefault((asset, when), cells)
                status.append(pb.ROW_STATUS_DUPLICATE if known else pb.ROW_STATUS_OK)
                values += [cells[0], -cells[0]]
        explained = range(rows) if body == "readings" and opened.reasons_top else []
        return pb.ScoreBlock(
            sequence=block.sequence,
            release=7,
            handles=block.handles,
            times=block.times,
            status=bytes(status),
            values=values,
            levels=bytes([pb.LEVEL_CLASS, pb.LEVEL_ASSET]) * rows,
            alarms=bytes([pb.ALARM_STATE_NONE, pb.ALARM_STATE_RAISED]) * rows,
            health=bytes([pb.HEALTH_MISSING | pb.HEALTH_LATE]) * rows,
            features=values[:: len(OUTPUTS)] if opened.want_features else [],
            reason_rows=[row for row in explained for _ in OUTPUTS],
            reason_outputs=[output for _ in explained for output in range(len(OUTPUTS))],
            reason_features=[0 for _ in explained for _ in OUTPUTS],
            reason_values=[values[row * len(OUTPUTS) + output] for row in explained for output in range(len(OUTPUTS))],
        )

    def _revision(self, scores: pb.ScoreBlock, cause: int) -> pb.ScoreBlock:
        return pb.ScoreBlock(
            sequence=cause,
            release=7,
            handles=scores.handles[:1],
            times=scores.times[:1],
            status=bytes([pb.ROW_STATUS_OK]),
            values=[value * 10 for value in scores.values[: len(OUTPUTS)]],
            levels=scores.levels[: len(OUTPUTS)],
            alarms=bytes(len(OUTPUTS)),
            health=scores.health[:1],
            features=[value * 10 for value in scores.features[:1]],
        )


def float32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


@pytest.fixture
def scorer() -> Iterator[EchoScorer]:
    server = EchoScorer()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """Every test ends with the gateway threads it began with."""
    yield
    until = time.monotonic() + 5
    while time.monotonic() < until and (left := [t for t in threading.enumerate() if "wheeltapper" in t.name]):
        time.sleep(0.01)
    assert not left
