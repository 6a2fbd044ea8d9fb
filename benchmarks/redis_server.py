"""A Redis of the benchmark's own, on a Unix socket in a directory that goes with it, and gone with its owner."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

_PATIENCE_S = 10.0
_DURABLE = ["--appendonly", "yes", "--appendfsync", "always"]


def socket_in(directory: Path) -> Path:
    """Where the Redis of this directory listens."""
    return directory / "redis.sock"


class RedisServer:
    """redis-server. ``durable`` is ``appendfsync always``; without it nothing is written to disk, which is fastest.

    ``directory`` is where its log is synced.
    """

    def __init__(self, directory: Path, *, durable: bool) -> None:
        self._socket = socket_in(directory)
        self._log = directory / "redis.log"
        self._command = [
            "redis-server", "--port", "0", "--unixsocket", str(self._socket), "--dir", str(directory),
            "--save", "", "--logfile", str(self._log), *(_DURABLE if durable else ()),
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when it answers.

        Raises:
            RuntimeError: it did not start; the message is what it wrote.
        """
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        give_up_at = time.monotonic() + _PATIENCE_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                self.stop()
                raise RuntimeError(f"redis-server did not start\n{self._log.read_text()}")
            time.sleep(0.005)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(str(self._socket))
            except OSError:
                return False
            sock.sendall(b"PING\r\n")
            return sock.recv(64) == b"+PONG\r\n"

    def stop(self) -> None:
        """Kill it. Safe to call twice, or before ``start``."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
