"""What every daemon's process wants beside its loop: to end with a defect, and not to look for garbage in vain."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from typing import Any

from poolmgr.manager.system import keep_large_blocks_apart

_log = logging.getLogger(__name__)

EXIT_DEFECT = 70  # EX_SOFTWARE in sysexits.h


def settle_memory() -> None:
    """What lives now lives on: the collector need not look at it again. Tasks make no cycles, so looking for some after
    every 700 of them is a waste. What comes and goes from now on must leave no holes."""
    keep_large_blocks_apart()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    gc.enable()


def on_defect(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Nobody has caught an exception. In a callback of the loop that is a defect of poolmgr: the daemon ends at once.

    One that goes on with half of a turn done keeps its clients waiting for what will not come, and is deaf to SIGTERM.
    One that is dead is replaced: the template kills its workers, and what was acknowledged is on disk. (A client's
    connection that fails is closed, and has no ``handle``.)
    """
    loop.default_exception_handler(context)
    if "handle" in context:
        _log.critical(
            "this is a defect of poolmgr: the daemon ends, its workers are killed; acknowledged work is on disk"
        )
        os._exit(EXIT_DEFECT)
