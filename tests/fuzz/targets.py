"""What is fed with hostile bytes. A target takes any bytes and ends, or raises an error that its reader promises."""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
import tempfile
import time
from array import array
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NoReturn

import numpy as np
from packs import small_content
from presses import content
from wheeltapper import warmth
from wheeltapper.chain import STAGES, entry_bytes, sealed
from wheeltapper.config import parse_fleet
from wheeltapper.errors import CommandError, NotFound, PackError
from wheeltapper.features import KERNELS
from wheeltapper.forest import margins
from wheeltapper.live import LiveFleet
from wheeltapper.pack import Pack, write_pack
from wheeltapper.promotion import check_promotion, rollback_target
from wheeltapper.registry import Registry
from wheeltapper.signing import Signer, TrustedKeys, generate_keys
from wheeltapper.stage_pointer import pointer_bytes
from wheeltapper_gateway.spool import Kind, Spool
from wheeltapper_gateway.wire import Columns, ProtocolError, decode_response
from wheeltapper_proto import scoring_pb2 as pb
from wheeltapper_scorer import records, segments, snapshot, wire
from wheeltapper_scorer.access import read_grants
from wheeltapper_scorer.faults import CallError
from wheeltapper_scorer.recovery import recover
from wheeltapper_scorer.resume import ResumePoints
from wheeltapper_scorer.session import Session
from wheeltapper_scorer.settings import Settings

Target = Callable[[bytes], None]
SETTINGS = Settings(assets_max=1_000, capacity_max=1_000, rows_max=512)
_PACK = b"a pack"
_PACK_SHA256 = hashlib.sha256(_PACK).hexdigest()
FLEET_TOML = Path(__file__).parent / "fleet.toml"


@cache
def _fleet_pack() -> Pack:
    return Pack.from_bytes(write_pack(content(1)), KERNELS)


@cache
def _pack_bytes() -> bytes:
    return write_pack(small_content())


def wire_stream(data: bytes) -> None:
    """Messages of one stream, each behind its length in two bytes: decoded, and told to a session on a real fleet."""
    session = Session(LiveFleet(_fleet_pack(), 1, 1_000), SETTINGS, ResumePoints(8))
    now_us = time.time_ns() // 1_000
    try:
        for message in _pieces(data):
            request = wire.decode_stream(message)
            if isinstance(request, pb.Open):
                session.open(request)
                continue
            work = session.score if isinstance(request, wire.Readings) else session.take_events
            answered = work(request, now_us)  # type: ignore[operator]
            columns = max(len(request.handles), len(request.times))
            if len(answered.scores.status) != columns:
                raise AssertionError(f"{columns} rows were sent, {len(answered.scores.status)} were answered")
            wire.encode_scores(answered.scores)
    except CallError:
        return


