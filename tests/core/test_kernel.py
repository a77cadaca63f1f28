"""Compiled code is never older than the sources it was made of."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import wheeltapper.kernel


def answer(folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    words = [sys.executable, "-c", "from wheeltapper.caller import twice; print(twice(1.0))"]
    done = subprocess.run(
        words, env={**environment, "PYTHONPATH": str(folder)}, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.strip()


def test_a_changed_callee_is_compiled_into_its_unchanged_callers(tmp_path: Path) -> None:
    package = tmp_path / "wheeltapper"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "kernel.py").write_text(Path(wheeltapper.kernel.__file__).read_text())
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
