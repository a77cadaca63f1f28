"""What an Open says, checked against the fleet: every name known, none twice, every column as long as it must be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from wheeltapper.reasons import TOP_MAX
from wheeltapper.spec import ClassSpec
from wheeltapper_proto import scoring_pb2

from wheeltapper_scorer.faults import CallError, Reason
from wheeltapper_scorer.settings import Settings


@dataclass(frozen=True, slots=True)
class Speaker:
    """What the first Open of a stream fixes for all of it."""

    gateway: str
    epoch: int
    asset_class: str
    sensors: tuple[str, ...]
    event_codes: tuple[str, ...]
    want_features: bool
    reasons_top: int
    reasons_always: bool
    durable: bool

    @property
    def needs_features(self) -> bool:
        return self.want_features or self.reasons_top > 0


def speaker(message: scoring_pb2.Open, known_classes: Sequence[str], settings: Settings) -> Speaker:
    """The speaker of a first Open. Raises CallError with the reason why it may not speak."""
    _name("gateway", message.gateway, settings)
    durable = message.ack == scoring_pb2.ACK_LEVEL_DURABLE
    if durable and settings.state is None:
        raise CallError(Reason.JOURNAL_OFF, "ack DURABLE needs a journal, and this scorer keeps none; ask for SCORED")
    check_class(message.asset_class, known_classes)
    for field, names in (("sensors", message.sensors), ("event_codes", message.event_codes)):
        _names(field, names, settings.names_max, Reason.OPEN_INVALID, settings)
    if message.reasons_top > TOP_MAX:
        raise CallError(
            Reason.OPEN_INVALID, f"reasons_top: at most {TOP_MAX} reasons are given; found {message.reasons_top:,}"
        )
    for code in message.event_codes:
        if not all(code.partition(":")):
            raise CallError(Reason.OPEN_INVALID, f'event_codes: expected "kind:code"; found {code!r}')
    return Speaker(
        message.gateway,
        message.epoch,
        message.asset_class,
        tuple(message.sensors),
        tuple(message.event_codes),
        message.want_features,
        message.reasons_top,
        message.reasons_always,
        durable,
    )


def check_class(found: str, known: Sequence[str]) -> None:
    """Raises CallError UNKNOWN_CLASS unless the serving release has the class."""
    if found not in known:
        raise CallError(Reason.UNKNOWN_CLASS, f"asset_class: expected one of {_listed(known)}; found {found[:99]!r}")


def check_again(first: Speaker, message: scoring_pb2.Open) -> None:
    """A later Open repeats the first or leaves its fields out; it only adds assets. Raises CallError OPEN_DIFFERS."""
    pairs = (
        ("gateway", message.gateway, first.gateway),
        ("epoch", message.epoch, first.epoch),
        ("asset_class", message.asset_class, first.asset_class),
        ("sensors", tuple(message.sensors), first.sensors),
        ("event_codes", tuple(message.event_codes), first.event_codes),
    )
    for field, found, expected in pairs:
        if found and found != expected:
            raise CallError(
                Reason.OPEN_DIFFERS, f"{field}: a later Open only adds assets; repeat the first one's or leave it out"
            )
    if message.ack == scoring_pb2.ACK_LEVEL_DURABLE and not first.durable:
        raise CallError(Reason.OPEN_DIFFERS, "ack: this stream was opened for SCORED")


def sensor_columns(spec: ClassSpec, sensors: Sequence[str]) -> NDArray[np.int64]:
    """Where each of the gateway's sensors stands in a row of the class. Raises CallError UNKNOWN_SENSOR."""
    position = {sensor.name: i for i, sensor in enumerate(spec.sensors)}
    for name in sensors:
        if name not in position:
            raise CallError(
                Reason.UNKNOWN_SENSOR,
                f"sensors: class {spec.name!r} has {_listed(list(position))}; found {name!r}, which it has not",
            )
    return np.array([position[name] for name in sensors], dtype=np.int64)


def asset_ids(message: scoring_pb2.Open, settings: Settings) -> list[str]:
    """The assets of an Open. Raises CallError where one is empty, too long or named twice."""
    _names("asset_ids", message.asset_ids, settings.assets_max, Reason.TOO_MANY_ASSETS, settings)
    return list(message.asset_ids)


def statics(spec: ClassSpec, message: scoring_pb2.Open) -> NDArray[np.float32] | None:
    """assets × static attributes of the class, NaN where the gateway does not say; None where it says nothing.

    Raises CallError where an attribute is unknown or named twice, or the values are not assets × attributes.
    """
    names = list(message.attributes)
    if len(message.attribute_values) != len(message.asset_ids) * len(names):
        raise CallError(
            Reason.OPEN_INVALID,
            f"attribute_values: expected {len(message.asset_ids)} assets × {len(names)} attributes, "
            f"found {len(message.attribute_values)}",
        )
    _distinct("attributes", names)
    position = {name: i for i, name in enumerate(spec.statics)}
    for name in names:
        if name not in position:
            raise CallError(
                Reason.UNKNOWN_ATTRIBUTE,
                f"attributes: class {spec.name!r} has {_listed(spec.statics)}; found {name[:99]!r}, which it has not",
            )
    if not names:
        return None
    told = np.full((len(message.asset_ids), len(spec.statics)), np.nan, dtype=np.float32)
    values = np.array(message.attribute_values, dtype=np.float32)
    told[:, [position[name] for name in names]] = values.reshape(len(message.asset_ids), len(names))
    return told


def _names(field: str, names: Sequence[str], count_max: int, too_many: Reason, settings: Settings) -> None:
    if len(names) > count_max:
        raise CallError(too_many, f"{field}: at most {count_max:,} are allowed; found {len(names):,}")
    for name in names:
        _name(field, name, settings)
    _distinct(field, names)


def _name(field: str, name: str, settings: Settings) -> None:
    if not 0 < len(name.encode()) <= settings.name_bytes_max:
        raise CallError(
            Reason.OPEN_INVALID,
            f"{field}: expected a name of 1 to {settings.name_bytes_max} bytes; found {len(name.encode())}",
        )


def _distinct(field: str, names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise CallError(Reason.DUPLICATE_NAME, f"{field}: {name!r} is named twice")
        seen.add(name)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:20])
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown or "none"
