"""Gearman: gearmand, the server in C, with OpenStack's client and worker in Python."""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import gear

from benchmarks.peers import adapter

_CONNECT_S = 30


class Adapter(adapter.PeerAdapter):
    """As many workers as processors where speed counts. Its jobs with results are never on disk."""

    about = f"Gearman: gearmand on loopback, gear {version('gear')} with TCP_NODELAY, pickle; a process a worker"
    cannot = (
        adapter.NO_CHUNKS
        | dict.fromkeys(adapter.NOT_DURABLE, "keeps only jobs without results on disk")
        | {"kill": "starts no workers, and so replaces none: that is left to whoever runs them"}
    )
    fastest = adapter.PROCESSORS

    def _start(self, workers: int) -> None:
        port = str(_free_port())
        log = self.directory / "gearmand.log"
        try:
            subprocess.Popen(["gearmand", "--listen", "127.0.0.1", "--port", port, "--log-file", str(log)])
        except FileNotFoundError:
            raise RuntimeError("no gearmand; on Debian or Ubuntu: apt-get install gearman-job-server") from None
        self._client = _Client("benchmark")
        self._client.addServer("127.0.0.1", int(port))
        self._client.waitForServer(_CONNECT_S)
        for _ in range(workers):
            subprocess.Popen([sys.executable, "-m", "benchmarks.peers.gearman_worker", port], stdin=subprocess.DEVNULL)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        job = _Job(b"run", pickle.dumps((function, arguments)), uuid.uuid4().bytes.hex().encode())
        self._client.submitJob(job)
        return job

    def result(self, handle: Any, timeout_s: float) -> Any:
        if not handle.done.wait(timeout_s):
            raise TimeoutError(f"no result within {timeout_s:g} s")
        if handle.failure:
            raise RuntimeError("the job failed")
        return pickle.loads(b"".join(handle.data))


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class _Job(gear.Job):
    """One that can be waited for."""

    def __init__(self, name: bytes, arguments: bytes, unique: bytes) -> None:
        super().__init__(name, arguments, unique)
        self.done = threading.Event()


class _Client(gear.Client):
    """One that tells a job that it has ended, and whose small packets do not wait for acknowledgements."""

    def _onConnect(self, conn: Any) -> None:  # noqa: N802 (theirs)
        conn.conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super()._onConnect(conn)

    def handleWorkComplete(self, packet: Any) -> Any:  # noqa: N802 (theirs)
        job = super().handleWorkComplete(packet)
        job.done.set()
        return job

    def handleWorkFail(self, packet: Any) -> Any:  # noqa: N802 (theirs)
        job = super().handleWorkFail(packet)
        job.done.set()
        return job
