"""The memory of answers as bytes of a snapshot: of each gateway one payload (docs/journal-v1.md).

A payload is the length of a JSON head, the head, and the messages of the answers end to end, as the memory keeps them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence

from wheeltapper_scorer import wire
from wheeltapper_scorer.answer_memory import AnswerMemory, Body, Named, Told
from wheeltapper_scorer.wire import Scores

_LENGTH = struct.Struct("<I")
_NOWHERE = "[]}"  # the end of a head without answers


def pack(gateway: str, epoch: int, settled: int, answers: Sequence[Told]) -> bytes:
    """One gateway's answers, oldest first. For a thread beside the event loop: JSON is written answer by answer, for
    all at once would hold the interpreter."""
    named = list(dict.fromkeys(told.named for told in answers))
    told_as: list[str] = []
    messages: list[bytes] = []
    for told in answers:
        own = (*told.revisions, told.scores)
        messages += own
        asked = told.body, told.sequence, told.check
        told_as.append(
            json.dumps([*asked, told.clock_us, named.index(told.named), told.bytes, [len(one) for one in own]])
        )
    head = json.dumps({"gateway": gateway, "epoch": epoch, "settled": settled, "named": named, "answers": []})
    text = f"{head.removesuffix(_NOWHERE)}[{', '.join(told_as)}]}}".encode()
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
    for body, sequence, check, clock_us, which, _, lengths in head["answers"]:
        messages = []
        for length in lengths:
            messages.append(bytes(payload[at : at + length]))
            at += length
            scores_of(messages[-1], named[which])  # whoever asks again must be able to read it
        *revisions, scores = messages
        answers.append(Told(Body(body), sequence, check, clock_us, named[which], tuple(revisions), scores))
    memory.restore(head["gateway"], head["epoch"], head["settled"], answers)


def scores_of(message: bytes, named: Named) -> Scores:
    """An answer as columns, which cannot be written. Raises ValueError where the message does not have them."""
    wants_features, reasons_top, _ = named.wanted
    features = len(named.features) if wants_features else None
    return wire.decode_scores(message, len(named.outputs), features, has_reasons=reasons_top > 0)
