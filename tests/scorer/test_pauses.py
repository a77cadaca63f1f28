"""A scorer's own modules cost the collector nothing any more once it listens."""

from __future__ import annotations

import subprocess
import sys

CHILD = """
import gc, sys, time
import wheeltapper_scorer.server
from wheeltapper_scorer import pauses

def looked_s():
    began = time.process_time()
    gc.collect()
    return time.process_time() - began

gc.collect()
before_s = looked_s()
pauses.shorten()
print(before_s, looked_s(), sys.getswitchinterval())
"""


def test_a_full_collection_passes_over_what_stays() -> None:
    """Compared with itself, for machines differ: most of a tenth of a second, and then microseconds."""
    out = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True, timeout=60)
    before_s, after_s, switch_s = map(float, out.stdout.split())
    assert after_s < before_s / 10
    assert switch_s < 0.001
