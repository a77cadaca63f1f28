"""Nothing stops the fleet: machines of every bad kind among forty, one command, exit code 3 and a table of reasons."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from trainer.pumps import fleet, write_history
from wheeltapper.config import fleet_toml
from wheeltapper.outputs import Why
from wheeltapper.pack import open_pack
from wheeltapper.registry import Registry
from wheeltapper.spec import ModelSpec, SplitSpec, Target
from wheeltapper_command.errors import Exit
from wheeltapper_command.main import main
from wheeltapper_trainer import stages
from wheeltapper_trainer.chunk import train_chunk
from wheeltapper_trainer.history import read_table, write_table
from wheeltapper_trainer.job import Chunk, ChunkDone, TrainJob

ASSETS = 40
RAISES, HANGS, EATS, KILLS = "pump-11", "pump-17", "pump-23", "pump-31"


def poisoned() -> Callable[[TrainJob, Chunk], ChunkDone]:
    """`train_chunk` with four bad assets. (A function made here goes to the workers whole.)"""

    def train(job: TrainJob, chunk: Chunk) -> ChunkDone:
        if RAISES in chunk.asset_ids:
            raise ArithmeticError("a label that is no number")
        if HANGS in chunk.asset_ids:
            time.sleep(600)
        if EATS in chunk.asset_ids:
            np.ones(2**50)
        if KILLS in chunk.asset_ids:
            os.kill(os.getpid(), signal.SIGKILL)
        return train_chunk(job, chunk)

    return train


def spoil(file: Path) -> set[str]:
    """Overwrite compressed pages in the middle of a readings file; returns the assets whose rows were in them."""
    parquet = pq.ParquetFile(file)
    group = parquet.num_row_groups // 2
    ids = set(parquet.read_row_group(group, columns=["asset_id"])["asset_id"].to_pylist())
    column = parquet.metadata.row_group(group).column(parquet.schema_arrow.get_field_index("vibration"))
    begin = column.dictionary_page_offset or column.data_page_offset
    with file.open("r+b") as content:
        content.seek(begin)
        content.write(b"\xff" * column.total_compressed_size)
    return ids


def silence(file: Path, asset_id: str) -> None:
    """A machine whose sensors never said anything: no value at all."""
    table = read_table(file)
    rows = table["asset_id"] == asset_id
    columns = {
        name: np.where(rows, np.float32("nan"), column) for name, column in table.items() if column.dtype == "f4"
    }
    write_table(file, {**table, **columns})


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_five_kinds_of_poison_cost_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_history(tmp_path / "history", assets=ASSETS)
    [file] = (tmp_path / "history" / "readings").iterdir()
    silence(file, "pump-5")
    garbage = spoil(file)
    model = ModelSpec(rounds=10, asset_rounds=5, max_depth=3, eta=0.3)
    spec = fleet(targets=(Target("rul", "rul", cap=120.0),), model=model)
    spec = dataclasses.replace(spec, split=SplitSpec(test_share=0.25))
    (tmp_path / "fleet.toml").write_text(fleet_toml(spec))
    monkeypatch.setattr(stages, "train_chunk", poisoned())
    words = ["train", tmp_path / "fleet.toml", "--history", tmp_path / "history", "--registry", tmp_path / "registry"]
    code = main([*map(str, words), "--cpus", "2", "--task-seconds", "30", "--quiet"])
    said = capsys.readouterr().out
    assert code == Exit.PARTIAL, said

    expected = {RAISES, HANGS, EATS, KILLS, *garbage}
    table = dict(re.findall(r"(?m)^(pump-\d+)\s+(.+)$", said.partition("asset set aside")[2]))
    assert table.keys() == expected
    assert table[RAISES] == "ArithmeticError: a label that is no number"
    assert table[HANGS] == "no answer within 30 s"
    assert "allocate" in table[EATS]
    assert "died" in table[KILLS]
    assert all("cannot be read" in table[asset_id] for asset_id in garbage)

    pack = open_pack(Registry(tmp_path / "registry").resolve("candidate").pack_path)
    assert pack.asset_count == ASSETS
    for asset in range(ASSETS):
        quarantined = set(pack.asset_reasons[asset].tolist()) == {Why.QUARANTINED}
        assert quarantined == (pack.asset_id(asset) in expected), pack.asset_id(asset)
