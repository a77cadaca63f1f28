"""What is to be done, before anything is done: the history checked against the fleet, assets cut into chunks of rows.

How assets are cut depends on the history alone, not on the number of cores, so that a run resumed on another machine
cuts as before. A chunk's digest names what its file was computed from; an asset's key names the same of that asset
alone, and is what finished work is found by.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from wheeltapper.errors import ConfigError
from wheeltapper.spec import FleetSpec

from wheeltapper_trainer.history import Excerpt, History, HistoryError, Part
from wheeltapper_trainer.job import Chunk

_CHUNKS_WANTED = 32  # so many give a steady progress and an even end on a few cores
_ROWS_MIN, _ROWS_MAX = 2_000, 40_000  # a task much shorter than its start wastes it; a longer one makes others wait
_ASSETS_MAX = 64
# The last quarter of the rows goes out in ever smaller chunks, so that all cores end at about the same time:
# (rows before, as a share of all; how many times smaller).
_TAPER = ((3 / 4, 1), (7 / 8, 2), (15 / 16, 4), (1.0, 8))


@dataclass(frozen=True, slots=True)
class Group:
    """Neighbours in a history's files, read and trained by one task."""

    asset_class: str
    asset_ids: tuple[str, ...]
    rows: int


def check_history(history: History, spec: FleetSpec) -> None:
    """Raises ConfigError unless the history has every class, sensor and attribute that `spec` names, and readings."""
    assets = history.assets()
    known = {asset.asset_class for asset in assets}
    for entry in spec.classes:
        own = [asset for asset in assets if asset.asset_class == entry.name]
        if not own:
            raise ConfigError(
                f"class {entry.name!r} has no asset in {history.uri}; its classes are {sorted(known)}",
                "name the classes of fleet.toml as assets.parquet does, or remove this one",
            )
        if not any(part.rows for part in history.plan() if part.asset_class == entry.name):
            why = next(iter(history.lost().values()), "its files hold none")
            raise HistoryError(f"class {entry.name!r} has no reading in {history.uri}: {why}")
        _check_names("sensor", entry.name, [s.name for s in entry.sensors], history.sensors(entry.name), history.uri)
        attributes = {name for asset in own for name in asset.attributes}
        _check_names("attribute", entry.name, entry.statics, sorted(attributes), history.uri)
    unclaimed = known - {entry.name for entry in spec.classes}
    if len(unclaimed) == len(known):
        raise ConfigError(f"no class of {history.uri} is in fleet.toml: {sorted(known)}")


def groups_of(parts: Iterable[Part], spec: FleetSpec) -> list[Group]:
    """Every asset with readings of the fleet's classes, in groups of about equal rows until near the end; most first.

    A group's assets lie beside one another in one file, so that reading them is one sweep.
    """
    names = {entry.name for entry in spec.classes}
    wanted = [part for part in parts if part.rows and part.asset_class in names]
    total = sum(part.rows for part in wanted)
    rows_aim = min(max(total // _CHUNKS_WANTED, _ROWS_MIN), _ROWS_MAX)
    groups: list[Group] = []
    behind = 0
    for run in _runs(sorted(wanted, key=lambda part: (part.asset_class, part.file, part.asset_id))):
        ends = behind + np.cumsum([part.rows for part in run])
        smaller = [next(times for share, times in _TAPER if end <= share * total) for end in ends.tolist()]
        for times, piece in groupby(zip(smaller, run, strict=True), key=itemgetter(0)):
            groups.extend(_cut([part for _, part in piece], max(rows_aim // times, _ROWS_MIN)))
        behind = int(ends[-1])
    return sorted(groups, key=lambda group: (-group.rows, group.asset_class, group.asset_ids))


def chunk_of(group: Group, stage: str, inputs: Mapping[str, Any], contents: Mapping[str, str]) -> Chunk:
    """The group's assets that have a content digest, as a chunk named by everything its file depends on."""
    there = tuple(asset_id for asset_id in group.asset_ids if asset_id in contents)
    basis = {**inputs, "class": group.asset_class, "contents": [[a, contents[a]] for a in there]}
    return Chunk(group.asset_class, there, group.rows, digest_of(stage, basis))


def key_of(basis: str, asset_id: str, content: str) -> str:
    """Names one asset's share of a chunk's file: `basis`, the digest of all that a class's assets have in common."""
    return hashlib.sha256(f"{basis}\0{asset_id}\0{content}".encode()).hexdigest()


def narrowed(group: Group, asset_ids: Iterable[str]) -> Group:
    """Some of the group's assets; their rows are not counted again but taken as average."""
    chosen = tuple(asset_ids)
    return Group(group.asset_class, chosen, -(-group.rows * len(chosen) // len(group.asset_ids)))


def single(group: Group, asset_id: str) -> Group:
    """One asset of the group by itself, as it is retried."""
    return narrowed(group, (asset_id,))


def digest_of(stage: str, basis: Mapping[str, Any]) -> str:
    """Hex sha256 of a stage and all it depends on, as canonical JSON."""
    text = json.dumps([stage, basis], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_assets(source: Excerpt) -> tuple[dict[str, str], dict[str, str]]:
    """(asset → content digest, asset → why it cannot be read); a task of its own, since it reads everything once."""
    history = History.of(source)
    contents: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    for asset_id in history.asset_ids():
        try:
            contents[asset_id] = history.digest(asset_id)
        except HistoryError as error:
            unreadable[asset_id] = str(error)
    return contents, unreadable


def _check_names(what: str, asset_class: str, wanted: Sequence[str], found: Sequence[str], uri: str) -> None:
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ConfigError(
            f"class {asset_class!r} needs {what} {', '.join(map(repr, missing))}; {uri} has {sorted(found)}",
            f"correct the {what} in fleet.toml, or write the history with it",
        )


def _runs(parts: Sequence[Part]) -> list[list[Part]]:
    runs: list[list[Part]] = []
    for part in parts:
        if runs and (runs[-1][-1].asset_class, runs[-1][-1].file) == (part.asset_class, part.file):
            runs[-1].append(part)
        else:
            runs.append([part])
    return runs


def _cut(run: Sequence[Part], rows_aim: int) -> list[Group]:
    """One file's assets in as many groups as `rows_aim` asks for, each cut where it comes closest to its share."""
    total = sum(part.rows for part in run)
    count = max(1, round(total / rows_aim), -(-len(run) // _ASSETS_MAX))
    groups: list[list[Part]] = [[]]
    behind = 0
    for part in run:
        full = behind + part.rows / 2 > total * len(groups) / count or len(groups[-1]) >= _ASSETS_MAX
        if groups[-1] and full:
            groups.append([])
        groups[-1].append(part)
        behind += part.rows
    return [Group(g[0].asset_class, tuple(p.asset_id for p in g), sum(p.rows for p in g)) for g in groups]
