"""Becoming a worker by exec: what any executable finds when it is started as a worker (docs/protocol.md).

Descriptors 3 to 6 are the task pipe, the result pipe, the control channel and the shared page; 1 and 2 go to the log,
0 is empty. The control channel does not block, so that it can be polled with plain reads. SIGUSR1 is ignored until the
worker wants it otherwise, so that one that cannot be interrupted is not ended by it.
"""

from __future__ import annotations

import fcntl
import os
import signal
from typing import NoReturn

import msgpack

from poolmgr.wire.messages import BROKEN, PROTOCOL_VERSION
from poolmgr.worker.channels import Channels
from poolmgr.worker.warden import FILES, GROUP, HEARTBEAT, PROTOCOL, WORKER

TASKS, RESULTS, CONTROL, PAGE = 3, 4, 5, 6
_LAST = PAGE
_NOT_FOUND = 127  # as shells report a command that cannot be run


def environ_of(worker: str, incarnation: int, group: str, heartbeat_interval_s: float) -> dict[str, str]:
    """The variables by which a worker knows who it is, on top of the environment of the pool."""
    return {
        WORKER: f"{worker}.{incarnation}",
        GROUP: group,
        PROTOCOL: str(PROTOCOL_VERSION),
        HEARTBEAT: f"{heartbeat_interval_s:g}",
        FILES: "1",
    }


def become(command: list[str], channels: Channels) -> NoReturn:
    """Exec ``command`` as a worker, in a process that was forked for it. Where that fails, the manager is told.

    Only system calls are made here: the process may have been forked from one with several threads.
    """
    os.set_blocking(channels.control, False)
    moved = Channels(*(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 16) for fd in channels))  # none stands in another's place
    for fd, place in (
        (moved.stdout, 1), (moved.stderr, 2), (moved.tasks, TASKS), (moved.results, RESULTS),
        (moved.control, CONTROL), (moved.page, PAGE),
    ):  # fmt: skip
        os.dup2(fd, place)
    os.closerange(_LAST + 1, os.sysconf("SC_OPEN_MAX"))
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        told = f"worker_command: {command[0]!r} cannot be run: {error.strerror}"
        os.write(RESULTS, msgpack.packb((BROKEN, told)))
        os._exit(_NOT_FOUND)
