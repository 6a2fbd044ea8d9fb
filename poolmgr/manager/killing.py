"""The kill sequence: the stacks are dumped, SIGTERM, SIGKILL. Every step is for this one process and its group: one
that has ended meanwhile is left alone, whoever has its number then.

The signal for the dump ends the process, too. One that merely dumped would wake what sleeps in a system call: a task
that hangs would seem to be done, because it was looked at. SIGTERM is for those who have a handler for it, to tidy up
within the grace; and for workers that know of no dump.
"""

from __future__ import annotations

import asyncio
import signal

from poolmgr.manager import procfs
from poolmgr.manager.process import WorkerProcess
from poolmgr.worker.page import DUMP_SIGNAL

_DUMP_S = 0.1


def kill(loop: asyncio.AbstractEventLoop, process: WorkerProcess, grace_s: float, *, tidy: bool = True) -> None:
    """Begin to end ``process`` and its group; it has ``grace_s``, or SIGKILL comes at once where that is 0.

    Where it is not to tidy up first (``tidy``), a handler for SIGTERM is not asked.
    """
    pid = process.pid
    if pid is None:
        process.unwanted = True
    elif grace_s <= 0:
        process.signal_group(signal.SIGKILL)
    elif procfs.catches(pid, DUMP_SIGNAL) and not (tidy and procfs.catches(pid, signal.SIGTERM)):
        process.signal(DUMP_SIGNAL)
        process.signal_group(signal.SIGCONT)
        loop.call_later(grace_s, process.signal_group, signal.SIGKILL)
    elif not tidy:
        process.signal_group(signal.SIGKILL)
    else:
        process.signal_group(signal.SIGTERM)
        process.signal_group(signal.SIGCONT)
        loop.call_later(grace_s, _kill_late, loop, process, pid)


def _kill_late(loop: asyncio.AbstractEventLoop, process: WorkerProcess, pid: int) -> None:
    """It has had its grace."""
    if procfs.catches(pid, DUMP_SIGNAL):
        process.signal(DUMP_SIGNAL)
        loop.call_later(_DUMP_S, process.signal_group, signal.SIGKILL)
    else:
        process.signal_group(signal.SIGKILL)
