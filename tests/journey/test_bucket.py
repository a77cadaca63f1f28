"""A history in an S3-compatible store, read over HTTP by every worker: the same pack as from a folder."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs
import pytest
import trips
from moto.server import ThreadedMotoServer
from trainer.pumps import write_history
from wheeltapper.errors import NotFound
from wheeltapper_trainer.history import History


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The words of an address that lead to a local store."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    for name, value in (("ACCESS_KEY_ID", "test"), ("SECRET_ACCESS_KEY", "test"), ("EC2_METADATA_DISABLED", "true")):
        monkeypatch.setenv(f"AWS_{name}", value)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    finally:
        server.stop()


def upload(history: Path, store: str, key: str) -> str:
    """The address of a copy of `history` in a bucket."""
    bucket, _ = pyarrow.fs.FileSystem.from_uri(f"s3://fleet?{store}&allow_bucket_creation=true")
    bucket.create_dir("fleet")
    for file in history.rglob("*.parquet"):
        with bucket.open_output_stream(f"fleet/{key}/{file.relative_to(history)}") as out:
            out.write(file.read_bytes())
    return f"s3://fleet/{key}?{store}"


def test_a_bucket_reads_as_the_folder_it_was_copied_from(store: str, tmp_path: Path) -> None:
    near = History.open(write_history(tmp_path / "history", assets=5, file_rows=4_300))
    far = History.open(upload(tmp_path / "history", store, "pumps"), skip_unreadable=True)
    assert far.plan() == near.plan()
    assert far.span() == near.span()
    excerpt = copy.deepcopy(far.excerpt(["pump-2", "pump-3"]))  # as it comes to a worker, with nothing of ours
    assert {a: History.of(excerpt).digest(a) for a in ("pump-2", "pump-3")} == {
        a: near.digest(a) for a in ("pump-2", "pump-3")
    }
    with pytest.raises(NotFound, match="no history at s3://fleet/nothing"):
        History.open(f"s3://fleet/nothing?{store}")


def test_a_file_that_is_cut_short_in_a_bucket_costs_its_assets(store: str, tmp_path: Path) -> None:
    history = write_history(tmp_path / "history", assets=4, file_rows=4_300)
    last = sorted((history / "readings").iterdir())[-1]
    last.write_bytes(last.read_bytes()[:1_000])
    found = History.open(upload(history, store, "cut"), skip_unreadable=True)
    assert found.lost().keys() == {"pump-2", "pump-3"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_history_in_a_bucket_trains_the_same_pack(store: str, tmp_path: Path) -> None:
    history = tmp_path / "history"
    trips.wheeltapper("simulate", history, "--assets", 6, "--days", 100, "--seed", 5)
    trips.lighter(history / "fleet.toml", rounds=20)
    far_away = upload(history, store, "pumps")
    words = ("train", history / "fleet.toml", "--cpus", 2)
    near = trips.wheeltapper(*words, "--history", history, "--registry", tmp_path / "near")
    far = trips.wheeltapper(*words, "--history", far_away, "--registry", tmp_path / "far")
    assert far["pack"] == near["pack"]
