"""How a worker's process ends, and a template's."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn


def run_and_exit(work: Callable[[], int]) -> NoReturn:
    """Do ``work``, all that this process is for, and exit with what it returns. Threads that still run are not waited
    for: the manager wants the slot back."""
    code = 1
    try:
        code = work()
    except BrokenPipeError:
        code = 0  # the daemon is gone
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
