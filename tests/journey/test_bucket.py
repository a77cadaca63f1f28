"""A history in an S3-compatible store, read over HTTP by every worker: the same pack as from a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs
import pytest
import trips


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The words of an address that lead to a local store."""
    server = pytest.importorskip("moto.server", reason="the store of this test is in moto[server]").ThreadedMotoServer(
        ip_address="127.0.0.1", port=0, verbose=False
    )
    for name, value in (("ACCESS_KEY_ID", "test"), ("SECRET_ACCESS_KEY", "test"), ("EC2_METADATA_DISABLED", "true")):
        monkeypatch.setenv(f"AWS_{name}", value)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    finally:
        server.stop()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_history_in_a_bucket_trains_the_same_pack(store: str, tmp_path: Path) -> None:
    history = tmp_path / "history"
    trips.wheeltapper("simulate", history, "--assets", 6, "--days", 100, "--seed", 5)
    trips.lighter(history / "fleet.toml", rounds=20)
    bucket, _ = pyarrow.fs.FileSystem.from_uri(f"s3://fleet?{store}&allow_bucket_creation=true")
    bucket.create_dir("fleet")
    for file in history.rglob("*.parquet"):
        with bucket.open_output_stream(f"fleet/pumps/{file.relative_to(history)}") as out:
            out.write(file.read_bytes())

    words = ("train", history / "fleet.toml", "--cpus", 2)
    near = trips.wheeltapper(*words, "--history", history, "--registry", tmp_path / "near")
    far = trips.wheeltapper(*words, "--history", f"s3://fleet/pumps?{store}", "--registry", tmp_path / "far")
    assert far["pack"] == near["pack"]
