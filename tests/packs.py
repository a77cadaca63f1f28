"""Small packs made without training, for tests of whatever reads one."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

import numpy as np
from wheeltapper.forest import Trees, no_trees, plant
from wheeltapper.pack import AssetContent, ClassContent, HeadContent, Output, PackContent, Why
from wheeltapper.regimes import Regimes
from wheeltapper.spec import ClassSpec, RegimeSpec, Sensor, Target, features_of

KERNELS = "kernels of a test"


def random_trees(rng: np.random.Generator, features: int, trees: int, splits_max: int = 5) -> Trees:
    """Trees of random shape, 0 to `splits_max` splits each, as XGBoost would number them."""
    begin, left, right, feature, value, default_left, cover = [0], [], [], [], [], [], []
    for _ in range(trees):
        own_left, own_right, own_cover = [-1], [-1], [float(rng.uniform(10, 100))]
        for _ in range(int(rng.integers(0, splits_max + 1))):
            leaf = int(rng.choice([i for i, child in enumerate(own_left) if child < 0]))
            own_left[leaf], own_right[leaf] = len(own_left), len(own_left) + 1
            own_left += [-1, -1]
            own_right += [-1, -1]
            share = float(rng.uniform(0.05, 0.95))
            own_cover += [share * own_cover[leaf], (1 - share) * own_cover[leaf]]
        size = len(own_left)
        left += own_left
        right += own_right
        cover += own_cover
        feature += rng.integers(0, features, size).tolist()
        value += rng.normal(size=size).tolist()
        default_left += (rng.random(size) < 0.5).tolist()
        begin.append(begin[-1] + size)
    return plant(
        np.array(begin, np.int64),
        np.array(left, np.int32),
        np.array(right, np.int32),
        np.array(feature, np.int32),
        np.array(value, np.float32),
        np.array(default_left, np.bool_),
        np.array(cover, np.float32),
        features,
    )


def small_content(seed: int = 1) -> PackContent:
    """Two classes (one with regimes, statics, calibration), asset heads on class heads, three assets."""
    rng = np.random.default_rng(seed)
    pump = ClassSpec(
        "pump",
        (Sensor("pressure", "bar", 0.0, 40.0), Sensor("flow"), Sensor("load", feature=False)),
        600_000_000,
        (6,),
        ("mean",),
        3,
        0,
        (Target("failure", "failure:seal", "seal", horizon_us=86_400_000_000), Target("rul", "rul", cap=90.0)),
        statics=("age",),
        regime=RegimeSpec(("load",), 2),
    )
    fan = ClassSpec(
        "fan", (Sensor("speed"), Sensor("current")), 0, (2,), ("min",), 0, 0,
        (Target("anomaly", "anomaly", sensors=("speed", "current")),),
    )  # fmt: skip
    wide, narrow = len(features_of(pump)), len(features_of(fan))
    knots = np.array([[-1.0, 0.01], [0.0, 0.2], [2.0, 0.9]], np.float32)
    heads = (
        HeadContent(0, 0, 2, random_trees(rng, wide, 5), base=-1.5, knots=knots),
        HeadContent(0, 1, 2, random_trees(rng, wide, 4), base=40.0),
        HeadContent(1, 0, 2, random_trees(rng, narrow, 1), base=0.25, scale=(2.0, 0.1)),
        HeadContent(1, 1, 2, random_trees(rng, narrow, 1), base=0.5),
        HeadContent(0, 0, 3, random_trees(rng, wide, 6), parent=0, scale=(0.9, -0.1)),
        HeadContent(1, 1, 3, random_trees(rng, narrow, 2), parent=3),
    )
    regimes = Regimes(
        np.array([[-1.0], [1.0]]),
        np.array([[50.0, 0.1]]),
        rng.normal(size=(3, 3)).astype(np.float32),
        np.ones((3, 3), np.float32),
    )
    rows = rng.normal(size=(3, wide)).astype(np.float32)
    rows[0, 1] = np.nan
    classes = (
        ClassContent(
            pump,
            (
                Output("failure:seal", "failure", 0, 1, code="seal", threshold=0.4, hold=2, hysteresis=0.8),
                Output("rul", "rul", 1, 2, unit="h", cap=90.0, metrics={"rmse": 12.5}),
            ),
            (0, 1),
            regimes,
            np.sort(rng.normal(size=(wide, 17)), axis=1).astype(np.float32),
            rows,
            np.array([[4, 1], [0, 1], [-1, 1]], np.int32),
        ),
        ClassContent(
            fan,
            (Output("anomaly", "anomaly", 0, 2, threshold=4.0),),
            (2, 3),
            golden_rows=rng.normal(size=(2, narrow)).astype(np.float32),
            golden_heads=np.array([[2, 5], [2, 3]], np.int32),
        ),
    )
    own, told, none = Why.OWN_HEAD_KEPT, Why.DID_NOT_BEAT_CLASS, Why.NO_EVENTS
    assets = (
        AssetContent("pump-2", 0, (4, 1), (own, told), (3.5,)),
        AssetContent("fan-é", 1, (2, 5), (told, own)),
        AssetContent("pump-1", 0, (0, 1), (none, told)),
    )
    return PackContent("works", 7, KERNELS, classes, heads, assets, {"data": "a digest", "versions": {"numpy": "2"}})


def lone_content() -> PackContent:
    """`small_content` without its second class."""
    content = small_content()
    heads = (replace(head, parent=0 if head.level == 3 else -1) for head in content.heads if head.class_index == 0)
    pump = replace(content.classes[0], golden_rows=None, golden_heads=None)
    assets = tuple(replace(asset, heads=(0, 1)) for asset in content.assets if asset.class_index == 0)
    return replace(content, classes=(pump,), heads=tuple(heads), assets=assets)


def started_content() -> PackContent:
    """`small_content` where both classes also watch how far each asset has moved from its own start."""
    content = small_content()
    specs = [one.spec for one in content.classes]
    rng = np.random.default_rng(3)
    pump = replace(specs[0], statistics=("mean", "shift"), start=5)
    anomaly = replace(specs[1].targets[0], shift=2)
    fan = replace(specs[1], statistics=("min", "shift"), start=4, targets=(anomaly,))
    wide, narrow = len(features_of(pump)), len(features_of(fan))
    heads = tuple(
        replace(head, trees=random_trees(rng, wide if head.class_index == 0 else narrow, 3)) for head in content.heads
    )
    shifts = (HeadContent(1, 2, 2, no_trees(), base=0.125, scale=(0.5, 0.0)), HeadContent(1, 3, 2, no_trees()))
    classes = (
        replace(content.classes[0], spec=pump, sketch=None, golden_rows=rng.normal(size=(3, wide)).astype(np.float32)),
        ClassContent(fan, (Output("anomaly", "anomaly", 0, 4, threshold=4.0),), (2, 3, 6, 7)),
    )
    starts = {"pump-2": (3_000_000_000.0, 20.0, 30.0, 0.125, 0.5), "fan-é": (4000.0, 25.0, math.nan, 0.25, math.nan)}
    kept = tuple(
        replace(a, heads=(*a.heads, 6, 7), reasons=(*a.reasons, Why.NOT_TRAINED, Why.NOT_TRAINED))
        if a.class_index == 1
        else a
        for a in content.assets
    )
    assets = tuple(replace(asset, start=starts.get(asset.asset_id, ())) for asset in kept)
    return replace(content, classes=classes, heads=(*heads, *shifts), assets=assets)


def sealed_again(data: bytes | bytearray) -> bytes:
    """A pack with its trailer made true again, as a hostile hand would."""
    return bytes(data[:-32]) + hashlib.sha256(data[:-32]).digest()
