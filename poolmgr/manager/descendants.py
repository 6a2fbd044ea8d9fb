"""What workers have started, and what that has started: it counts with them.

Ten times a second is often, and most workers never start anything. So nothing is looked for before the kernel has given
out a process id since the last time, on the whole machine: /proc/loadavg ends with the latest. Nor is it looked for the
first descendant of a worker more than four times a second: on a busy machine processes are started all the time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Final

from poolmgr.manager import procfs
from poolmgr.manager.cgroups import Cgroups
from poolmgr.manager.clock import now
from poolmgr.manager.process import WorkerProcess
from poolmgr.manager.templates import Templates
from poolmgr.worker.warden import WORKER, short_file, started_with

_FIRST_S: Final = 0.25  # between two looks for the first descendant of a worker


class Descendants:
    """Finds those of each worker: by its control group, where it has one; else as children of children, and, where
    their parents have died, by the worker's label in their environment (they are this process's children then)."""

    def __init__(self, processes: Mapping[str, WorkerProcess], templates: Templates, cgroups: Cgroups | None) -> None:
        self._processes = processes
        self._templates = templates
        self._cgroups = cgroups
        self._last_pid = ""
        self._outdated = 0  # so often all that was found is still to be forgotten
        self._next_at = 0.0  # not before then
        self._found: dict[str, list[int]] = {}  # by label
        self._orphans: dict[str, list[int]] | None = None  # by label

    def look(self) -> None:
        """Forget what was found, if a process was started since. That one has its id a moment before it is seen among
        its parent's children: so what is found now is forgotten once more."""
        last_pid = short_file("/proc/loadavg").rpartition(" ")[2].strip()
        if last_pid != self._last_pid or last_pid in ("", "0"):
            self._last_pid = last_pid
            self._outdated = 2
        if not self._outdated:
            return
        self._orphans = None
        if (at := now()) >= self._next_at:
            self._next_at = at + _FIRST_S
            self._outdated -= 1
            self._found.clear()
        else:
            self._found = {label: pids for label, pids in self._found.items() if not pids}

    def of(self, process: WorkerProcess) -> list[int]:
        """As they were at the last ``look``; some may have ended."""
        found = self._found.get(process.label)
        if found is None:
            found = self._found[process.label] = self._search(process)
        return found

    def _search(self, process: WorkerProcess) -> list[int]:
        if process.pid is None:
            return []
        members = self._cgroups.members(process.label) if self._cgroups is not None else []
        if members:
            return [pid for pid in members if pid != process.pid]
        return _below([process.pid, *self._orphans_of(process.label)])[1:]

    def _orphans_of(self, label: str) -> list[int]:
        if self._orphans is None:
            known = {each.pid for each in self._processes.values()}.union(self._templates.pids)
            self._orphans = {}
            for pid in procfs.children(os.getpid()):
                if pid not in known:
                    self._orphans.setdefault(started_with(pid, WORKER), []).append(pid)
        return self._orphans.get(label, [])


def _below(pids: Iterable[int]) -> list[int]:
    """These, and all that descends from them."""
    found = list(dict.fromkeys(pids))
    for pid in found:
        found.extend(child for child in procfs.children(pid) if child not in found)
    return found
