"""The one door to Numba: compile options, and the digest that names the feature arithmetic.

Every compiled function of the product goes through `kernel`, so the options that decide bits (no fast-math, no
contraction, no parallel reductions) stand in one place.
"""

from __future__ import annotations

import hashlib
import io
import os
import tokenize
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

_config = cast(Any, numba.config)
_njit = cast(Any, numba.njit)  # its options depend on each other in ways its types do not say

Function = TypeVar("Function", bound=Callable[..., object])


def cache_folder(package: Path) -> Path:
    """Where the machine code of exactly these sources is kept: the folder's name holds their digest.

    Numba's own check of a cached function looks at the file it stands in, not at those whose functions were compiled
    into it: after an update that changed only a callee, it would go on serving the old arithmetic. NUMBA_CACHE_DIR
    still says where the folder stands; without it that is beside the sources, or the user's cache where those are
    read-only.
    """
    digest = hashlib.sha256()
    for path in sorted(package.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    beside = package / "__pycache__"
    if _config.CACHE_DIR:
        base = Path(_config.CACHE_DIR)
    elif os.access(beside if beside.exists() else package, os.W_OK):
        base = beside
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wheeltapper"
    return base / f"kernels-{digest.hexdigest()[:16]}"


_config.CACHE_DIR = str(cache_folder(Path(__file__).parent))

_OPTIONS: dict[str, Any] = {
    # Strict IEEE order: a reassociated sum would give other bits in batch than in a stream.
    "fastmath": False,
    "error_model": "numpy",
    "nogil": True,
    "cache": True,
    # Said aloud, for a kernel that leaves it open inherits it from whoever has it compiled: everything below a merged
    # kernel was merged, too, rare steps as often as they were called, for a third of a cold start.
    "forceinline": False,
    "no_cfunc_wrapper": True,  # nobody passes kernels as values
}


def kernel(function: Function) -> Function:
    """Compile `function` for the CPU on its first call; its machine code is kept in `cache_folder`."""
    return cast(Function, _njit(**_OPTIONS)(function))


def heapless_kernel(function: Function) -> Function:
    """Like `kernel`, for the hot path: it cannot allocate, and passing a view costs no reference count.

    Counting references to views took four fifths of the time of the window kernels.
    """
    return cast(Function, _njit(_nrt=False, **_OPTIONS)(function))


def merged_kernel(function: Function) -> Function:
    """Like `heapless_kernel`, but always merged into the machine code of its callers.

    For the few steps of the hot path that take whole plans and windows: a call passes every field of a tuple by value,
    which cost as much as the sums themselves. What such a step calls is merged only where it says so itself.
    """
    return cast(Function, _njit(_nrt=False, **{**_OPTIONS, "forceinline": True})(function))


def inline_kernel(function: Function) -> Function:
    """Like `heapless_kernel`, but written into its callers before they are compiled.

    For scalar functions inside hot loops, and for large steps that stand in one place: merged ones are compiled once
    more by themselves, for nobody.
    """
    return cast(Function, _njit(_nrt=False, inline="always", **_OPTIONS)(function))


def source_digest(paths: Iterable[Path]) -> str:
    """Hex sha256 of the code in `paths`, blind to comments, docstrings and blank lines.

    Two installations with equal digests compute equal bits from equal readings; a pack carries the digest it was
    trained with, and a scorer with another one refuses it.
    """
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode())
        previous, hidden = tokenize.NEWLINE, False
        for token in tokenize.tokenize(io.BytesIO(path.read_bytes()).readline):
            if token.type in (tokenize.COMMENT, tokenize.NL, tokenize.ENCODING):
                continue
            # A string that starts a statement is a docstring; its line end goes with it.
            silent = token.type == tokenize.STRING and previous in (tokenize.NEWLINE, tokenize.INDENT)
            silent = silent or (token.type == tokenize.NEWLINE and previous == tokenize.STRING and hidden)
            previous, hidden = token.type, silent and token.type == tokenize.STRING
            if not silent:
                digest.update(f"{token.type}\0{token.string}\0".encode())
    return digest.hexdigest()
