"""Where a fleet is scored: on the CPU, or on a GPU with the same answers. What a GPU needs is imported only for one."""

from __future__ import annotations

from wheeltapper.live import LiveFleet
from wheeltapper.pack import Pack

DEVICES = ("cpu", "cuda")


def fleet_on(device: str, pack: Pack, release: int, capacity_max: int = 200_000, threads: int = 1) -> LiveFleet:
    """A fleet of that pack without assets. threads: cores that a large block may use, on the CPU.

    Raises Refused where there is no such device.
    """
    if device == "cuda":
        from wheeltapper.cuda_fleet import CudaFleet  # noqa: PLC0415  Numba's CUDA target takes a second to import

        return CudaFleet(pack, release, capacity_max)
    return LiveFleet(pack, release, capacity_max, threads)
