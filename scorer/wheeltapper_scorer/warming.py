"""Every kernel that scoring needs, compiled before there is anything to score: for images and for installations."""

from __future__ import annotations

import numpy as np
from wheeltapper.features import KERNELS
from wheeltapper.forest import no_trees
from wheeltapper.live import LiveFleet
from wheeltapper.pack import ClassContent, HeadContent, Output, Pack, PackContent, write_pack
from wheeltapper.spec import ClassSpec, Sensor, Target, features_of


def compile_kernels() -> None:
    """Score a made-up fleet: what kernels are compiled for are types, and those are the same for every pack."""
    LiveFleet(Pack.from_bytes(write_pack(specimen()), KERNELS), release=0).warm()


def specimen() -> PackContent:
    """The smallest fleet that has everything a pack may hold: one class, one head without trees, a golden row."""
    spec = ClassSpec(
        "specimen",
        (Sensor("one"),),
        cadence_us=1_000_000,
        windows=(2,),
        statistics=("mean",),
        lateness=0,
        skew_us=0,
        targets=(Target("rul", "rul", cap=1.0),),
    )
    rows = np.zeros((1, len(features_of(spec))), np.float32)
    output = Output("rul", "rul", 0, 1, cap=1.0)
    one = ClassContent(spec, (output,), (0,), golden_rows=rows, golden_heads=np.zeros((1, 1), np.int32))
    return PackContent("specimen", 0, KERNELS, (one,), (HeadContent(0, 0, 2, no_trees()),), ())
