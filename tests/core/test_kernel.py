"""Compiled code is never older than the sources it was made of, and merged only where a kernel says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import wheeltapper.kernel


def answer(folder: Path, code: str = "from wheeltapper.caller import twice; print(twice(1.0))") -> str:
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    words = [sys.executable, "-c", code]
    done = subprocess.run(
        words, env={**environment, "PYTHONPATH": str(folder)}, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.strip()


def package_in(folder: Path) -> Path:
    """A package of kernels made with the real decorators."""
    package = folder / "wheeltapper"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "kernel.py").write_text(Path(wheeltapper.kernel.__file__).read_text())
    return package


def test_what_a_merged_kernel_calls_is_merged_only_where_it_says_so(tmp_path: Path) -> None:
    """Numba hands `forceinline` down to whatever is compiled on the way: all of the block path became one function."""
    (package_in(tmp_path) / "steps.py").write_text(
        "from wheeltapper.kernel import heapless_kernel, kernel, merged_kernel\n"
        "@kernel\ndef plain(x):\n    return x + 1.0\n"
        "@heapless_kernel\ndef rare(x):\n    return plain(x) + 1.0\n"
        "@merged_kernel\ndef merged(x):\n    return rare(x) + 1.0\n"
        "@heapless_kernel\ndef outer(x):\n    return merged(x) + 1.0\n"
    )
    code = (
        "from wheeltapper.steps import merged, outer, plain, rare\n"
        "assert outer(1.0) == 5.0\n"
        "print(*(bool(made.fndesc.inline) for one in (outer, merged, rare, plain) for made in one.overloads.values()))"
    )
    assert answer(tmp_path, code) == "False True False False"


def test_a_changed_callee_is_compiled_into_its_unchanged_callers(tmp_path: Path) -> None:
    package = package_in(tmp_path)
    head = "from wheeltapper.kernel import kernel\n"
    (package / "callee.py").write_text(head + "@kernel\ndef once(x):\n    return x + 1.0\n")
    (package / "caller.py").write_text(
        head + "from wheeltapper.callee import once\n@kernel\ndef twice(x):\n    return once(once(x))\n"
    )
    assert answer(tmp_path) == answer(tmp_path) == "3.0"
    [kept] = (package / "__pycache__").glob("kernels-*")
    assert list(kept.rglob("caller*.nbi"))
    (package / "callee.py").write_text(head + "@kernel\ndef once(x):\n    return x + 2.0\n")
    assert answer(tmp_path) == "5.0"
