"""A daemon ends with a defect, wherever in its loop that is."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

_log = logging.getLogger(__name__)

EXIT_DEFECT = 70  # EX_SOFTWARE in sysexits.h


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
