"""Exec'ing a template. It is the first thing that a daemon does: the template imports the app while the daemon is still
importing itself. So this module imports next to nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import suppress
from typing import Any, NamedTuple

import msgpack

from poolmgr.config import Group, Settings
from poolmgr.manager.delegation import pool_cgroup
from poolmgr.worker.warden import TAG, WORKER, template_label

PACKET_BYTES = 1 << 20
# Each library would start as many threads as there are cores, in each worker; and malloc an arena for each thread.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
}


class Launched(NamedTuple):
    """A template that is coming up, and the daemon's end of its socket."""

    process: subprocess.Popen[bytes]
    sock: socket.socket

    def close(self) -> None:
        """End it. With its socket closed it kills what is left of the pool, and exits. Safe to call twice."""
        self.sock.close()
        self.ended(5.0)

    def ended(self, patience_s: float = 1.0) -> int:
        """Its exit code: it has closed its socket, or was to. Where it does not exit by itself, it is killed."""
        try:
            return self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def template_order(settings: Settings, path: list[str] | None = None) -> dict[str, Any]:
    """What a template of this process is told. The tag is unique on this machine for one life of the daemon.

    ``path``: its whole ``sys.path``; by default its own, led by this process's directory.
    """
    tag = f"{os.getpid()}.{os.urandom(8).hex()}"
    return {
        "app": list(settings.app),
        "forks": any(group.forks for group in settings.worker_groups()),
        "directory": os.getcwd(),
        "path": path,
        "manager": os.getpid(),
        "tag": tag,
        "cgroup": pool_cgroup(tag),
        "label": template_label(1),
        "heartbeat_interval_s": settings.heartbeat_interval_s,
    }


def exec_command(group: Group, order: dict[str, Any]) -> list[str] | None:
    """What a worker of this group is exec'd as; None where it is forked from the template that got ``order``."""
    if group.worker_command:
        return list(group.worker_command)
    return None if group.forks else spawned_command(order)


def spawned_command(order: dict[str, Any]) -> list[str]:
    """What a worker of the app is exec'd as."""
    path = os.pathsep.join(order["path"] or [order["directory"]])
    return [sys.executable, "-P", "-m", "poolmgr.worker.spawned", path, *order["app"]]


def launch_template(order: dict[str, Any]) -> Launched:
    """Exec a template, and tell it its ``order``. Must be called by the process that its workers are to belong to."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for sock in (ours, theirs):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PACKET_BYTES)
    try:
        with theirs:
            process = subprocess.Popen(
                # -P: the app's directory comes to lead the path later; a daemon.py in it is not to stand in our way.
                [sys.executable, "-P", "-m", "poolmgr.worker.template", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**_ENVIRONMENT, **os.environ, TAG: order["tag"], WORKER: order["label"]},
                stdin=subprocess.DEVNULL,
                process_group=0,  # Ctrl-C in a terminal is the daemon's affair alone
            )
    except BaseException:
        ours.close()
        raise
    ours.setblocking(False)
    with suppress(ConnectionError):  # it has died: its end will be read
        ours.send(msgpack.packb(order))
    return Launched(process, ours)
