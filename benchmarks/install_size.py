"""What an installation weighs: each package alone, from its built wheel, in an environment of its own.

`make bench NAME=install_size`. Bytes are those of the environment's files without Python itself, before anything is
compiled or run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from benchmarks import harness
from benchmarks.harness import Row

ROOT = Path(__file__).parents[1]
_MIB = 1 << 20
# package → the most it may weigh in MiB, and packages that serve a model elsewhere
LIMITS = {"wheeltapper-gateway": 25, "wheeltapper-scorer": 270}
PEERS = {"wheeltapper-scorer": ("fastapi", "uvicorn", "xgboost-cpu", "numpy", "scipy")}
_PEER_NAME = "FastAPI + XGBoost (CPU)"


def measure(short: bool) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        _uv("build", "--quiet", "--all-packages", "--wheel", "--out-dir", folder / "wheels", ROOT)
        locked = _uv(
            "export", "--quiet", "--project", ROOT, "--frozen", "--all-groups", "--no-emit-workspace", "--no-hashes"
        )
        constraints = folder / "constraints.txt"
        constraints.write_text("\n".join(line for line in locked.splitlines() if "==" in line))
        for package, most in LIMITS.items():
            size = _installed(folder, package, (package,), constraints)
            harness.require(size <= most, f"{package} weighs at most {most} MiB; found {size:.0f}")
            if package in PEERS and not short:
                other = _installed(folder, "peer", PEERS[package], constraints)
                rows.append(Row(f"{package}, installed", size, "MiB", _PEER_NAME, other, other / size))
            else:
                rows.append(Row(f"{package}, installed", size, "MiB"))
    return rows


def _installed(folder: Path, name: str, packages: tuple[str, ...], constraints: Path) -> float:
    """MiB that installing `packages` adds to an empty environment."""
    place = folder / name
    _uv("venv", "--quiet", place)
    empty = _bytes(place)
    words = ("--python", place / "bin" / "python", "--link-mode", "copy", "--find-links", folder / "wheels")
    _uv("pip", "install", "--quiet", *words, "-c", constraints, *packages)
    return (_bytes(place) - empty) / _MIB


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _uv(*words: object) -> str:
    found = os.environ.get("UV") or shutil.which("uv") or str(ROOT / ".tools" / "bin" / "uv")
    done = subprocess.run([found, *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


if __name__ == "__main__":
    harness.main("install_size", __doc__ or "", measure)
