"""Assets are cut by rows alone; a digest names all that a file depends on; finished work is found whole or not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wheeltapper.errors import UsageError
from wheeltapper.spec import ClassSpec, FleetSpec, Sensor, Target
from wheeltapper_trainer.history import Part
from wheeltapper_trainer.job import SampleDone
from wheeltapper_trainer.ledger import Ledger
from wheeltapper_trainer.plan import Group, chunk_of, groups_of, single


def fleet(*names: str) -> FleetSpec:
    target = Target("failure", "failure", horizon_us=3_600_000_000)
    sensors = (Sensor("a"),)
    return FleetSpec("f", tuple(ClassSpec(n, sensors, 60_000_000, (6,), ("mean",), 0, 0, (target,)) for n in names))


sizes = st.lists(st.tuples(st.sampled_from(["pump", "fan", "other"]), st.integers(0, 60_000)), max_size=120)


@given(sizes)
def test_every_asset_with_readings_is_in_one_group_of_its_class(assets: list[tuple[str, int]]) -> None:
    parts = [Part(f"a{i:04}", kind, f"{kind}-{i // 40}", (), rows) for i, (kind, rows) in enumerate(assets)]
    groups = groups_of(parts, fleet("pump", "fan"))
    by_id = {part.asset_id: part for part in parts}
    placed = [asset_id for group in groups for asset_id in group.asset_ids]
    assert sorted(placed) == sorted(p.asset_id for p in parts if p.rows and p.asset_class != "other")
    for group in groups:
        members = [by_id[asset_id] for asset_id in group.asset_ids]
        assert {(m.asset_class, m.file) for m in members} == {(group.asset_class, members[0].file)}
        assert group.rows == sum(m.rows for m in members)
        assert len(members) <= 64
        # Nothing but one large asset makes a large chunk.
        assert group.rows - max(m.rows for m in members) <= 60_000
    assert [g.rows for g in groups] == sorted((g.rows for g in groups), reverse=True)
    assert groups == groups_of(list(reversed(parts)), fleet("pump", "fan"))


def test_equal_assets_make_equal_groups_that_end_evenly() -> None:
    parts = [Part(f"a{i:03}", "pump", "f", (), 2_000) for i in range(600)]
    groups = groups_of(parts, fleet("pump"))
    assert 48 <= len(groups) <= 64
    large = [g.rows for g in groups if g.rows > 30_000]
    assert max(large) - min(large) <= 4_000
    assert sum(large) >= 0.7 * 1_200_000
    # Handed out in order to whoever is free, however many there are: nobody waits long for the last.
    for cores in (2, 3, 5, 8):
        busy = [0] * cores
        for group in groups:
            busy[busy.index(min(busy))] += group.rows
        assert max(busy) <= 1.02 * 1_200_000 / cores, cores


def test_a_digest_changes_with_everything_it_depends_on() -> None:
    group = Group("pump", ("a", "b"), 10)
    contents = {"a": "1", "b": "2", "c": "3"}
    chunk = chunk_of(group, "sample", {"seed": 7}, contents)
    assert chunk == chunk_of(group, "sample", {"seed": 7}, dict(reversed(contents.items())) | {"c": "4"})
    others = [
        chunk_of(group, "assets", {"seed": 7}, contents),
        chunk_of(group, "sample", {"seed": 8}, contents),
        chunk_of(group, "sample", {"seed": 7}, {**contents, "b": "3"}),
        chunk_of(group, "sample", {"seed": 7}, {"a": "1"}),
        chunk_of(dataclasses.replace(group, asset_class="fan"), "sample", {"seed": 7}, contents),
        chunk_of(single(group, "a"), "sample", {"seed": 7}, contents),
    ]
    assert others[3].digest == others[5].digest  # the same assets are the same work, however they came together
    assert len({chunk.digest, *(other.digest for other in others)}) == len(others)


def test_the_ledger_finds_whole_work_only(tmp_path: Path) -> None:
    file = tmp_path / "run" / "samples" / "d.npz"
    done = SampleDone("d", 2, 10, 5, 0.1, 0.2, (("x", "why"),))
    ledger = Ledger(tmp_path / "run", resume=False)
    file.parent.mkdir()
    file.write_bytes(b"content")
    ledger.store("sample", "d", done, [file])
    assert Ledger(tmp_path / "run", resume=True).find("sample", "d", SampleDone) == done
    assert ledger.find("sample", "e", SampleDone) is None
    assert ledger.find("assets", "d", SampleDone) is None
    file.write_bytes(b"Content")
    assert ledger.find("sample", "d", SampleDone) is None
    file.write_bytes(b"content")
    entry = tmp_path / "run" / "done" / "sample" / "d.json"
    whole = entry.read_bytes()
    for cut in range(len(whole)):
        entry.write_bytes(whole[:cut])
        assert ledger.find("sample", "d", SampleDone) is None
    entry.write_bytes(whole)
    assert ledger.find("sample", "d", SampleDone) == done
    assert Ledger(tmp_path / "run", resume=False).find("sample", "d", SampleDone) is None
    assert not file.exists()


def test_a_folder_that_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "mine.csv").write_text("precious")
    with pytest.raises(UsageError, match="not a run folder"):
        Ledger(tmp_path, resume=False)
    assert (tmp_path / "samples" / "mine.csv").exists()


def test_what_the_last_runs_had_no_use_for_leaves_the_run_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"

    def one(digest: str) -> SampleDone:
        return SampleDone(digest, 1, 2, 3, 0.1, 0.2)

    def finish(*digests: str) -> int:
        """A run that finds or makes these, ends well and keeps two runs."""
        ledger = Ledger(run, resume=True)
        for digest in digests:
            if ledger.find("sample", digest, SampleDone) is None:
                file = run / "samples" / f"{digest}.npz"
                file.parent.mkdir(exist_ok=True)
                file.write_bytes(digest.encode())
                ledger.store("sample", digest, one(digest), [file])
        return ledger.prune(keep_runs=2)

    def kept() -> list[str]:
        return sorted(path.stem for path in (run / "samples").iterdir())

    assert [finish("old", "shared"), kept()] == [0, ["old", "shared"]]
    assert [finish("shared", "new"), kept()] == [0, ["new", "old", "shared"]]
    assert [finish("shared", "new"), kept()] == [1, ["new", "shared"]]
    assert Ledger(run, resume=True).find("sample", "shared", SampleDone) == one("shared")
    assert Ledger(run, resume=True).find("sample", "old", SampleDone) is None
