"""What the queues on Redis have in common: a Redis of their own, and a command that starts their workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.peers import adapter
from benchmarks.redis_server import RedisServer, socket_in

_STOPPING_S = 2.0


def redis_socket() -> str:
    """The path of the socket that Redis is on. The workers import the adapter's module too, and learn it from here."""
    return str(socket_in(Path(os.environ["BENCHMARK_DIRECTORY"])))


class RedisQueueAdapter(adapter.PeerAdapter):
    """Redis on a Unix socket: at ``appendfsync always`` where durable, else without any file."""

    cannot: ClassVar[Mapping[str, str]] = adapter.NO_CHUNKS

    def __init__(self, directory: Path, *, durable: bool) -> None:
        super().__init__(directory, durable=durable)
        self._redis = RedisServer(directory, durable=durable)
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def _command(self, workers: int) -> list[str]:
        """What starts the workers."""

    def _start(self, workers: int) -> None:
        self._redis.start()
        self._process = subprocess.Popen(
            self._command(workers), stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True
        )

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOPPING_S)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
        self._redis.stop()


class JsonQueueAdapter(RedisQueueAdapter):
    """One whose messages are JSON: what is large is text, since bytes would have to be encoded first."""

    def payload(self, size: int) -> Any:
        return "x" * size
