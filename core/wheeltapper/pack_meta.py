"""The words of a pack: names, specs, outputs and lineage, as canonical JSON (docs/pack-v1.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wheeltapper.errors import PackError
from wheeltapper.spec import TARGET_KINDS, ClassSpec, class_from_json, to_json

FORMAT = "wheeltapper pack 1"
_KEYS = {"format": str, "fleet": str, "seed": int, "kernels": str, "lineage": dict, "classes": list}
_CLASS_KEYS = {"name": str, "spec": dict, "outputs": list}
_OUTPUT_KEYS = {
    "name": str,
    "kind": str,
    "unit": str,
    "code": str,
    "slots": list,
    "cap": (int, float),
    "threshold": (int, float, type(None)),
    "hold": int,
    "hysteresis": (int, float),
    "metrics": dict,
}


@dataclass(frozen=True, slots=True)
class Output:
    """One column of a class's answers: slots [begin, end) give it. threshold None: it never raises an alarm."""

    name: str
    kind: str
    begin: int
    end: int
    unit: str = ""
    code: str = "*"
    cap: float = 0.0
    threshold: float | None = None
    hold: int = 1
    hysteresis: float = 1.0
    metrics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Meta:
    """The meta section, read. `classes` holds (spec, outputs) of each class."""

    document: dict[str, Any]
    fleet: str
    seed: int
    kernels: str
    lineage: dict[str, Any]
    classes: tuple[tuple[ClassSpec, tuple[Output, ...]], ...]


def canonical_json(document: Mapping[str, Any]) -> bytes:
    """One spelling per document. Raises ValueError for NaN or infinity, which JSON cannot say."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def outputs_to_json(outputs: Sequence[Output]) -> list[dict[str, Any]]:
    return [
        {
            "name": o.name,
            "kind": o.kind,
            "unit": o.unit,
            "code": o.code,
            "slots": [o.begin, o.end],
            "cap": o.cap,
            "threshold": o.threshold,
            "hold": o.hold,
            "hysteresis": o.hysteresis,
            "metrics": dict(o.metrics),
        }
        for o in outputs
    ]


def read_meta(data: bytes) -> Meta:
    """Parse and check the meta section. Raises PackError naming the key, what was expected and what was found."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise PackError(f"pack's meta is not JSON: {error}") from error
    _require(document, _KEYS, "meta")
    if document["format"] != FORMAT:
        raise PackError(f"meta.format: expected {FORMAT!r}, found {document['format']!r}")
    classes = tuple(_read_class(entry, f"meta.classes[{k}]") for k, entry in enumerate(document["classes"]))
    names = [spec.name for spec, _ in classes]
    if len(set(names)) != len(names):
        raise PackError(f"meta.classes: expected each name once, found {names}")
    return Meta(document, document["fleet"], document["seed"], document["kernels"], document["lineage"], classes)


def _read_class(entry: Any, where: str) -> tuple[ClassSpec, tuple[Output, ...]]:
    _require(entry, _CLASS_KEYS, where)
    try:
        spec = class_from_json(entry["spec"])
        same = to_json(spec) == entry["spec"]
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise PackError(f"{where}.spec: expected an asset class, found {type(error).__name__}: {error}") from error
    if not same or spec.name != entry["name"]:
        raise PackError(f"{where}.spec: expected the canonical spec of class {entry['name']!r}")
    outputs = tuple(_read_output(output, f"{where}.outputs[{i}]") for i, output in enumerate(entry["outputs"]))
    found = [(o.name, o.kind) for o in outputs]
    expected = [(t.name, t.kind) for t in spec.targets]
    if found != expected:
        raise PackError(f"{where}.outputs: expected the spec's targets {expected}, found {found}")
    begin = 0
    for output, target in zip(outputs, spec.targets, strict=True):
        count = len(target.watched()) if target.kind == "anomaly" else 1
        if (output.begin, output.end) != (begin, begin + count):
            expected_slots, found_slots = [begin, begin + count], [output.begin, output.end]
            raise PackError(f"{where}.outputs {output.name!r}: expected slots {expected_slots}, found {found_slots}")
        begin += count
    return spec, outputs


def _read_output(entry: Any, where: str) -> Output:
    _require(entry, _OUTPUT_KEYS, where)
    if entry["kind"] not in TARGET_KINDS:
        raise PackError(f"{where}.kind: expected one of {TARGET_KINDS}, found {entry['kind']!r}")
    slots = entry["slots"]
    if len(slots) != 2 or not all(type(slot) is int for slot in slots):
        raise PackError(f"{where}.slots: expected two whole numbers, found {slots}")
    fields = {key: value for key, value in entry.items() if key != "slots"}
    return Output(begin=slots[0], end=slots[1], **fields)


def _require(document: Any, keys: Mapping[str, Any], where: str) -> None:
    """Exactly these keys, each of its type."""
    if not isinstance(document, dict) or set(document) != set(keys):
        found = sorted(document) if isinstance(document, dict) else type(document).__name__
        raise PackError(f"{where}: expected the keys {sorted(keys)}, found {found}")
    for key, kind in keys.items():
        if not isinstance(document[key], kind) or isinstance(document[key], bool):
            raise PackError(f"{where}.{key}: expected {kind}, found {document[key]!r}")
