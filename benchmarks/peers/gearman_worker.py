"""A worker of Gearman: ``python -m benchmarks.peers.gearman_worker PORT``, which runs one job after the other."""

from __future__ import annotations

import pickle
import socket
import sys
from typing import Any

import gear


class Worker(gear.Worker):
    """One whose small packets do not wait for the acknowledgement of those before: with gear's own, 40 ms."""

    def _onConnect(self, conn: Any) -> None:  # noqa: N802 (theirs)
        conn.conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super()._onConnect(conn)


def main(port: int) -> None:
    """Serve. A job is a pickled function with its arguments."""
    worker = Worker("benchmark")
    worker.addServer("127.0.0.1", port)
    worker.waitForServer()
    worker.registerFunction("run")
    while True:
        job = worker.getJob()
        function, arguments = pickle.loads(job.arguments)
        job.sendWorkComplete(pickle.dumps(function(*arguments)))


if __name__ == "__main__":
    main(int(sys.argv[1]))
