"""For all tests: a machine that pauses is no failure of what is tested."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
