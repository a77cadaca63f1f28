"""Pinned keys and time: a scorer serves what a trusted key signed, and never an older state than it has seen."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from serving import MINUTE_US, Running, ask, begin, block, now_us, opening, promote, run_server
from wheeltapper.errors import Refused
from wheeltapper.registry import Registry
from wheeltapper.signing import Signer, TrustedKeys, generate_keys
from wheeltapper_proto import scoring_pb2 as pb
from wheeltapper_scorer.reload import Stage


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    private, public, _ = generate_keys(tmp_path / "keys")
    return private, public


def signed(path: Path, private: Path, packs: dict[str, bytes]) -> Registry:
    registry = Registry(path, signer=Signer.from_file(private))
    for name in ("first", "second"):
        registry.publish(packs[name], who="a test", why=name)
    promote(registry, 1)
    return registry


def test_an_unsigned_release_does_not_serve(
    registry: Registry, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert begin(registry, "--trusted-key", str(keys[1])) == 5
    assert "expected a signature by a trusted key" in capsys.readouterr().err
    assert begin(registry, "--trusted-key", "none.pem") == 4
    assert begin(registry, "--trusted-key", str(keys[0])) == 2  # the private half
    told = capsys.readouterr().err
    for line in keys[0].read_text().splitlines()[1:-1]:
        assert line not in told


def test_a_signed_one_serves_and_a_foreign_key_does_not(
    tmp_path: Path, keys: tuple[Path, Path], packs: dict[str, bytes]
) -> None:
    signed(tmp_path / "signed", keys[0], packs)
    _, foreign, _ = generate_keys(tmp_path / "foreign")
    trusting = Registry(tmp_path / "signed", trusted=TrustedKeys.from_files([keys[1]]))
    assert Stage(trusting, "production").load().release == 1
    with pytest.raises(Refused, match="expected a signature by one of"):
        Stage(Registry(tmp_path / "signed", trusted=TrustedKeys.from_files([foreign])), "production").load()


def test_a_registry_put_back_in_time_is_refused_across_restarts(
    tmp_path: Path, keys: tuple[Path, Path], packs: dict[str, bytes]
) -> None:
    registry = signed(tmp_path / "signed", keys[0], packs)
    shutil.copytree(registry.path, tmp_path / "old")
    seen, trusted = tmp_path / "state" / "seen", TrustedKeys.from_files([keys[1]])
    promote(registry, 2)
    assert Stage(Registry(registry.path, trusted=trusted), "production", seen).load().release == 2
    with pytest.raises(Refused, match="entry 4 was seen before"):  # another process, and every signature in it is good
        Stage(Registry(tmp_path / "old", trusted=trusted), "production", seen).load()
    registry.rollback(who="a test", why="signed, so it is no attack")
    assert Stage(Registry(registry.path, trusted=trusted), "production", seen).load().release == 1
    for nonsense in ("nonsense", "", "-1", "1 2", f"1 {'g' * 64}", "9" * 5_000, "٣"):
        seen.write_text(nonsense)
        with pytest.raises(Refused, match="expected the number"):
            Stage(Registry(registry.path, trusted=trusted), "production", seen)


def switched(registry: Registry, on: bool = False) -> Path:
    """The file of the entry that switches the fleet."""
    entry = registry.switch("fleet", "", on=on, who="a test", why="smoke")
    return registry.path / "releases" / f"{entry.number}.json"


@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("when", ["at the start", "while it ran"])
def test_a_kill_switch_is_not_undone_by_putting_the_registry_back(
    tmp_path: Path, keys: tuple[Path, Path], packs: dict[str, bytes], pinned: bool, when: str
) -> None:
    """The stage did not move, so that its entry says nothing: the newest entry of all is remembered."""
    registry = signed(tmp_path / "signed", keys[0], packs)
    seen, trusted = tmp_path / "state" / "seen", TrustedKeys.from_files([keys[1]]) if pinned else None
    stage = Stage(Registry(registry.path, trusted=trusted), "production", seen)
    if when == "while it ran":
        stage.load()
    entry = switched(registry)
    if when == "at the start":
        stage.load()
    stage.token()
    assert stage.blocked().fleet
    stage.remember()
    raw = entry.read_bytes()
    entry.unlink()
    with pytest.raises(Refused, match="entry 4 was seen before"):
        stage.token()
    with pytest.raises(Refused, match="and now there is a chain that ends at entry 3"):
        Stage(Registry(registry.path, trusted=trusted), "production", seen).load()
    registry = Registry(registry.path, signer=Signer.from_file(keys[0]))
    switched(registry, on=True)  # signed, of the same number, and another one
    with pytest.raises(Refused, match="and now there is another entry of this number"):
        Stage(Registry(registry.path, trusted=trusted), "production", seen).load()
    entry.write_bytes(raw)
    again = Stage(Registry(registry.path, trusted=trusted), "production", seen)
    assert again.load().release == 1
    assert again.blocked().fleet


def test_what_no_key_signed_is_not_remembered(tmp_path: Path, keys: tuple[Path, Path], packs: dict[str, bytes]) -> None:
    """Else who may write the folder, but not sign, could lock a scorer out with an entry that its operator removes."""
    registry = signed(tmp_path / "signed", keys[0], packs)
    seen, trusted = tmp_path / "state" / "seen", TrustedKeys.from_files([keys[1]])
    forged = switched(Registry(registry.path))
    Stage(Registry(registry.path, trusted=trusted), "production", seen).load()
    newest = registry.history()[2]
    assert seen.read_text() == f"{newest.number} {newest.sha256}\n"
    forged.unlink()
    assert Stage(Registry(registry.path, trusted=trusted), "production", seen).load().release == 1


def test_other_keys_than_were_pinned_forget_nothing(
    tmp_path: Path, keys: tuple[Path, Path], packs: dict[str, bytes]
) -> None:
    registry = signed(tmp_path / "signed", keys[0], packs)
    private, public, _ = generate_keys(tmp_path / "next")
    entry = switched(Registry(registry.path, signer=Signer.from_file(private)))
    seen, old = tmp_path / "seen", TrustedKeys.from_files([keys[1]])
    Stage(Registry(registry.path, trusted=TrustedKeys.from_files([keys[1], public])), "production", seen).load()
    remembered = seen.read_text()
    assert remembered.startswith("4 ")
    Stage(Registry(registry.path, trusted=old), "production", seen).load()
    assert seen.read_text() == remembered
    entry.unlink()
    with pytest.raises(Refused, match="entry 4 was seen before"):
        Stage(Registry(registry.path, trusted=old), "production", seen).load()


def test_a_file_of_an_earlier_scorer_is_read_as_it_was_meant(
    tmp_path: Path, keys: tuple[Path, Path], packs: dict[str, bytes]
) -> None:
    """A number alone: that of the entry which moved the stage to what was served."""
    registry = signed(tmp_path / "signed", keys[0], packs)
    seen = tmp_path / "seen-production"
    seen.write_text("4\n")
    with pytest.raises(Refused, match="production stands at entry 3, but entry 4 was seen before"):
        Stage(Registry(registry.path), "production", seen).load()
    promote(registry, 2)
    switched(registry)
    assert Stage(Registry(registry.path), "production", seen).load().release == 2
    newest = registry.history()[-1]
    assert seen.read_text() == f"5 {newest.sha256}\n"
    assert Stage(Registry(registry.path), "production", seen).load().release == 2


def test_a_registry_put_back_below_a_running_scorer_changes_nothing_and_is_said(
    tmp_path: Path, keys: tuple[Path, Path], packs: dict[str, bytes]
) -> None:
    registry, state = signed(tmp_path / "signed", keys[0], packs), tmp_path / "state"
    words = ("--trusted-key", str(keys[1]), "--state", str(state))

    def status(server: Running, minute: int) -> int:
        readings = block(1, [0], [now_us() - (60 - minute) * MINUTE_US], [50.0, 50.0, 50.0])
        with server.channel() as channel:
            return int(ask(channel, opening("a-1", gateway=f"gw-{minute}"), readings)[-1].scores.status[0])

    with run_server(registry.path, *words) as server:
        assert status(server, 1) == pb.ROW_STATUS_OK
        entry = switched(registry)
        server.wait_for("switched")
        assert status(server, 2) == pb.ROW_STATUS_BLOCKED
        remembered = state / "seen-production"
        wait(lambda: remembered.read_text().startswith("4 "))
        raw = entry.read_bytes()
        entry.unlink()
        failed = server.wait_for("reload failed")
        assert "entry 4 was seen before" in failed["reason"]
        assert status(server, 3) == pb.ROW_STATUS_BLOCKED
    assert server.process.wait() == 0
    assert server.wait_for("stopped")["reloads_failed"] > 0
    assert begin(registry, *words) == 5
    entry.write_bytes(raw)
    with run_server(registry.path, *words) as server:
        assert status(server, 4) == pb.ROW_STATUS_BLOCKED


def wait(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
