"""Coverage-guided fuzzing of one target: `python tests/fuzz/run.py TARGET --seconds 300`, or all with `make fuzz`.

What it finds is written to tests/fuzz/corpus/TARGET/, where every run of the tests repeats it.
"""

from __future__ import annotations

import argparse
import operator
import sys
import types
from pathlib import Path
from typing import Any

import atheris
import numpy as np
from atheris.core_with_libfuzzer import _trace_cmp
from atheris.version_dependent import CMP_OP_SHIFT_AMOUNT

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # the packs of the other tests
PACKAGES = ["wheeltapper", "wheeltapper_scorer", "wheeltapper_gateway"]
CORE = HERE.parents[1] / "core" / "wheeltapper"
# Numba compiles kernels from their byte code, which must stay as it is: their modules are not instrumented.
KERNELS = [f"wheeltapper.{path.stem}" for path in CORE.glob("*.py") if "wheeltapper.kernel import" in path.read_text()]
COMPARE = (operator.lt, operator.le, operator.eq, operator.ne, operator.gt, operator.ge)  # in the order of dis.cmp_op


def compared(left: Any, right: Any, how: int, *about: object) -> Any:
    """atheris never frees what a comparison gives: arrays, of which it learns nothing, were 3 GB in a million runs."""
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        return COMPARE[how >> CMP_OP_SHIFT_AMOUNT](left, right)
    return _trace_cmp(left, right, how, *about)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with atheris.instrument_imports(include=PACKAGES, exclude=KERNELS):
        from fuzz import targets
        from wheeltapper import pack_check
    for function in vars(pack_check).values():  # it checks in Python too
        if isinstance(function, types.FunctionType) and function.__module__ == pack_check.__name__:
            atheris.instrument_func(function)
    target = targets.TARGETS[options.target]
    found = HERE / "corpus" / options.target
    begin = HERE.parents[1] / "build" / "fuzz" / options.target
    for folder in (found, begin):
        folder.mkdir(parents=True, exist_ok=True)
    for i, seed in enumerate(targets.seeds(options.target)):
        (begin / f"seed-{i}").write_bytes(seed)
    for seed in targets.seeds(options.target):
        target(seed)  # kernels are compiled before the clock runs
    limits = [f"-max_total_time={options.seconds}", "-max_len=8192", "-timeout=10", "-rss_limit_mb=4096"]
    words = [sys.argv[0], *limits, f"-seed={options.seed}", f"-artifact_prefix={found}/", str(begin), str(found)]

    def run(data: bytes) -> None:
        atheris._trace_cmp = compared  # `Fuzz` puts its own there when it begins
        target(data)

    atheris.Setup(words, run)
    atheris.Fuzz()  # ends the process, with the number of runs and seconds on stderr


main()
