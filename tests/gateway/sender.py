"""A site's program that may be killed at any moment: it sends readings, and notes on disk how many it has sent.

Run as `python sender.py HOST:PORT SPOOL NOTE ROWS SEED`. It exits with 0 once all are settled durably.
"""

from __future__ import annotations

import os
import random
import sys

from wheeltapper_gateway import Gateway, Settings

MINUTE_US = 60_000_000
T0 = 1_700_000_040 * 1_000_000
SENSORS = ("force", "heat", "oil")
ASSETS = ("s-1", "s-2", "s-3")


def row(number: int, seed: int) -> tuple[str, int, tuple[float, ...]]:
    """Reading `number` of all: assets in turn, a minute apart."""
    rng = random.Random(seed * 1_000_003 + number)
    return ASSETS[number % 3], T0 + number // 3 * MINUTE_US, tuple(rng.uniform(0, 100) for _ in SENSORS)


def main() -> int:
    address, spool, note, rows, seed = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
    handle = os.open(note, os.O_RDWR | os.O_CREAT)
    begin = int.from_bytes(os.pread(handle, 8, 0), "little")
    settings = Settings(batch_rows=8, durable=True, backoff_seconds=0.02, backoff_seconds_max=0.1, live_seconds=3_600)
    with Gateway(address, name="site", asset_class="press", sensors=SENSORS, assets=ASSETS, spool=spool,
                 settings=settings) as gateway:  # fmt: skip
        print("open", flush=True)
        for number in range(begin, rows):
            gateway.send(*row(number, seed))
            os.pwrite(handle, (number + 1).to_bytes(8, "little"), 0)  # killed before this, it sends the row twice
        return 0 if gateway.flush(60) else 1


if __name__ == "__main__":
    sys.exit(main())
