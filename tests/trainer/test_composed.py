"""A composed release of trained packs: offline scores are those of its parts; training and evaluation go on from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from trainer.pumps import HOUR, START, fleet, write_history
from wheeltapper.composed_release import compose
from wheeltapper.config import fleet_toml
from wheeltapper.errors import Refused
from wheeltapper.pack import open_pack
from wheeltapper.registry import Registry, Release
from wheeltapper.spec import LEVELS, SplitSpec, Target
from wheeltapper_command.progress import Progress
from wheeltapper_trainer.cluster import Cluster, Limits
from wheeltapper_trainer.history import read_table
from wheeltapper_trainer.offline import Order as ScoreOrder
from wheeltapper_trainer.offline import score_history
from wheeltapper_trainer.reexamine import evaluate_pack
from wheeltapper_trainer.training import Order, Trained, plan, train_on

ASSETS, MOVED = 6, ("pump-1", "pump-4")
FIRST_CUT, LATER_CUT = START + 60 * 24 * HOUR, START + 70 * 24 * HOUR
QUIET = Progress(quiet=True)


class Trips:
    """Release 1 trained up to the first cut, release 2 up to the later one; in one registry, over one run folder."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self.folder, self.cluster = folder, cluster
        self.history = write_history(folder / "history", assets=ASSETS)
        self.registry = Registry(folder / "registry")
        self.trained = [self.train(cut) for cut in (FIRST_CUT, LATER_CUT)]

    def train(self, cut: int) -> Trained:
        targets = (Target("rul", "rul", cap=120.0), Target("anomaly", "anomaly", sensors=("vibration", "temperature")))
        spec = dataclasses.replace(fleet(targets=targets), split=SplitSpec(test_from_us=cut))
        (self.folder / "fleet.toml").write_text(fleet_toml(spec))
        order = Order(
            fleet=self.folder / "fleet.toml",
            history=str(self.history),
            registry=self.registry.path,
            run_dir=self.folder / "run",
            report=self.folder / "report.html",
            cpus=2,
            who="a test",
            why="to see",
            resume=True,
            limits=Limits(task_seconds_max=100),
        )
        return train_on(self.cluster, plan(order), order, QUIET)

    def compose(self, base: int, classes: dict[str, int], assets: dict[str, int]) -> Release:
        of = self.registry.release
        named = ({name: of(number) for name, number in part.items()} for part in (classes, assets))
        made = compose(self.registry, of(base), *named)
        return self.registry.publish(made.data, who="a test", why="mixed", gates=made.gates, details=made.details)

    def score(self, release: Release) -> dict[str, np.ndarray]:
        out = self.folder / f"{release.number}.parquet"
        score_history(ScoreOrder(str(self.history), out), open_pack(release.pack_path), release.number, QUIET)
        return read_table(out)


@pytest.fixture(scope="module")
def trips(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trips]:
    with Cluster(cpus=2) as cluster:
        yield Trips(tmp_path_factory.mktemp("composed"), cluster)


def test_offline_each_machine_scores_as_in_the_release_that_trained_it(trips: Trips) -> None:
    one, two = trips.registry.release(1), trips.registry.release(2)
    release = trips.compose(2, {}, dict.fromkeys(MOVED, 1))
    pack = open_pack(release.pack_path)
    own = pack.head_level[pack.asset_heads] == LEVELS.index("asset")
    assert own.any(), "some machine has trees of its own to take along"
    found, first, later = trips.score(release), trips.score(one), trips.score(two)
    moved = np.isin(found["asset_id"], MOVED)
    for name in (column for column in found if column.startswith("score:") or column == "level"):
        assert found[name][moved].tobytes() == first[name][moved].tobytes(), name
        assert found[name][~moved].tobytes() == later[name][~moved].tobytes(), name
    scores = [table["score:rul"] for table in (first, later)]
    assert (scores[0][moved] != scores[1][moved]).any()


def test_taking_a_trained_pack_apart_and_together_again_gives_its_bytes(trips: Trips) -> None:
    release = trips.compose(1, {}, dict.fromkeys(MOVED, 2))
    back = trips.compose(release.number, {}, dict.fromkeys(MOVED, 1))
    assert back.sha256 == trips.registry.release(1).sha256
    assert trips.compose(release.number, {"pump": 2}, {}).sha256 == trips.registry.release(2).sha256
    with pytest.raises(Refused, match="found the same pack"):
        trips.compose(1, {"pump": 1}, {"pump-2": 1})


def test_no_head_is_examined_on_what_it_was_trained_on(trips: Trips) -> None:
    release = trips.compose(1, {}, {MOVED[0]: 2})
    pack = open_pack(release.pack_path)
    assert [split["test_from_us"] for split in pack.lineage["split"]] == [LATER_CUT]
    document = evaluate_pack(pack, release.number, str(trips.history), 1, QUIET)
    whole = evaluate_pack(open_pack(trips.registry.release(2).pack_path), 2, str(trips.history), 1, QUIET)
    rows = [[output["rows"] for output in found["classes"][0]["outputs"]] for found in (document, whole)]
    assert rows[0] == rows[1]


def test_training_goes_on_from_a_composed_release(trips: Trips) -> None:
    """What a run takes over hangs on data and settings, never on what serves; the report compares with what serves."""
    release = trips.compose(2, {}, {MOVED[0]: 1})
    trips.registry.promote(release.number, "production", who="a test", why="it serves", override="a test")
    again = trips.train(LATER_CUT)
    assert again.result["assets_reused"] == ASSETS
    assert again.result["pack"] == trips.trained[1].result["pack"]
    assert "composed" not in again.release.entry.document["details"]
    assert f"release {release.number}" in (trips.folder / "report.html").read_text()
