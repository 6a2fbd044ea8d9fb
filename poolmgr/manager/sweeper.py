"""What tasks have started and left behind: killed when their worker has gone, and reaped.

Whatever a worker has started, however far it has gone away (a session of its own, daemonised), becomes a child of this
process when its parent dies: this is the subreaper. Its environment tells which worker it came from (worker/warden.py).
While that worker lives it stays (a worker in which a task has left a process goes by itself, worker/surroundings.py);
it goes with its worker, whyever that ends. What the app's modules have started goes with their version: after a reload,
once the old template has ended. What has thrown its environment away can not be told, and goes as soon as it is an
orphan; unless control groups tell (cgroups.py): there, all that a worker has started goes with it.

The list of one's own children is one short file; a look costs 50 us. Nobody else reaps them, so their numbers are safe.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from typing import Final

from poolmgr.manager import procfs
from poolmgr.manager.cgroups import Cgroups
from poolmgr.manager.process import WorkerProcess
from poolmgr.manager.templates import Templates
from poolmgr.worker.warden import TAG, WORKER, started_with

INTERVAL_S: Final = 1.0
SOON_S: Final = 0.01  # after a worker's end: its replacement is asked for first


class Sweeper:
    """Looks once a second, and soon after each end of a worker, until nothing is left to be killed.

    Args:
        processes: by slot, the workers that are not to be swept, nor what they have started.
        dying: by pid, those that were given up and have not ended.
        templates: which are not to be swept, nor what the app's modules have started, while that version is in use.
        cgroups: of the workers; None where there are none.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        processes: Mapping[str, WorkerProcess],
        dying: Mapping[int, WorkerProcess],
        templates: Templates,
        cgroups: Cgroups | None,
    ) -> None:
        self._loop = loop
        self._processes = processes
        self._dying = dying
        self._templates = templates
        self._cgroups = cgroups
        # From before an exec, as a shell may have it: no worker has made these.
        self._strangers = frozenset(procfs.children(os.getpid())).difference(templates.pids)
        self._knows_all = os.getpid() != 1  # where it is init, anybody's orphans become its own
        self._soon = False
        self._timer = loop.call_later(INTERVAL_S, self._each_second)

    def stop(self) -> None:
        """Safe to call twice."""
        self._timer.cancel()
        if self._cgroups is not None:
            self._cgroups.close()
            self._cgroups = None

    def worker_came(self, process: WorkerProcess) -> None:
        """A worker is ready. Before that nothing is done that would hold it up."""
        if self._cgroups is not None and process.pid is not None:
            self._cgroups.join(process.label, process.pid, process.pidfd, process.group.worker_memory_limit_mb)

    def worker_gone(self) -> None:
        """A worker has ended: look soon."""
        if not self._soon:
            self._soon = True
            self._loop.call_later(SOON_S, self._look_soon)

    def _each_second(self) -> None:
        self._timer = self._loop.call_later(INTERVAL_S, self._each_second)
        self.sweep()

    def _look_soon(self) -> None:
        self._soon = False
        if self.sweep():
            self.worker_gone()  # their children are orphans now

    def sweep(self) -> int:
        """Kill and reap; how many were killed."""
        workers = self._processes.values()
        known = {process.pid for process in workers}.union(self._dying, self._templates.pids, self._templates.spares)
        labels = {process.label for process in workers}
        if self._cgroups is not None:
            self._cgroups.sweep(labels)
        orphans = [pid for pid in procfs.children(os.getpid()) if pid not in known]
        if not orphans:
            return 0
        living = labels | self._templates.labels
        all_told = all(process.pid is not None for process in workers)
        return sum(self._kill(pid, living, all_told) for pid in orphans)

    def _kill(self, pid: int, living: set[str], all_told: bool) -> bool:
        """Where not ``all_told``, it may be a worker whose fork the template has not told yet."""
        try:
            if all_told and os.waitpid(pid, os.WNOHANG)[0]:
                return False
            if not self._must_go(pid, living, all_told):
                return False
            os.kill(pid, signal.SIGKILL)
        except OSError:  # of another user's (it was set-uid), or not ours yet
            return False
        return True

    def _must_go(self, pid: int, living: set[str], all_told: bool) -> bool:
        if not started_with(pid, TAG):
            return all_told and self._knows_all and pid not in self._strangers
        label = started_with(pid, WORKER)
        return bool(label) and label not in living