def wire_unary(data: bytes) -> None:
    session = Session(LiveFleet(_fleet_pack(), 1, 1_000), SETTINGS, ResumePoints(8))
    try:
        request = wire.decode_unary(data)
        session.open(request.open)
        session.score(request.readings, time.time_ns() // 1_000)
    except CallError:
        return


def wire_answer(data: bytes) -> None:
    """What a hostile scorer could say to a gateway."""
    try:
        decode_response(data, Columns(("failure", "anomaly"), ("a", "b", "c"), ("a", "b")))
    except ProtocolError:
        return


def pack(data: bytes) -> None:
    """Any bytes as a pack; and what they do to a good pack whose digest is made to fit again."""
    for tried in (data, _patched(data)):
        try:
            opened = Pack.from_bytes(tried)
        except PackError:
            continue
        for asset in ("pump-1", "", "\x00"):
            opened.asset_index(asset)
        for one in opened.classes:
            heads = np.flatnonzero(opened.head_class == one.index).astype(np.int32)
            margins(opened.forest, heads, np.full((len(heads), one.features), np.nan, np.float32))


def journal(data: bytes) -> None:
    number = data[0] if data else 0
    reader = records.Reader(memoryview(data[1:]), number)
    whole = list(reader)
    if sum(len(record.payload) + records.HEAD_BYTES for record in whole) > len(data):
        raise AssertionError("records of more bytes than there are")


def recovery(data: bytes) -> None:
    """Records with sound checksums over any payloads, as a snapshot and the segment behind it: a start from them."""
    kind = "snapshot" if data[:1] == b"s" else "segment"
    files = {segments.segment_name(1): records.Writer(1).opening}
    name = segments.snapshot_name(1) if kind == "snapshot" else segments.segment_name(1)
    writer = records.Writer(1)
    sealed = [writer.opening]
    for number, piece in enumerate(_pieces(data[1:])):
        about, payload = piece[:2].ljust(2, b"\x00"), piece[2:]
        sealed += writer.encode(records.Record(number, about[0], about[1], 120_000_000, payload))
    files[name] = b"".join(sealed)
    recover(_Files(files), _fleet_pack(), 1, lambda _release, _sha256: None, SETTINGS)


class _Files:
    """A disk that is only read."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files

    def names(self) -> list[str]:
        return sorted(self._files)

    def read(self, name: str) -> memoryview:
        return memoryview(self._files[name])

    def create(self, name: str) -> NoReturn:
        raise AssertionError(f"a recovery wrote {name}")

    def rename(self, old: str, new: str) -> NoReturn:
        raise AssertionError(f"a recovery renamed {old} to {new}")

    def remove(self, name: str) -> NoReturn:
        raise AssertionError(f"a recovery removed {name}")


def spool(data: bytes) -> None:
    """A spool file: these bytes as a whole, and laid over a good one."""
    with tempfile.TemporaryDirectory() as folder:
        for name, raw in (("whole", data), ("laid-over", _laid_over(_good_spool(), data))):
            path = Path(folder) / name
            path.write_bytes(raw)
            try:
                opened = Spool(path, "gw", "press", ("force", "heat"), 1 << 20, 0)
            except CommandError:
                continue
            try:
                opened.sealed()
            except CommandError:
                pass
            finally:
                opened.close()


def fleet_toml(data: bytes) -> None:
    try:
        parse_fleet(data.decode(errors="replace"))
    except CommandError:
        return


def grants(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        file.write(data)
        file.flush()
        try:
            read_grants(Path(file.name))
        except CommandError:
            return


def registry(data: bytes) -> None:
    """A registry that somebody else writes: pieces of JSON laid over good entries, linked to each other as they should
    be, and any other piece as it is; the first piece is the pointer of production (none: what the chain says).

    A reader that looks after each entry must find what a newcomer finds, and a registry without findings must serve.
    """
    pointer, *pieces = _pieces(data) or [b""]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        for name in ("releases", "stages", "packs"):
            (path / name).mkdir()
        (path / "packs" / _PACK_SHA256).write_bytes(_PACK)
        follower = Registry(path)
        for number, piece in enumerate(pieces, start=1):
            with contextlib.suppress(CommandError):
                follower.history()  # up to here it holds, unless an earlier one does not
            (path / "releases" / f"{number}.json").write_bytes(_entry(piece, number, path))
        with contextlib.suppress(CommandError):
            chain, state = follower.history(), follower.stages().get("production")
            (path / "stages" / "production").write_bytes(
                pointer or (pointer_bytes(chain, state.entry) if state else b"")
            )
        _read(follower, path)


def _read(follower: Registry, path: Path) -> None:
    """Everything that a scorer and an operator ask, by whom they trust."""
    for trusted in (None, _keys()[1]):
        newcomer = Registry(path, trusted=trusted)
        findings = newcomer.verify().findings
        try:
            chain, off = newcomer.history(), newcomer.blocked()
        except CommandError:
            if not findings:
                raise
            continue
        off.covers("press", "a-1")
        if trusted is None and (chain, off) != (follower.history(), follower.blocked()):
            raise AssertionError("who looked after each entry found something else than who came last")
        if (newest := newcomer.newest()) is not None:
            newcomer.check_held(newest.number, newest.sha256)
        try:
            release = newcomer.resolve("production")
        except NotFound:
            continue  # nothing there, or a move to what was never published
        except CommandError:
            if not findings:
                raise
            continue
        for stage in STAGES:
            with contextlib.suppress(CommandError):
                check_promotion(chain, release.entry, stage, "")
            with contextlib.suppress(CommandError):
                rollback_target(chain, newcomer.stages().get(stage), stage, None)


def _entry(piece: bytes, number: int, path: Path) -> bytes:
    """The bytes of a file of the chain: a JSON object's keys laid over those of a good entry, signed if it says so with
    the key "s"; any other bytes as they are."""
    try:
        changes = json.loads(piece)
    except (ValueError, RecursionError):
        return piece
    if not isinstance(changes, dict):
        return piece
    before = path / "releases" / f"{number - 1}.json"
    previous = hashlib.sha256(before.read_bytes()).hexdigest() if number > 1 else ""
    document = {"format": 1, "number": number, "previous": previous, "action": "publish", "release": number,
                "pack": _PACK_SHA256, "stage": "production", "from": None, "to": number, "who": "a", "when": "",
                "why": "b", "gates": [], "override": "", "details": {}, "key": "", "signature": ""}  # fmt: skip
    signer = _keys()[0] if changes.pop("s", None) else None
    try:
        return sealed({**document, **changes}, signer) if signer else entry_bytes({**document, **changes})
    except (ValueError, RecursionError, CommandError):
        return piece


@cache
def _keys() -> tuple[Signer, TrustedKeys]:
    with tempfile.TemporaryDirectory() as folder:
        private, public, _ = generate_keys(folder)
        return Signer.from_file(private), TrustedKeys.from_files([public])


TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (wire_stream, wire_unary, wire_answer, pack, journal, recovery, spool, fleet_toml, grants, registry)
}


def seeds(name: str) -> list[bytes]:
    """Good inputs to begin with."""
    if name == "wire_stream":
        return [b"".join(len(one).to_bytes(2, "little") + one for one in _conversation())]
    if name == "wire_unary":
        opened, readings = (pb.StreamRequest.FromString(raw) for raw in _conversation()[:2])
        return [pb.ScoreRequest(open=opened.open, readings=readings.readings).SerializeToString()]
    if name == "wire_answer":
        block = pb.ScoreBlock(sequence=1, handles=[0], times=[5], status=b"\x00", values=[1, 2], levels=b"\x02\x02",
                              alarms=b"\x00\x00", health=b"\x00", features=[1, 2, 3])  # fmt: skip
        answers = (pb.StreamResponse(scores=block), pb.StreamResponse(ack=pb.Ack(sequence=3)))
        return [answer.SerializeToString() for answer in answers]
    if name == "pack":
        return [b"", _pack_bytes()[:64], b"\x10\x00\xff\xff" * 4]
    if name == "journal":
        writer = records.Writer(1)
        parts = [writer.opening]
        for i, payload in enumerate((b"{}", b"", b"x" * 40)):
            parts += writer.encode(records.Record(i, records.Kind.BLOCK, 1, 5, payload))
        return [b"\x01" + b"".join(parts)]
    if name == "recovery":
        return [_taken_up(), _snapshot()]
    if name == "spool":
        return [_good_spool(), b"\x00\x10\x02\x00ab" * 8]
    if name == "fleet_toml":
        return [FLEET_TOML.read_bytes()]
    if name == "registry":
        return _registries()
    return [b'[[grant]]\nidentity = "gw"\nassets = ["a-*", "[!b]?"]\nclasses = ["press"]\ngateways = ["x"]\n']


def _registries() -> list[bytes]:
    """A life of releases and switches, signed and not; and pointers and entries that are none."""
    off = {"kind": "asset", "name": "a-1"}
    gates = [{"output": "rul", "metric": "rmse", "found": 11.0, "at_most": 12.0, "passed": False}]
    switch = {"action": "block", "release": 0, "pack": "", "stage": None, "to": None, "details": {"switch": off}}
    life = [
        {"stage": "candidate", "gates": gates, "s": 1},
        {"action": "promote", "release": 1, "to": 1, "s": 1},
        {"s": 1},
    ]
    life += [{"action": "rollback", "release": 1, "from": 3, "to": 1, "s": 1}, {**switch, "s": 1}, switch]
    life += [{**switch, "action": "unblock", "details": {"switch": {"kind": "fleet", "name": ""}}}]
    life += [{**switch, "details": {"switch": []}}]
    entries = [json.dumps(one).encode() for one in life]
    pointers = (b"", b'{"entry":2}', b'{"entry":1e999}', b"[" * 2_000)
    return [b"".join(len(one).to_bytes(2, "little") + one for one in (pointer, *entries)) for pointer in pointers]


def _conversation() -> list[bytes]:
    opening = pb.Open(
        gateway="gw",
        epoch=1,
        asset_class="press",
        sensors=["force", "heat", "oil"],
        asset_ids=["a-1", "b"],
        event_codes=["error:e1"],
        attributes=["age"],
        attribute_values=[1, 2],
    )
    readings = pb.ReadingBlock(sequence=1, handles=[0, 1, 0], times=[60_000_000, 60_000_000, 120_000_000],
                               values=np.arange(9, dtype=np.float32).tolist())  # fmt: skip
    events = pb.EventBlock(sequence=2, handles=[0], times=[60_000_000], codes=[0])
    requests = (pb.StreamRequest(open=opening), pb.StreamRequest(readings=readings), pb.StreamRequest(events=events))
    return [request.SerializeToString() for request in requests]


def _taken_up() -> bytes:
    """What a journal holds of one stream."""
    opening, readings, events = _conversation()
    release = json.dumps({"release": 1, "pack": _fleet_pack().sha256}).encode()
    kinds = records.Kind
    told = [(kinds.RELEASE, 0, release), (kinds.OPEN, 1, opening), (kinds.BLOCK, 1, readings)]
    told += [(kinds.BLOCK, 1, events), (kinds.CLOSE, 1, b"")]
    return b"j" + b"".join(_record(*one) for one in told)


def _snapshot() -> bytes:
    """A snapshot of a scorer that holds two assets."""
    fleet = LiveFleet(_fleet_pack(), 1, 1_000)
    fleet.open_assets("press", ["a-1", "b"])
    (state,) = (one for one in warmth.describe(fleet) if one.assets)
    points = ResumePoints(8)
    points.durable("gw", 1, 2)
    head = snapshot.head_of(fleet, warmth.describe(fleet), 0, points.state())
    number = [one.name for one in warmth.describe(fleet)].index(state.name)
    rows = struct.pack("<QQQ", 0, 2, 0) + warmth.save_rows(fleet, state.name, 0, 2)
    kinds = records.Kind
    told = ((kinds.HEAD, 0, json.dumps(head).encode()), (kinds.ROWS, number, rows), (kinds.END, 0, b""))
    return b"s" + b"".join(_record(*one) for one in told)


def _record(kind: int, stream: int, payload: bytes) -> bytes:
    return (len(payload) + 2).to_bytes(2, "little") + bytes([kind, stream]) + payload


def _pieces(data: bytes) -> list[bytes]:
    pieces, at = [], 0
    while at + 2 <= len(data) and len(pieces) < 16:
        size = int.from_bytes(data[at : at + 2], "little")
        pieces.append(data[at + 2 : at + 2 + size])
        at += 2 + size
    return pieces


def _patched(data: bytes) -> bytes:
    """A good pack with changes: (offset, byte) in three bytes each, and its digest made to fit."""
    good = bytearray(_pack_bytes())
    for at in range(0, min(len(data), 30) - 2, 3):
        good[int.from_bytes(data[at : at + 2], "little") % (len(good) - 32)] = data[at + 2]
    good[-32:] = hashlib.sha256(good[:-32]).digest()
    return bytes(good)


def _laid_over(good: bytes, data: bytes) -> bytes:
    """`good` with pieces of `data` at offsets that `data` says."""
    changed = bytearray(good)
    for at in range(0, min(len(data), 64) - 3, 4):
        changed[int.from_bytes(data[at : at + 3], "little") % len(changed)] = data[at + 3]
    return bytes(changed)


@cache
def _good_spool() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spool"
        made = Spool(path, "gw", "press", ("force", "heat"), 1 << 20, 0)
        made.append(Kind.READINGS, array("I", [0]), array("q", [5]), array("f", [1.0, 2.0]), 0, False)
        made.close()
        return path.read_bytes()
