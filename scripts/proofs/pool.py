"""A private daemon, for proofs and tests: in the foreground, on a socket of its own, and gone without a trace.

All that it starts inherits a mark in its environment, by which it is found: also what was orphaned on purpose.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from poolmgr import Client
from poolmgr.manager import procfs
from poolmgr.worker.warden import processes as all_processes

T = TypeVar("T")

HERE: Final = Path(__file__).resolve().parent
_MARK: Final = "PRIVATE_POOL"
_PATIENCE_S: Final = 15.0
_LOOK_S: Final = 0.002


def until(what: Callable[[], T], why: str = "", timeout_s: float = 10.0) -> T:
    """The first true value that ``what()`` returns. It is asked every 2 ms.

    Raises:
        AssertionError: there was none within ``timeout_s`` seconds.
    """
    give_up_at = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < give_up_at, f"not within {timeout_s:g} s: {why or what.__name__}"
        time.sleep(_LOOK_S)
    return found


class NotStarted(Exception):
    """The daemon ended before it was ready. ``code`` is its exit code, the text is what it wrote."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"exit code {code}\n{text}")
        self.code = code
        self.text = text


class Pool:
    """One daemon, which may be started again when it has ended. As a context manager: started, and ended.

    Args:
        directory: for its socket, its state and its log; short, as a socket's path has at most 107 bytes.
        app: the module with the handlers; '' for none.
        app_directory: where that is.
        workers: how many.
        settings: any other settings, by their names.
    """

    def __init__(
        self,
        directory: Path,
        *,
        app: str = "chores",
        app_directory: Path = HERE,
        workers: int = 20,
        **settings: Any,
    ) -> None:
        self.socket = directory / "run" / "p.sock"
        self.state = directory / "state"
        self.log = directory / "log"
        self.workers = workers
        self._notify = directory / "notify"
        self.app_directory = app_directory
        self.command = [sys.executable, "-P", "-m", "poolmgr", "start", "--foreground"]
        self.command += ["--app", app] if app else []
        self._mark = f"{os.getpid()}-{os.urandom(6).hex()}"
        self._process: subprocess.Popen[bytes] | None = None
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("POOLMGR_")}
        given = {"socket": self.socket, "state_dir": self.state, "pool_size": workers, **settings}
        self.environ.update({f"POOLMGR_{name.upper()}": str(value) for name, value in given.items()})
        self.environ[_MARK] = self._mark

    # ------------------------------------------------------------------------------------------ life

    def start(self, timeout_s: float = _PATIENCE_S) -> Self:
        """Start it, and return when all its workers are ready.

        Raises:
            NotStarted: it ended before.
            subprocess.TimeoutExpired: it did neither within ``timeout_s`` seconds.
        """
        self._notify.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, self.log.open("ab") as log:
            ready.bind(str(self._notify))
            self._process = subprocess.Popen(
                self.command,
                cwd=self.app_directory,
                env={**self.environ, "NOTIFY_SOCKET": str(self._notify)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,  # Ctrl-C is for whoever runs the proof; it ends the daemon in its own way
            )
            ended = os.pidfd_open(self.pid)
            try:
                heard, _, _ = select.select([ready.fileno(), ended], [], [], timeout_s)
            finally:
                os.close(ended)
            if ready.fileno() not in heard or not ready.recv(4096).startswith(b"READY=1"):
                raise NotStarted(self.wait(), self.log.read_text())
        return self

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        assert self._process is not None, "it was not started"
        return self._process.pid

    def client(self, **arguments: Any) -> Client:
        """A client of it."""
        return Client(str(self.socket), **arguments)

    def signal(self, number: int) -> None:
        """Send the daemon a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, timeout_s: float = _PATIENCE_S) -> int:
        """Its exit code, once it has ended."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def stop(self) -> int:
        """Have it drained (SIGTERM), and return its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """SIGKILL it, and return when it is gone. What it has started may live on for a moment."""
        self.signal(signal.SIGKILL)
        self.wait()

    def end(self) -> None:
        """Stop it, whatever it does. Safe to call twice, or before ``start``.

        Raises:
            AssertionError: it did not end well, something of it is left, or its log tells of a defect.
        """
        if self._process is None:
            return
        process, self._process = self._process, None
        ran = process.poll() is None
        if ran:
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGINT)  # the second stops running tasks, too
        try:
            code = process.wait(_PATIENCE_S)
        finally:
            process.kill()
            left = self._sweep()
        log = self.log.read_text(errors="replace")
        assert not ran or code == 0, f"exit code {code}\n{log}"
        assert not ran or not left, f"left behind: {left}\n{log}"
        assert " ERROR asyncio: " not in log, log

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            self.end()
        except (AssertionError, subprocess.TimeoutExpired):
            if error is None:  # what went wrong inside says more than what came of it
                raise

    # ------------------------------------------------------------------------------------------ what it is made of

    def processes(self) -> list[int]:
        """Every living process of it: the daemon, the template, the workers, and all that these have started."""
        mark = f"{_MARK}={self._mark}".encode()
        return [pid for pid in all_processes() if mark in _environ_of(pid)]

    def crew(self) -> list[int]:
        """The same, but for spares."""
        return [pid for pid in self.processes() if not self._is_spare(pid)]

    def children(self) -> list[int]:
        """The daemon's own children: the template, the workers, adopted orphans; zombies included, spares not."""
        return [pid for pid in procfs.children(self.pid) if not self._is_spare(pid)]

    def spares(self) -> list[int]:
        """The processes that wait to be workers: none for a moment after one has become one, then one of a template."""
        return [pid for pid in procfs.children(self.pid) if self._is_spare(pid)]

    def _is_spare(self, pid: int) -> bool:
        return _name_of(pid) == "pool-spare" and not set(procfs.states(pid)) <= {"Z", "X"}

    def template(self) -> int:
        """The process id of the template, once there is one."""
        return until(lambda: next((pid for pid in self.children() if _name_of(pid) == "pool-template"), 0))

    def open_files(self) -> int:
        """How many file descriptors the daemon has."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def _sweep(self) -> list[str]:
        """End what is left, and name it."""
        left = [f"{pid} {_name_of(pid)}" for pid in self.processes()]
        until(self._kill_all, "everything that was left is gone")
        return left

    def _kill_all(self) -> bool:
        left = self.processes()
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        return not left


def _environ_of(pid: int) -> list[bytes]:
    """Nothing of zombies, and of processes that are gone or somebody else's."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
