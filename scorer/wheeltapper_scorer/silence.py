"""Assets that have gone silent: their last score is about the past, and nobody must take it for the present."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from wheeltapper.live import LiveFleet

from wheeltapper_scorer.settings import Settings


def silent(fleet: LiveFleet, asset_class: str, now_us: int, settings: Settings) -> NDArray[np.bool_]:
    """bool [assets of the class]: whether its newest reading is older than the settings allow. An asset that was
    opened and has sent nothing yet is silent."""
    return fleet.newest_times(asset_class) < now_us - allowed_us(fleet.spec(asset_class).cadence_us, settings)


def allowed_us(cadence_us: int, settings: Settings) -> int:
    """How old the newest reading of an asset may be, µs."""
    return max(settings.silent_slots * cadence_us, round(settings.silent_s * 1e6))
