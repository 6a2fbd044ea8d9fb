"""A control group for each worker process, where the daemon may make some (delegation.py).

Whatever a worker starts is in its group, too, and neither a session of its own, nor an empty environment, nor a living
parent elsewhere takes it out. When the worker has ended, one write to the group kills all that is left in it.

To move a process into a group can take milliseconds, in which the kernel lets no process fork. So a thread does that,
once the worker is ready; what it has started by then is moved after it. What has left its parent even before that stays
in the daemon's own group, and the sweeper has other ways to find it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from poolmgr.manager import memory_controller, procfs
from poolmgr.manager.delegation import own_cgroup
from poolmgr.worker.warden import remove_cgroup

_log = logging.getLogger(__name__)


def make_cgroups(loop: asyncio.AbstractEventLoop, path: str) -> Cgroups | None:
    """Those of a pool, in the directory ``path``; None where that is '', or they are of no use."""
    if not path:
        return None
    try:
        return Cgroups(loop, path)
    except OSError as error:
        _log.warning("workers get no control groups of their own: %s", error)
        return None


class Cgroups:
    """The groups of a pool's workers, named by their labels (``worker-3.7``), in the directory ``path``.

    Raises:
        OSError: they can not be made there, or not be killed (Linux before 5.14).
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, path: str) -> None:
        self.path = path
        self._loop = loop
        self._labels: set[str] = set()  # of groups that are there, or are being made
        self._sweeping = False
        os.mkdir(path)
        try:
            os.stat(os.path.join(path, "cgroup.kill"))
        except OSError:
            os.rmdir(path)
            raise
        self.memory = memory_controller.enable(path)  # "in force", or why ``memory.max`` is not
        self._daemons = own_cgroup()
        self._thread = ThreadPoolExecutor(1, "cgroups")  # one: a group is made before it is removed

    def join(self, label: str, pid: int, pidfd: int, limit_mb: int) -> None:
        """Make the group ``label``, in which all may take so much together (0: anything), and move the process ``pid``
        and its descendants there, once. It may have ended."""
        if label in self._labels or pidfd < 0:
            return
        self._labels.add(label)
        self._thread.submit(self._join, label, pid, os.dup(pidfd), limit_mb)

    def _join(self, label: str, pid: int, process: int, limit_mb: int) -> None:
        group = os.path.join(self.path, label)
        try:
            if _has_ended(process):
                return
            os.mkdir(group)
            if limit_mb and self.memory == memory_controller.IN_FORCE:
                memory_controller.limit(group, limit_mb)
            _move(pid, group)
            if _has_ended(process) and pid in _members(group):  # perhaps another process has its number
                _move(pid, self._daemons)
            else:
                _move_descendants(pid, group)
        except (ProcessLookupError, FileNotFoundError):
            pass  # it has ended, or the whole pool has
        except OSError as error:
            _log.warning("%s is not in a control group of its own: %s", label, error)
        finally:
            os.close(process)

    def cap(self, label: str, limit_mb: int, more: bool) -> None:
        """From now on all in the group ``label`` may take so much (0: anything), or so much ``more`` than now."""
        if limit_mb and self.memory == memory_controller.IN_FORCE:
            self._thread.submit(self._cap, os.path.join(self.path, label), limit_mb, more)

    def _cap(self, group: str, limit_mb: int, more: bool) -> None:
        try:
            memory_controller.cap(group, limit_mb, more)
        except FileNotFoundError:  # it has ended
            pass
        except OSError as error:
            _log.warning("the limit of %s cannot be set: %s", group, error)

    def oom_killed(self, label: str) -> bool | None:
        """Whether the kernel has killed the group ``label`` for want of memory; None where that cannot be told."""
        return memory_controller.oom_killed(os.path.join(self.path, label))

    def members(self, label: str) -> list[int]:
        """The processes in the group ``label``; none where it is not made yet."""
        try:
            return _members(os.path.join(self.path, label))
        except OSError:
            return []

    def sweep(self, living: Collection[str]) -> None:
        """Kill what is left in the groups of those that are not ``living``, and remove these. A group that is not empty
        yet goes with the next sweep."""
        ended = self._labels.difference(living)
        if ended and not self._sweeping:
            self._sweeping = True
            removing = self._loop.run_in_executor(self._thread, self._remove, ended)
            removing.add_done_callback(self._swept)

    def _remove(self, labels: set[str]) -> set[str]:
        return {label for label in labels if remove_cgroup(os.path.join(self.path, label))}

    def _swept(self, removing: asyncio.Future[set[str]]) -> None:
        self._sweeping = False
        self._labels -= removing.result()

    def close(self) -> None:
        """Move and remove no more. What is left goes with the pool (``kill_pool``). Safe to call twice."""
        self._thread.shutdown(wait=False)


def _move(pid: int, group: str) -> None:
    with open(os.path.join(group, "cgroup.procs"), "w") as file:
        file.write(str(pid))


def _move_descendants(pid: int, group: str) -> None:
    for child in procfs.children(pid):
        with suppress(ProcessLookupError):
            _move(child, group)
            _move_descendants(child, group)  # of which those that come now are in it


def _members(group: str) -> list[int]:
    with open(os.path.join(group, "cgroup.procs")) as file:
        return [int(line) for line in file]


def _has_ended(process: int) -> bool:
    ended = select.poll()
    ended.register(process, select.POLLIN)
    return bool(ended.poll(0))
