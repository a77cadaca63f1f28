"""A reading costs no more than it did, beside XGBoost in the same run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_cost_of_a_reading_has_not_grown() -> None:
    """What got slower is told by `benchmarks.guard`, with the ratio that it expected."""
    root = Path(__file__).parents[2]
    words = [sys.executable, "-m", "benchmarks.guard", "--short"]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
