"""A Redis that is as durable as it can be, on a Unix socket in a directory of its own, and gone with its owner."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

_PATIENCE_S = 10.0


class RedisServer:
    """redis-server with ``appendfsync always``, as a context manager. ``directory`` is where its log is synced.

    Raises, when it is entered:
        RuntimeError: it did not start; the message is what it wrote.
    """

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "redis.sock"
        self._log = directory / "redis.log"
        self._command = [
            "redis-server", "--port", "0", "--unixsocket", str(self.socket), "--dir", str(directory),
            "--appendonly", "yes", "--appendfsync", "always", "--save", "", "--logfile", str(self._log),
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)
        give_up_at = time.monotonic() + _PATIENCE_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                self.__exit__(None, None, None)
                raise RuntimeError(f"redis-server did not start\n{self._log.read_text()}")
            time.sleep(0.01)
        return self

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(str(self.socket))
            except OSError:
                return False
            sock.sendall(b"PING\r\n")
            return sock.recv(64) == b"+PONG\r\n"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
