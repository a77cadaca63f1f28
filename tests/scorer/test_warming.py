"""Kernels compiled ahead are all that a scorer needs, and lie where nobody else can write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from wheeltapper.errors import Refused
from wheeltapper_scorer import kernel_cache, warming

_COUNT = """
import sys
from pathlib import Path
from wheeltapper_scorer import warming
warming.compile_kernels()
from wheeltapper.features import KERNELS
from wheeltapper.live import LiveFleet
from wheeltapper.pack import open_pack

def compiled():
    modules = [module for name, module in sys.modules.items() if name.startswith("wheeltapper.")]
    kernels = {id(k): k for module in modules for k in vars(module).values() if hasattr(k, "signatures")}
    return {(k.py_func.__qualname__, str(s)) for k in kernels.values() for s in k.signatures}

before = compiled()
LiveFleet(open_pack(Path(sys.argv[1]), kernels=KERNELS), 1).warm()
print(len(before), sorted(name for name, _ in compiled() - before))
"""

_BESIDE = """
import sys
from wheeltapper_scorer import warming

def compiled():
    modules = [module for name, module in sys.modules.items() if name.startswith("wheeltapper.")]
    kernels = {id(k): k for module in modules for k in vars(module).values() if hasattr(k, "signatures")}
    return {(k.py_func.__qualname__, str(s)) for k in kernels.values() for s in k.signatures}

warming.compile_what_is_beside()
beside = compiled()
warming.compile_kernels()
print(sorted(name for name, _ in beside))
print(sorted(name for name, _ in compiled() - beside))
"""


def test_a_real_pack_compiles_nothing_that_warm_has_not(tmp_path: Path, packs: dict[str, bytes]) -> None:
    path = tmp_path / "real.pack"
    path.write_bytes(packs["first"])
    done = subprocess.run([sys.executable, "-c", _COUNT, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count, _, missed = done.stdout.partition(" ")
    assert int(count) >= 5
    assert missed.strip() == "[]"


def test_the_second_process_leaves_the_block_path_and_nothing_else_to_the_first() -> None:
    done = subprocess.run([sys.executable, "-c", _BESIDE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    beside, left = done.stdout.splitlines()
    assert "'_explain'" in beside
    assert "'take_rows'" in beside
    assert left == "['score_rows']"


def test_with_an_empty_cache_a_second_process_helps_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, *words: Any, **options: Any) -> None:
            super().__init__(*words, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Noted)
    monkeypatch.setattr(warming, "_folder", lambda: tmp_path)
    monkeypatch.setattr(warming, "available_cpus", lambda: 2)
    with warming.beside():
        assert started[0].poll() is None
    assert started[0].poll() is not None
    (tmp_path / "bound.score_rows-1.py311.nbi").touch()
    with warming.beside():
        assert len(started) == 1


def test_a_cache_is_made_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    folder = tmp_path / "deep" / "cache"
    assert kernel_cache.choose(folder) == folder
    assert folder.stat().st_mode & 0o777 == 0o700
    assert kernel_cache.choose(None) == folder  # the choice holds for what is imported later
    (folder / "a.nbc").write_bytes(b"12")
    (folder / "a.py").write_bytes(b"1")
    assert kernel_cache.size(folder) == (1, 2)


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_cache_that_others_can_write_is_refused(tmp_path: Path, mode: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    tmp_path.chmod(mode)
    with pytest.raises(Refused, match="only this user can write"):
        kernel_cache.choose(None)
    tmp_path.chmod(0o755)
    assert kernel_cache.choose(None) == tmp_path


def test_without_a_choice_kernels_stay_beside_their_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    assert kernel_cache.choose(None) is None
