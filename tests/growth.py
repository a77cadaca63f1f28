"""What work leaves behind in this process. Counted, not weighed, so that one forgotten object each time is seen."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

from numba.core.runtime import _nrt_python, rtsys

_MAPS = Path("/proc/self/maps")


class Growth:
    """Of a `with` block, known behind it. Warm up before.

    objects: pieces of Python's memory; arrays: that kernels made and nobody has freed; mapped: packs in memory, always
    0 where the system does not tell.
    """

    objects = arrays = mapped = 0

    def __enter__(self) -> Growth:
        _nrt_python.memsys_enable_stats()
        self._before = _count()
        return self

    def __exit__(self, *_: object) -> None:
        self.objects, self.arrays, self.mapped = (now - then for now, then in zip(_count(), self._before, strict=True))


def _count() -> tuple[int, int, int]:
    gc.collect()
    sys._clear_type_cache()  # it holds some thousands of names that were looked up, also those made for a moment
    kernels = rtsys.get_allocation_stats()
    mapped = _MAPS.read_text().count(".pack\n") if _MAPS.exists() else 0
    return sys.getallocatedblocks(), kernels.mi_alloc - kernels.mi_free, mapped
