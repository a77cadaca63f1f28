"""Why a call is refused as a whole. Each reason is stable: clients may branch on it, and it never changes meaning."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """`google.rpc.ErrorInfo.reason`, under the domain "wheeltapper"."""

    # the caller's to mend
    MALFORMED = "MALFORMED"  # the bytes are no message, or the message has no body
    NOT_OPENED = "NOT_OPENED"  # a block came before Open
    OPEN_INVALID = "OPEN_INVALID"  # a name is empty, too long, or the columns of attributes do not fit
    OPEN_DIFFERS = "OPEN_DIFFERS"  # a later Open of a stream may only add assets
    UNKNOWN_CLASS = "UNKNOWN_CLASS"
    UNKNOWN_SENSOR = "UNKNOWN_SENSOR"
    UNKNOWN_ATTRIBUTE = "UNKNOWN_ATTRIBUTE"
    DUPLICATE_NAME = "DUPLICATE_NAME"  # a sensor, asset or attribute is named twice in one Open
    BLOCK_TOO_LARGE = "BLOCK_TOO_LARGE"  # more rows than Opened.rows_max
    TOO_MANY_ASSETS = "TOO_MANY_ASSETS"  # more assets than one stream may open
    NOT_GRANTED = "NOT_GRANTED"  # who speaks may not speak so, or not for this class or asset
    EXPIRED = "EXPIRED"  # the caller's own deadline passed while the block waited
    OPEN_TIMEOUT = "OPEN_TIMEOUT"  # a stream stayed silent instead of opening
    # what this server cannot give
    JOURNAL_OFF = "JOURNAL_OFF"  # ack=DURABLE needs a journal, and this server keeps none
    # for another time, or another server
    JOURNAL_FAILED = "JOURNAL_FAILED"  # the journal's disk is full or broken: scored blocks go on, durable ones wait
    CAPACITY = "CAPACITY"  # this server's windows are all taken
    OVERLOADED = "OVERLOADED"  # blocks wait here longer, or more bytes of them, than the settings allow
    TOO_MANY_CALLS = "TOO_MANY_CALLS"
    TOO_MANY_STREAMS = "TOO_MANY_STREAMS"
    ANSWER_TOO_LARGE = "ANSWER_TOO_LARGE"  # a Score's revisions do not fit into one message
    DRAINING = "DRAINING"
    INTERNAL = "INTERNAL"  # the server's own fault


class CallError(Exception):
    """A call ends here. `retry_s` > 0: the same call may succeed after that many seconds."""

    def __init__(self, reason: Reason, message: str, retry_s: float = 0.0) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_s = retry_s
