"""What the scorer knows of a class, asked before a replay: histories have more columns than a fleet has sensors, and a
scorer refuses names it does not know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import grpc
from wheeltapper_command.errors import CommandError, Refused
from wheeltapper_proto import scoring_pb2 as contract

from wheeltapper_gateway.rows import HistoryClass
from wheeltapper_gateway.wire import METHOD_UNARY


@dataclass(frozen=True, slots=True)
class KnownNames:
    sensors: frozenset[str]
    attributes: frozenset[str]  # those of the history that the scorer takes


def known_names(
    connect: Callable[[], grpc.Channel], gateway: str, own: HistoryClass, timeout_seconds: float
) -> KnownNames:
    """Ask with empty blocks, under the name of the gateway. Raises Refused for a class that the scorer
    does not have, CommandError where it cannot be reached within `timeout_seconds`."""
    channel = connect()
    try:
        ask = channel.unary_unary(
            METHOD_UNARY,
            request_serializer=contract.ScoreRequest.SerializeToString,
            response_deserializer=contract.ScoreResponse.FromString,
        )
        opened = contract.Open(gateway=gateway, asset_class=own.name)
        try:
            answer = ask(contract.ScoreRequest(open=opened), timeout=timeout_seconds, wait_for_ready=True)
        except grpc.RpcError as error:
            code, details = error.code(), error.details()
            if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise CommandError(f"no scorer answered within {timeout_seconds:.0f} s: {details}") from error
            raise Refused(f"the scorer declines class {own.name!r}: {details} ({code.name})") from error
        attributes = {name for values in own.attributes.values() for name in values}
        taken = set()
        for name in sorted(attributes):
            opened = contract.Open(gateway=gateway, asset_class=own.name, attributes=[name])
            try:
                ask(contract.ScoreRequest(open=opened), timeout=timeout_seconds)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                    raise CommandError(f"the scorer went away: {error.details()}") from error
            else:
                taken.add(name)
        return KnownNames(frozenset(answer.opened.missing_sensors), frozenset(taken))
    finally:
        channel.close()
