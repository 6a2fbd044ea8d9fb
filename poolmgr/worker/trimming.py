"""Giving back memory, when the manager asks for it."""

from __future__ import annotations

import gc

_collect = gc.collect  # a task may replace it in its module


def give_back() -> None:
    """Collect garbage; what is free then goes back to the system, where the C library can do that. What was frozen
    before the fork is not walked, so nothing of it is copied."""
    import ctypes

    _collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
