"""A disk that is full, read-only or broken: what needs it is refused with the system's own words, the rest goes on, and
it is taken up again without a restart."""

from __future__ import annotations

import errno
import os
import resource
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving import MINUTE_US, Running, ask, block, now_us, opening, promote, reason, run_server
from unwritable import full, unwritable
from wheeltapper.durable import write_temporary
from wheeltapper.errors import CommandError
from wheeltapper.registry import Registry
from wheeltapper_proto import scoring_pb2 as pb
from wheeltapper_scorer.disk import Folder
from wheeltapper_scorer.reload import Stage
from wheeltapper_scorer.segments import Segments, retain, segment_name, snapshot_name
from wheeltapper_scorer.snapshot import SnapshotFile


@pytest.fixture
def running(registry: Registry, tmp_path: Path) -> Iterator[Running]:
    """A scorer with a journal, and a page of metrics."""
    with run_server(registry.path, "--state", str(tmp_path / "state"), "--metrics", "127.0.0.1:0") as server:
        yield server


def files_may_grow_to(server: Running, size: int) -> None:
    """What the system lets the scorer write into any one file from now on: a real disk that fails."""
    _, most = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, most))


def shown(server: Running, page: str) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{page}/metrics", timeout=10) as found:
        families = text_string_to_metric_families(found.read().decode())
    return {s.name: s.value for family in families for s in family.samples if "_journal_" in s.name}


def open_handles() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def wait(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_scorer_whose_disk_fails_scores_on_and_says_so(running: Running) -> None:
    page, begin = running.wait_for("metrics")["address"], now_us() - 100 * MINUTE_US

    def told(minute: int, ack: int) -> list[pb.StreamResponse]:
        readings = block(minute, [0], [begin + minute * MINUTE_US], [50.0, 50.0, 50.0])
        with running.channel() as channel:
            return ask(channel, opening("a-1", gateway=f"gw-{minute}", ack=ack), readings)

    def failing() -> bool:
        return shown(running, page)["wheeltapper_scorer_journal_failing"] == 1

    assert told(1, pb.ACK_LEVEL_DURABLE)[-1].ack.sequence == 1
    assert not failing()
    files_may_grow_to(running, 0)
    with pytest.raises(grpc.RpcError) as caught:
        told(2, pb.ACK_LEVEL_DURABLE)
    code, why, retry_s = reason(caught.value)
    assert (code, why, retry_s > 0) == (grpc.StatusCode.UNAVAILABLE, "JOURNAL_FAILED", True)
    assert "File too large" in (caught.value.details() or "")
    assert failing()
    for minute in (3, 4):
        assert list(told(minute, pb.ACK_LEVEL_SCORED)[-1].scores.status) == [pb.ROW_STATUS_OK]
    counted = shown(running, page)
    assert counted["wheeltapper_scorer_journal_failures_total"] == 1
    assert counted["wheeltapper_scorer_journal_skipped_total"] > 0
    files_may_grow_to(running, resource.RLIM_INFINITY)
    wait(lambda: not failing())
    assert told(5, pb.ACK_LEVEL_DURABLE)[-1].ack.sequence == 5


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_served(registry: Registry) -> None:
    with (
        unwritable() as folder,
        pytest.raises(CommandError, match="found: Permission denied") as caught,
    ):
        Folder(folder / "state")
    assert "--state" in caught.value.hint


def test_a_disk_that_stays_full_is_not_filled_with_what_failed(tmp_path: Path) -> None:
    """The journal tries again and again, and leaves one number, no file and no handle behind; a snapshot too."""
    disk = Folder(tmp_path / "state")
    segments = Segments(disk, 1)
    segments.begin()
    handles, names = open_handles(), disk.names()
    with full():
        for _ in range(20):
            with pytest.raises(OSError, match="File too large"):
                segments.begin()
            with pytest.raises(OSError, match="File too large"):
                SnapshotFile(disk, 1, {})
    assert (open_handles(), disk.names()) == (handles - 1, names)  # segment 1 is closed
    segments.begin()
    assert (segments.number, disk.names()) == (2, [*names, segment_name(2)])


def test_a_folder_whose_names_cannot_be_synced_takes_no_handles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Folder(tmp_path / "state")
    handles = open_handles()

    def broken(_: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("wheeltapper_scorer.disk.sync_folder", broken)
    for _ in range(5):
        with pytest.raises(OSError, match="Input/output error"):
            disk.create(segment_name(1))
    assert open_handles() == handles


def test_snapshots_tidy_up_what_is_theirs(tmp_path: Path) -> None:
    """A reload writes down in the same folder what is about to be served."""
    disk = Folder(tmp_path / "state")
    disk.create(f"{snapshot_name(3)}.tmp").close()
    seen = write_temporary(disk.path, "seen-production", [b"7\n"])
    retain(disk, 0)
    assert disk.names() == ["lock", seen.name]


def test_a_release_that_cannot_be_remembered_is_not_served(registry: Registry, tmp_path: Path) -> None:
    """Else a restart would take a registry that was put back in time for a new one."""
    stage = Stage(registry, "production", tmp_path / "state" / "seen-production")
    with full(), pytest.raises(CommandError, match=r"cannot remember the entry .* File too large"):
        stage.load()
    assert stage.load().release == 1
    promote(registry, 2)
    with full(), pytest.raises(CommandError, match="cannot remember"):
        stage.load()
    assert stage.load().release == 2


def test_a_full_disk_does_not_keep_a_scorer_from_starting_where_its_stage_stood(
    registry: Registry, tmp_path: Path
) -> None:
    seen = tmp_path / "state" / "seen-production"
    Stage(registry, "production", seen).load()
    registry.switch("asset", "a-1", on=False, who="w", why="y")
    again = Stage(registry, "production", seen)
    with full():
        assert again.load().release == 1
        with pytest.raises(CommandError, match="cannot remember"):  # and with every look it is tried again
            again.remember()
    assert again.blocked().assets == {"a-1"}


def test_what_was_remembered_must_be_readable(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    with pytest.raises(CommandError, match="cannot read the entry that was served: Not a directory"):
        Stage(registry, "production", tmp_path / "state" / "seen-production")
