"""Packs of a small fleet of presses with every kind of answer, made without training."""

from __future__ import annotations

import dataclasses

import numpy as np
from packs import random_trees
from wheeltapper.features import KERNELS
from wheeltapper.pack import AssetContent, ClassContent, HeadContent, Output, PackContent, Why
from wheeltapper.spec import ClassSpec, EventFeature, Sensor, Target, features_of

MINUTE_US = 60_000_000
PRESS = ClassSpec(
    "press",
    (Sensor("force", "kN", 0.0, 100.0), Sensor("heat", "°C"), Sensor("oil", "bar")),
    cadence_us=MINUTE_US,
    windows=(4, 8),
    statistics=("mean", "std", "min", "max"),
    lateness=3,
    skew_us=MINUTE_US,
    targets=(
        Target("failure", "failure", "*", horizon_us=24 * 60 * MINUTE_US),
        Target("anomaly", "anomaly", sensors=("force", "oil")),
    ),
    statics=("age",),
    events=(EventFeature("error", "*", (60 * MINUTE_US,)),),
)


def content(seed: int, spec: ClassSpec = PRESS) -> PackContent:
    """A fleet of one class and two known assets, a-1 with a head of its own; trees differ with the seed."""
    rng = np.random.default_rng(seed)
    width = len(features_of(spec))
    heads = (
        HeadContent(0, 0, 2, random_trees(rng, width, 8)),
        HeadContent(0, 1, 2, random_trees(rng, width, 4)),
        HeadContent(0, 2, 2, random_trees(rng, width, 4)),
        HeadContent(0, 0, 3, random_trees(rng, width, 3), parent=0),
    )
    outputs = (
        Output("failure", "failure", 0, 1, threshold=0.5, hold=2, hysteresis=0.8),
        Output("anomaly", "anomaly", 1, 3, threshold=4.0),
    )[: len(spec.targets)]
    slots = 3 if len(spec.targets) == 2 else 1
    kept = tuple(head for head in heads if head.slot < slots)
    own = len(kept) - 1
    assets = (
        AssetContent("a-1", 0, (own, 1, 2)[:slots], (Why.OWN_HEAD_KEPT,) * slots, (3.0,)),
        AssetContent("a-2", 0, (0, 1, 2)[:slots], (Why.TOO_LITTLE_HISTORY,) * slots, (9.0,)),
    )
    one = ClassContent(spec, outputs, (0, 1, 2)[:slots], golden_rows=rng.normal(size=(3, width)).astype(np.float32),
                       golden_heads=np.tile(np.array((0, 1, 2)[:slots], np.int32), (3, 1)))  # fmt: skip
    return PackContent("works", seed, KERNELS, (one,), kept, assets)


ONE_OUTPUT = dataclasses.replace(PRESS, targets=PRESS.targets[:1])
