"""A pid file that cannot be stale: it is locked for as long as its process lives."""

from __future__ import annotations

import fcntl
import os
from types import TracebackType
from typing import Final

from poolmgr.errors import AlreadyRunning, StartFailed

LOOK_AT_MODES: Final = "look at the owner and mode of its directory, and whether that can be written at all"


class PidFile:
    """Holds ``path`` locked, with this process's pid in it, while it is entered; then removes it.

    The kernel drops the lock with the process, so a file that a killed daemon left is simply taken over.

    Args:
        path: of the file; its directory must exist.
        guards: what it stands for, in the message of ``AlreadyRunning``.
    """

    def __init__(self, path: str, *, guards: str) -> None:
        self.path = path
        self._guards = guards
        self._fd: int | None = None

    def __enter__(self) -> PidFile:
        """Take it.

        Raises:
            AlreadyRunning: another process holds it; the message has its pid.
            StartFailed: the file cannot be made.
        """
        while self._fd is None:
            self._fd = self._try()
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)
        return self

    def __exit__(self, *exc: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._fd is not None:
            try:
                os.unlink(self.path)  # before the lock goes: a file that others can lock is never removed
            except FileNotFoundError:
                pass  # somebody removed it, or the whole directory
            os.close(self._fd)
            self._fd = None

    def _try(self) -> int | None:
        """The locked file, or None where its last holder removed it between our opening and locking it."""
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StartFailed(f"{self.path} cannot be made ({error.strerror}): {LOOK_AT_MODES}") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), os.stat(self.path)):
                return fd
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
            os.close(fd)
            who = f"a daemon (pid {holder})" if holder else "a daemon that is just starting"
            raise AlreadyRunning(f"{who} already holds {self._guards}") from None
        except FileNotFoundError:
            pass
        os.close(fd)
        return None
