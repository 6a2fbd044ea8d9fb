"""An app whose workers die while they start."""

from __future__ import annotations

import os

from poolmgr import worker_startup


@worker_startup
def die() -> None:
    os._exit(7)
