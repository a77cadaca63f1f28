"""One task of `wheeltapper score`: read some assets' row groups, score them, leave their answers as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from wheeltapper.device import fleet_on
from wheeltapper.features import KERNELS
from wheeltapper.pack import Pack, open_pack

from wheeltapper_trainer.answer_table import AnswerTable, Table
from wheeltapper_trainer.final_answers import Lived, Wanted, answer_all
from wheeltapper_trainer.history import Excerpt, History, write_table


@dataclass(frozen=True, slots=True)
class ChunkJob:
    """What every task of one run is told. `classes` are those of the whole history, which decide the columns;
    `sensors` are theirs in the pack; `now_us` is the clock by which a reading is from the future."""

    pack_path: str
    release: int
    classes: tuple[str, ...]
    sensors: Mapping[str, tuple[str, ...]]
    folder: str
    now_us: int
    from_us: int | None
    wanted: Wanted
    device: str = "cpu"


def score_chunk(job: ChunkJob, name: str, source: Excerpt, pack: Pack | None = None) -> dict[str, Any]:
    """Score the assets of `source`, all of one class, into a table of the job's folder.

    Returns {"table": its path, "counts": rows by status, "read" and "written"}. A worker opens the pack once.
    """
    known = pack or _opened(job.pack_path)
    history = History.of(source)
    asset_class = source.assets[0].asset_class
    there = set(history.sensors(asset_class))
    sensors = [sensor for sensor in job.sensors[asset_class] if sensor in there]
    events = history.events()
    read = history.read([asset.asset_id for asset in source.assets], sensors)
    assets = [
        Lived(asset, sensors, readings, events.of_asset(asset.asset_id))
        for asset, readings in zip(source.assets, read, strict=True)
    ]
    columns = AnswerTable.of(known, job.classes, job.wanted.features, job.wanted.reasons > 0)
    tables = []
    finals = answer_all(fleet_on(job.device, known, job.release), assets, job.now_us, job.wanted)
    for one, final in zip(assets, finals, strict=True):
        table = columns.rows(one.asset.asset_id, asset_class, job.release, final)
        if job.from_us is not None:
            table = {column: cells[final.times >= job.from_us] for column, cells in table.items()}
        tables.append(table)
    joined: Table = {column: np.concatenate([table[column] for table in tables]) for column in tables[0]}
    path = Path(job.folder, f"{name}.parquet")
    write_table(path, joined)
    counts = Counter(joined["status"].tolist())
    counts["read"] = sum(len(one.readings.times) for one in assets)
    counts["written"] = len(joined["time"])
    return {"table": str(path), "counts": dict(counts)}


@lru_cache(maxsize=1)
def _opened(path: str) -> Pack:
    return open_pack(path, kernels=KERNELS)
