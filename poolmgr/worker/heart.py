"""The heart of a worker, on a thread of its own. Where nobody listens any more, the worker is an orphan, and goes."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

from msgpack import packb

from poolmgr.wire.messages import HEARTBEAT

_BEAT = packb((HEARTBEAT,))
_sleep, _exit, _getppid = time.sleep, os._exit, os.getppid  # a task may replace them in their modules


def beat(send: Callable[[bytes, int], int], interval_s: float) -> None:
    """Say that this worker lives, again and again. ``send``: of the control channel."""
    manager = _getppid()
    while True:
        try:
            send(_BEAT, socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass  # the manager is late; it judges nobody when it is
        except OSError:
            _exit(0)
        _sleep(interval_s)
        if _getppid() != manager:
            _exit(0)
