"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

# The machine that tests may be busy: no example fails for being slow, and failures repeat.
settings.register_profile("house", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("house")
