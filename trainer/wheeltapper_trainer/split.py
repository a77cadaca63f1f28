"""Before and after: which rows train, which validate, which test, and which nobody may use.

By time: train | embargo | validate | embargo | test. An embargo is one longest window plus the target's horizon, so
that no label of an earlier part looks into a later one and no window of the later part reaches back into the labels'
span. By asset: whole machines, for run-to-failure sets in which a machine lives once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from wheeltapper.errors import ConfigError
from wheeltapper.spec import MICROSECONDS_PER_HOUR, ClassSpec, FleetSpec, Target, duration_label

from wheeltapper_trainer.history import History
from wheeltapper_trainer.job import TEST, TRAIN, UNUSED, VALID, ClassSplit
from wheeltapper_trainer.labels import horizon_of

TEST_ATTRIBUTE = "test"  # 1 marks an asset of an official test part


def resolve_split(history: History, spec: FleetSpec) -> tuple[ClassSplit, ...]:
    """The split of every class, fixed once for all workers. ConfigError where a part would be empty."""
    if spec.split.by == "asset":
        return tuple(_by_asset(history, spec, entry) for entry in spec.classes)
    first, last = history.span()
    test_from = spec.split.test_from_us or last - round((last - first) * spec.split.test_share)
    valid_from = test_from - (test_from - first) // max(2, spec.split.folds)
    for entry in spec.classes:
        for target in entry.targets if entry.cadence_us else ():
            embargo = embargo_of(entry, target)
            if valid_from - embargo <= first or test_from - embargo <= valid_from or test_from > last:
                span = duration_label((last - first) // MICROSECONDS_PER_HOUR * MICROSECONDS_PER_HOUR)
                raise ConfigError(
                    f"split: the history spans {span}, too short "
                    f"for training, validation and test of {entry.name}.{target.name} with an embargo of "
                    f"{duration_label(int(embargo))} before each",
                    "shorten the longest window, the horizon or the cap, lower split.test_share, or bring more history",
                )
    return tuple(ClassSplit(entry.name, "time", valid_from, test_from) for entry in spec.classes)


def embargo_of(spec: ClassSpec, target: Target) -> float:
    """The longest window plus the target's horizon, in µs (time grid) or readings."""
    return spec.windows[-1] * max(1, spec.cadence_us) + horizon_of(spec, target)


def parts_of(
    spec: ClassSpec, split: ClassSplit, target: Target, asset_id: str, times: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint8]:
    """uint8[n]: TRAIN, VALID, TEST or UNUSED (embargo) of each row of one asset for one target."""
    if split.by == "asset":
        part = TEST if asset_id in split.test_assets else VALID if asset_id in split.valid_assets else TRAIN
        return np.full(len(times), part, np.uint8)
    embargo = embargo_of(spec, target)
    rows = times.astype(np.float64) if spec.cadence_us else np.arange(len(times), dtype=np.float64)

    def place(cut: int) -> float:
        return float(cut) if spec.cadence_us else float(np.searchsorted(times, cut))

    valid_from, test_from = place(split.valid_from_us), place(split.test_from_us)
    parts = np.full(len(times), UNUSED, np.uint8)
    parts[rows < valid_from - embargo] = TRAIN
    parts[(rows >= valid_from) & (rows < test_from - embargo)] = VALID
    parts[rows >= test_from] = TEST
    return parts


def _by_asset(history: History, spec: FleetSpec, entry: ClassSpec) -> ClassSplit:
    assets = [asset for asset in history.assets() if asset.asset_class == entry.name]
    marked = [asset.asset_id for asset in assets if asset.attributes.get(TEST_ATTRIBUTE) == 1.0]
    order = _shuffled([asset.asset_id for asset in assets], spec.seed)
    test = marked or order[: round(len(order) * spec.split.test_share)]
    rest = [asset_id for asset_id in order if asset_id not in set(test)]
    valid = rest[: max(1, len(rest) // max(2, spec.split.folds))]
    if not test or len(rest) <= len(valid):
        raise ConfigError(
            f'split: by = "asset" needs assets to train, validate and test class {entry.name!r} with;'
            f" found {len(assets)} of which {len(test)} test",
            'mark test assets with an attribute "test" of 1, change split.test_share, or split by = "time"',
        )
    return ClassSplit(entry.name, "asset", valid_assets=tuple(sorted(valid)), test_assets=tuple(sorted(test)))


def _shuffled(asset_ids: Sequence[str], seed: int) -> list[str]:
    """An order that depends on each id and the seed alone, so a new asset moves no other one."""
    return sorted(asset_ids, key=lambda asset_id: hashlib.sha256(f"{seed}:{asset_id}".encode()).digest())
