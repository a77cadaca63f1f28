"""The memory of answers as bytes of a snapshot: of each gateway one payload (docs/journal-v1.md).

A payload is the length of a JSON head, the head, and the messages of the answers end to end, each a `StreamResponse` as
the gateway would get it, but with rows of the fleet for handles.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from wheeltapper.reasons import Reasons
from wheeltapper_proto import scoring_pb2

from wheeltapper_scorer import wire
from wheeltapper_scorer.answer_memory import AnswerMemory, Asked, Body, Named, Told
from wheeltapper_scorer.wire import Scores

_LENGTH = struct.Struct("<I")


def pack(gateway: str, epoch: int, settled: int, answers: Sequence[Told]) -> bytes:
    """One gateway's answers, oldest first."""
    named = list(dict.fromkeys(told.named for told in answers))
    told_as, messages = [], []
    for told in answers:
        own = [wire.encode_scores(one) for one in (*told.revisions, told.scores)]
        messages += own
        told_as.append([*told.asked, told.clock_us, named.index(told.named), told.bytes, [len(one) for one in own]])
    head = {"gateway": gateway, "epoch": epoch, "settled": settled, "named": named, "answers": told_as}
    text = json.dumps(head).encode()
    return b"".join((_LENGTH.pack(len(text)), text, *messages))


def unpack(payload: memoryview, memory: AnswerMemory) -> None:
    """Put the answers of one gateway into a memory. Raises ValueError, TypeError, LookupError or struct.error where
    `pack` did not write these bytes."""
    (size,) = _LENGTH.unpack_from(payload)
    at = _LENGTH.size + size
    head = json.loads(bytes(payload[_LENGTH.size : at]))
    named = [
        Named(release, sha256, tuple(outputs), tuple(features), tuple(wanted))
        for release, sha256, outputs, features, wanted in head["named"]
    ]
    answers = []
    for body, sequence, check, clock_us, which, size, lengths in head["answers"]:
        scores = []
        for length in lengths:
            scores.append(_scores(payload[at : at + length], named[which]))
            at += length
        asked = Asked(Body(body), sequence, check)
        answers.append(Told(asked, clock_us, named[which], tuple(scores[:-1]), scores[-1], size))
    memory.restore(head["gateway"], head["epoch"], head["settled"], answers)


def _scores(raw: memoryview, named: Named) -> Scores:
    try:
        block = scoring_pb2.StreamResponse.FromString(bytes(raw)).scores
    except DecodeError as error:
        raise ValueError(f"expected an answer, found {len(raw):,} bytes that are none") from error
    rows, outputs = len(block.handles), len(named.outputs)
    wants_features, reasons_top, _ = named.wanted
    values = np.array(block.values, np.float32).reshape(rows, outputs)
    features = np.array(block.features, np.float32).reshape(rows, len(named.features)) if wants_features else None
    return Scores(
        block.sequence,
        block.release,
        np.array(block.handles, np.uint32),
        np.array(block.times, np.int64),
        _bytes(block.status, rows),
        values,
        _bytes(block.levels, rows, outputs),
        _bytes(block.alarms, rows, outputs),
        _bytes(block.health, rows),
        features,
        _reasons(block) if reasons_top else None,
    )


def _bytes(column: bytes, *shape: int) -> NDArray[np.uint8]:
    return np.frombuffer(column, np.uint8).reshape(shape)


def _reasons(block: scoring_pb2.ScoreBlock) -> Reasons:
    return Reasons(
        np.array(block.reason_rows, np.int64),
        np.array(block.reason_outputs, np.uint8),
        np.array(block.reason_features, np.int32),
        np.array(block.reason_values, np.float32),
    )
