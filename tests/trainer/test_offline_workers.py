"""However a history is spread over threads, processes and Ray, the answers are one file; what fails is named."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from presses import MINUTE_US, PRESS, content
from wheeltapper.errors import CommandError
from wheeltapper.pack import Pack, open_pack, write_pack
from wheeltapper_command.progress import Progress
from wheeltapper_trainer import offline
from wheeltapper_trainer.history import read_table
from wheeltapper_trainer.history_writer import HistoryWriter
from wheeltapper_trainer.offline import Order, score_history
from wheeltapper_trainer.records import Asset

START = 1_700_000_000_000_000 // MINUTE_US * MINUTE_US
SENSORS = tuple(sensor.name for sensor in PRESS.sensors)
ASSETS = tuple(f"p-{i}" for i in range(5))
ROWS = 400


@pytest.fixture(scope="module")
def pack_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pack") / "press.pack"
    path.write_bytes(write_pack(content(5)))
    return path


@pytest.fixture(scope="module")
def pack(pack_file: Path) -> Pack:
    return open_pack(pack_file)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("presses") / "history"
    rng = np.random.default_rng(3)
    with HistoryWriter(folder, {"press": SENSORS}) as writer:
        for name in ASSETS:
            times = START + np.cumsum(rng.choice([0, MINUTE_US // 2, MINUTE_US, 5 * MINUTE_US], ROWS)).astype(np.int64)
            writer.add(Asset(name, "press", {"age": 2.0}), times, rng.normal(50, 20, (ROWS, 3)).astype(np.float32))
            writer.add_events([(name, int(times[k]), "error", "e1") for k in (30, 31, 200)])
    return folder


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "_CHUNK_READINGS", 2 * ROWS)


def scored(order: Order, pack: Pack) -> tuple[bytes, dict[str, Any]]:
    result = score_history(order, pack, 4, Progress(quiet=True))
    assert [path.name for path in order.out.parent.iterdir()] == [order.out.name]  # nothing half-done stays
    return order.out.read_bytes(), result


@pytest.fixture(scope="module")
def alone(pack: Pack, history: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    patch = pytest.MonkeyPatch()
    patch.setattr(offline, "_CHUNK_READINGS", 2 * ROWS)
    found, result = scored(Order(str(history), tmp_path_factory.mktemp("alone") / "a.parquet"), pack)
    patch.undo()
    assert result["readings_read"] == len(ASSETS) * ROWS
    assert not result["failed"]
    return found


def test_threads_change_no_byte(pack: Pack, history: Path, alone: bytes, tmp_path: Path) -> None:
    assert scored(Order(str(history), tmp_path / "a.parquet", cpus=3), pack)[0] == alone


def test_workers_change_no_byte_and_neither_does_the_death_of_one(
    pack: Pack, pack_file: Path, history: Path, alone: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    monkeypatch.setenv("WHEELTAPPER_TEST_MARK", mark)  # which Ray's processes inherit
    killed: list[int] = []
    over = threading.Event()

    def kill_the_first() -> None:
        while not killed and not over.is_set():
            for pid in marked(mark, "ray::score_chunk")[:1]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
            time.sleep(0.005)

    killer = threading.Thread(target=kill_the_first)
    killer.start()
    try:
        order = Order(str(history), tmp_path / "a.parquet", cpus=2, pack_path=pack_file, workers_from=0)
        found, result = scored(order, pack)
    finally:
        over.set()
        killer.join()
    assert killed
    assert not result["failed"]
    assert found == alone


def test_an_asset_that_cannot_be_read_is_named_and_left_out(
    pack: Pack, history: Path, alone: bytes, tmp_path: Path
) -> None:
    broken = tmp_path / "history"
    shutil.copytree(history, broken)
    spoil(next((broken / "readings").glob("*.parquet")), "p-1")
    (tmp_path / "out").mkdir()
    found, result = scored(Order(str(broken), tmp_path / "out" / "a.parquet", cpus=2), pack)
    assert result["failed"].keys() == {"p-1"}
    assert result["failed"]["p-1"].startswith("UnreadableFileError: ")
    assert result["failed"]["p-1"].endswith("(2 attempts)")
    (tmp_path / "whole.parquet").write_bytes(alone)
    one, other = read_table(tmp_path / "whole.parquet"), read_table(tmp_path / "out" / "a.parquet")
    kept = one["asset_id"] != "p-1"
    assert kept.sum() < len(kept)
    for name, column in one.items():
        np.testing.assert_array_equal(other[name], column[kept])
    assert found != alone


def test_where_nothing_can_be_read_there_is_no_file(pack: Pack, history: Path, tmp_path: Path) -> None:
    broken = tmp_path / "history"
    shutil.copytree(history, broken)
    spoil(next((broken / "readings").glob("*.parquet")), *ASSETS)
    (tmp_path / "out").mkdir()
    with pytest.raises(CommandError, match="nothing could be scored: UnreadableFileError"):
        scored(Order(str(broken), tmp_path / "out" / "a.parquet"), pack)
    assert not list((tmp_path / "out").iterdir())


def marked(mark: str, said: str) -> list[int]:
    """Ids of the processes of this test whose command line holds `said`."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            ours = folder.name.isdecimal() and said.encode() in (folder / "cmdline").read_bytes()
            if ours and f"WHEELTAPPER_TEST_MARK={mark}".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:  # ended meanwhile
            continue
    return found


def spoil(path: Path, *asset_ids: str) -> None:
    """Give every asset a row group of its own, and overwrite a sensor's data in those of some."""
    pq.write_table(pq.read_table(path), path, row_group_size=ROWS)
    data, file = bytearray(path.read_bytes()), pq.ParquetFile(path)
    for group in range(file.num_row_groups):
        column = file.metadata.row_group(group).column(file.schema_arrow.get_field_index("force"))
        ids = set(file.read_row_group(group, columns=["asset_id"])["asset_id"].to_pylist())
        if ids <= set(asset_ids):
            begin = column.dictionary_page_offset or column.data_page_offset
            data[begin : begin + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(data)
