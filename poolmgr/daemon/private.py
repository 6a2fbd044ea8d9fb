"""The daemon of one program, which is its only client: exec'd by client/private.py on one end of a socketpair.

It is the daemon that everybody knows, less what others need: no socket file, no state on disk, no pid file, no log.
What its workers print goes where the program prints. It ends when the program closes its end of the connection, asks
for it, sends SIGTERM, or dies; the first word on the connection is ERROR where it does not come up.

Run as ``python -m poolmgr.daemon.private FD REQUEST``; the request is a map in JSON: flags (settings), path (the
program's import path) and program (its pid).
"""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import Any

from poolmgr.config import Settings
from poolmgr.daemon.files import allow_files
from poolmgr.errors import PoolError, StartFailed
from poolmgr.manager.launch import launch_template, template_order
from poolmgr.wire.framing import encode
from poolmgr.wire.messages import ERROR


def main(fd: str, request: str) -> int:
    """Serve the program until it needs no daemon any more."""
    number = int(fd)
    os.closerange(3, number)  # what the program has opened by other ways than Python's, which close with an exec
    os.closerange(number + 1, os.sysconf("SC_OPEN_MAX"))
    sock = socket.socket(fileno=number)
    sock.set_inheritable(False)
    try:
        _run(sock, json.loads(request))
    except PoolError as error:
        return _refuse(sock, error)
    except Exception:
        import traceback

        return _refuse(sock, StartFailed(f"a defect in poolmgr:\n{traceback.format_exc()}"))
    return 0


def _refuse(sock: socket.socket, error: PoolError) -> int:
    try:
        sock.sendall(encode((ERROR, error.code, str(error))))
    except OSError:
        pass  # nobody listens any more
    return 1


def _run(sock: socket.socket, request: dict[str, Any]) -> None:
    settings = Settings.load(file=None, environ={}, flags=request["flags"], flags_from="the private pool")
    program = os.pidfd_open(request["program"])
    if os.getppid() != request["program"]:
        return  # it has died, and another process may have its number by now
    allow_files()
    order = template_order(settings, request["path"])
    launched = launch_template(order)
    try:
        from poolmgr.daemon.memory import prepare_memory

        prepare_memory()
        from poolmgr.daemon.without_tls import import_loop

        import_loop()
        import asyncio

        import uvloop

        from poolmgr.daemon.private_life import PrivateLife

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(PrivateLife(settings, sock, program, launched, order).live())
    finally:
        launched.close()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
