"""Environments of peers that must not enter the product's lock: each in build/peers/, made when it is first measured.

They pin what the product does not (MLServer an older protobuf), and bring dozens of packages that nothing here imports.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_NEEDS = {
    "mlserver": ["mlserver>=1.7,<2", "numpy"],
    "bentoml": ["bentoml>=1.4,<2", "numpy"],
    "rayserve": ["ray[serve]=={ray}", "numpy"],
}
KINDS = frozenset(_NEEDS)
_SAME = "xgboost-cpu=={xgboost-cpu}"  # the forest is walked by what walks it for the other peers
_MAKING_S = 300


class AbsentError(Exception):
    """A peer that cannot be had here, and why."""


def interpreter(kind: str) -> Path:
    """The Python of an environment with this peer. Raises AbsentError."""
    uv = shutil.which("uv") or shutil.which(ROOT / ".tools" / "bin" / "uv")
    if uv is None:
        raise AbsentError("no uv, which makes its environment")
    python = ROOT / "build" / "peers" / kind / "bin" / "python"
    needs = [one.format_map(_Versions()) for one in (*_NEEDS[kind], _SAME)]
    for words in (
        ["venv", "--quiet", "--allow-existing", "--python", sys.executable, str(python.parents[1])],
        ["pip", "install", "--quiet", "--python", str(python), *needs],
    ):
        try:
            done = subprocess.run([uv, *words], capture_output=True, text=True, timeout=_MAKING_S, check=False)
        except subprocess.TimeoutExpired:
            raise AbsentError(f"its environment was not made within {_MAKING_S} s") from None
        if done.returncode:
            raise AbsentError(" ".join(done.stderr.split())[:300])
    return python


class _Versions(dict[str, str]):
    """What is installed beside the product, by name."""

    def __missing__(self, name: str) -> str:
        return metadata.version(name)
