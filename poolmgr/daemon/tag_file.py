"""By what the next daemon knows the processes of this one, should it be unable to end them itself.

A daemon that is killed leaves that to its template, the warden. Where both are killed, the workers go by themselves;
what their tasks have started, in sessions of its own, does not.
"""

from __future__ import annotations

import logging
import os
from types import TracebackType
from typing import Final

from poolmgr.manager.delegation import pool_cgroup
from poolmgr.worker.warden import kill_pool, tagged

_log = logging.getLogger(__name__)

TAG_FILE: Final = "poolmgr.tag"


class TagFile:
    """Holds this life's tag in the state directory while it is entered. Entering kills what carries the last one's.

    Whoever enters must hold the state directory's lock: nobody else is alive to whom those processes belong.
    """

    def __init__(self, directory: str, tag: str) -> None:
        self._path = os.path.join(directory, TAG_FILE)
        self._tag = tag

    def __enter__(self) -> TagFile:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            last = os.pread(fd, 256, 0).decode("ascii", "replace").strip()
            if last:
                _kill_what_is_left(last)
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{self._tag}\n".encode(), 0)
        finally:
            os.close(fd)
        return self

    def __exit__(self, *exc: type[BaseException] | BaseException | TracebackType | None) -> None:
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass  # somebody removed it, or the whole directory


def _kill_what_is_left(tag: str) -> None:
    left, cgroup = tagged(tag), pool_cgroup(tag)
    if left:
        _log.warning("the last daemon was killed and left %d processes behind: they are killed now", len(left))
    if left or os.path.isdir(cgroup):
        kill_pool(tag, (), (), cgroup)
