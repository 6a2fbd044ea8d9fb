"""The memory of every daemon's process: no holes, and no looking for garbage in vain."""

from __future__ import annotations

import gc

from poolmgr.manager.system import keep_large_blocks_apart


def prepare_memory() -> None:
    """Before most of what the daemon consists of is imported: that makes no garbage, and is to leave no holes."""
    keep_large_blocks_apart()
    gc.disable()


def settle_memory() -> None:
    """Once it is up. What lives now lives on: the collector need not look at it again. Tasks make no cycles, so looking
    for some after every 700 of them is a waste."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    gc.enable()
