"""A CallError as gRPC says it: a code, and a google.rpc.Status with ErrorInfo and, where it helps, RetryInfo."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NoReturn, cast

import grpc
from google.protobuf import any_pb2, duration_pb2, message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from wheeltapper_scorer.faults import CallError, Reason

DOMAIN = "wheeltapper"

_CODES = {
    Reason.MALFORMED: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.NOT_OPENED: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.OPEN_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.OPEN_DIFFERS: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.UNKNOWN_CLASS: grpc.StatusCode.NOT_FOUND,
    Reason.UNKNOWN_SENSOR: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.UNKNOWN_ATTRIBUTE: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.DUPLICATE_NAME: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.BLOCK_TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.TOO_MANY_ASSETS: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.NOT_GRANTED: grpc.StatusCode.PERMISSION_DENIED,
    Reason.EXPIRED: grpc.StatusCode.DEADLINE_EXCEEDED,
    Reason.OPEN_TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
    Reason.JOURNAL_OFF: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.CAPACITY: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.TOO_MANY_CALLS: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.TOO_MANY_STREAMS: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.ANSWER_TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.JOURNAL_FAILED: grpc.StatusCode.UNAVAILABLE,
    Reason.DRAINING: grpc.StatusCode.UNAVAILABLE,
    Reason.INTERNAL: grpc.StatusCode.INTERNAL,
}


async def refuse(context: grpc.aio.ServicerContext[bytes, bytes], error: CallError) -> NoReturn:
    """End the call with the error. Raises what grpc raises to end it."""
    status = _as_grpc_says_it(error.reason, str(error), error.retry_s)
    await context.abort(status.code, status.details, status.trailing_metadata)
    raise AssertionError("abort always raises")


@lru_cache(maxsize=64)
def _as_grpc_says_it(reason: Reason, text: str, retry_s: float) -> grpc.Status:
    """Kept, because an overloaded scorer says the same again and again, and must say it cheaply."""
    return rpc_status.to_status(status_of(CallError(reason, text, retry_s)))


def status_of(error: CallError) -> status_pb2.Status:
    details = [_packed(error_details_pb2.ErrorInfo(reason=error.reason.value, domain=DOMAIN))]
    if error.retry_s > 0:
        delay = duration_pb2.Duration(nanos=0)
        delay.FromNanoseconds(round(error.retry_s * 1e9))
        details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    code = cast(tuple[Any, str], _CODES[error.reason].value)[0]
    return status_pb2.Status(code=code, message=str(error), details=details)


def _packed(detail: message.Message) -> any_pb2.Any:
    envelope = any_pb2.Any()
    envelope.Pack(detail)
    return envelope
