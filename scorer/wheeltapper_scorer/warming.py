"""Every kernel that scoring needs, compiled before there is anything to score: for images and for installations."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
from wheeltapper.answers import answers, columns
from wheeltapper.bound import score_rows
from wheeltapper.features import KERNELS
from wheeltapper.forest import no_trees
from wheeltapper.live import LiveFleet
from wheeltapper.pack import ClassContent, HeadContent, Output, Pack, PackContent, write_pack
from wheeltapper.spec import ClassSpec, Sensor, Target, features_of
from wheeltapper_command.machine import available_cpus


def compile_kernels() -> None:
    """Score a made-up fleet: what kernels are compiled for are types, and those are the same for every pack."""
    with beside():
        LiveFleet(Pack.from_bytes(write_pack(specimen()), KERNELS), release=0).warm()


@contextmanager
def beside() -> Iterator[None]:
    """Where nothing is compiled yet and a second core is free, another process compiles what is beside the block path
    while the caller compiles that. It is ended with the block; what it did not finish the caller compiles itself."""
    if any(_folder().glob("*.score_rows-*.nbi")) or available_cpus() < 2:
        yield
        return
    words = [sys.executable, "-m", "wheeltapper_scorer.warming"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as helper:
        try:
            yield
        finally:
            helper.terminate()  # what it has finished is kept, file by file


def compile_what_is_beside() -> None:
    """Events and reasons: a quarter of the work, and nothing that the block path waits for."""
    fleet = LiveFleet(Pack.from_bytes(write_pack(specimen()), KERNELS), release=0)
    rows = fleet.open_assets("specimen", ["warm"])
    fleet.take_events("specimen", rows, np.array([0]), np.array([-1]), 0)
    scored = columns(1, outputs=1, features=len(features_of(fleet.spec("specimen"))))
    for column in scored:
        column.fill(0)
    fleet.reasons("specimen", answers(scored, [], want_features=True), 1, np.ones((1, 1), np.bool_))


def _folder() -> Path:
    """Where the machine code of these kernels is kept."""
    return Path(str(cast(Any, score_rows).stats.cache_path))


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


if __name__ == "__main__":
    compile_what_is_beside()
