"""Awaiting a condition instead of sleeping."""

import time
from collections.abc import Callable


def until(met: Callable[[], object], seconds: float = 60) -> float:
    """Waits for a condition and returns how long that took; fails after so many seconds."""
    began = time.monotonic()
    while not met():
        assert time.monotonic() - began < seconds, f"still not after {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - began
