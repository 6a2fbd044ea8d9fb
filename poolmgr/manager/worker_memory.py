"""What one worker has taken since it was ready, and the kernel's own limit for it.

Taken is what is nobody else's: anonymous memory (resident less shared, in statm), and mapped shared memory (RssShmem);
files that it reads or maps are the page cache's. Its descendants count with it. That is an estimate, and errs upwards:
what a fork shares with its parent counts twice, and memory that was freed lazily counts on. Where it matters the kernel
is asked for a division (``weigh``), which walks all page tables.

RLIMIT_DATA bounds private memory between two looks. It counts by address space, so it is relative to what the process
has when it is ready: a fork of a large template would else start beyond it.
"""

from __future__ import annotations

import resource
from collections.abc import Iterable
from typing import Final

from poolmgr.core.blame import REFUSED_AT
from poolmgr.manager import procfs

LONGEST_S: Final = 0.1  # between two looks at a worker that is busy
SHORTEST_S: Final = 0.01  # ... at one that will pass its limit very soon
_MB: Final = 1 << 20
_MAPPED_MB: Final = 4.0  # so much more that is mapped may be shared memory; below that, the dearer look is not worth it
_KIN_MAPPED_MB: Final = 32.0  # a program and its libraries are less
_DISCOUNT_S: Final = 1.0  # so long a division by the kernel is believed: copies are made meanwhile


class WorkerMemory:
    """Of the process ``pid``, which is ready, and of its descendants (``kin``).

    Attributes:
        next_at: when it is to be looked at again, at the latest.
        executed: how many tasks it had run when it was looked at last.
        resident_mb: its size when it was ready.
        refused: why RLIMIT_DATA cannot be set; '' where it can.
    """

    def __init__(self, pid: int, limit_mb: int, kin: Iterable[int]) -> None:
        self.next_at = 0.0
        self.executed = 0
        self.refused = ""
        self._pid = pid
        self._group_limit_mb = limit_mb
        self._limit_mb = limit_mb  # in force
        at_ready = procfs.memory(pid)
        self.resident_mb = at_ready.resident_mb
        self._mapped_mb = at_ready.mapped_mb
        self._shared_mb = procfs.shared_memory_mb(pid)  # as it was last looked at
        self._ready_mb = self._base_mb = self._taken_mb(kin)
        self._discount_mb, self._discount_until = 0.0, 0.0
        self._used_mb, self._used_at = 0.0, 0.0
        self._data = self._data_at_ready = at_ready.data_bytes
        try:
            self._own_limits = resource.prlimit(pid, resource.RLIMIT_DATA)
        except OSError as error:
            self._own_limits = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            self.refused = str(error.strerror)
        self.keep_limit()

    # ------------------------------------------------------------------------------------------ what is taken

    def _taken_mb(self, kin: Iterable[int]) -> float:
        found = procfs.memory(self._pid)
        if abs(found.mapped_mb - self._mapped_mb) > _MAPPED_MB:
            self._mapped_mb = found.mapped_mb
            self._shared_mb = procfs.shared_memory_mb(self._pid)
        taken_mb = found.own_mb + self._shared_mb
        for pid in kin:
            each = procfs.memory(pid)
            taken_mb += each.own_mb
            if each.mapped_mb > _KIN_MAPPED_MB:
                taken_mb += procfs.shared_memory_mb(pid)
        return taken_mb

    def used_mb(self, kin: Iterable[int], at: float) -> float:
        """An estimate; ``next_at`` is set by how fast that grows."""
        if at > self._discount_until:
            self._discount_mb = 0.0
        used_mb = max(0.0, self._taken_mb(kin) - self._base_mb - self._discount_mb)
        grown_mb, took_s = used_mb - self._used_mb, at - self._used_at
        self._used_mb, self._used_at = used_mb, at
        wait_s = LONGEST_S
        if self._limit_mb and grown_mb > 0 and 0 < took_s <= 2 * LONGEST_S:
            wait_s = (self._limit_mb - used_mb) / (grown_mb / took_s) / 2
        self.next_at = at + min(max(wait_s, SHORTEST_S), LONGEST_S)
        return used_mb

    def weigh(self, kin: Iterable[int]) -> float | None:
        """What all of them have, as the kernel divides it among those who share it; None if it does not say. Takes
        7 ms a GB: for another thread."""
        found = [procfs.share_mb(pid) for pid in (self._pid, *kin)]
        return None if found[0] is None else sum(each for each in found if each is not None)

    def weighed(self, share_mb: float | None, at: float) -> float:
        """The last estimate, or what the kernel makes of it, if that is less."""
        used_mb = self._used_mb
        if share_mb is None:
            return used_mb
        # A fork's part in what it shares with the template is small, and in its favour is not counted.
        certain_mb = max(0.0, share_mb - (self._base_mb - self._ready_mb))
        if certain_mb < used_mb:
            self._discount_mb += used_mb - certain_mb
            self._discount_until = at + _DISCOUNT_S
            self._used_mb = certain_mb
        return min(used_mb, certain_mb)

    # ------------------------------------------------------------------------------------------ the limit

    def cap(self, limit_mb: int | None, kin: Iterable[int]) -> None:
        """A task with a limit of its own begins: from here on counts what it takes. None: it has ended."""
        self._discount_mb = 0.0
        self._base_mb = self._ready_mb if limit_mb is None else self._taken_mb(kin)
        self._data = self._data_at_ready if limit_mb is None else procfs.memory(self._pid).data_bytes
        self._limit_mb = self._group_limit_mb if limit_mb is None else limit_mb
        self._used_mb, self._used_at = 0.0, 0.0
        self.keep_limit()

    def keep_limit(self) -> None:
        """Set RLIMIT_DATA to what it is to be, unless it is that: a task may have changed it."""
        if self.refused:
            return
        soft, hard = self._own_limits
        if self._limit_mb:
            wanted = self._data + int(REFUSED_AT * self._limit_mb * _MB)
            soft = wanted if soft == resource.RLIM_INFINITY else min(soft, wanted)
        try:
            if resource.prlimit(self._pid, resource.RLIMIT_DATA) != (soft, hard):
                resource.prlimit(self._pid, resource.RLIMIT_DATA, (soft, hard))
        except ProcessLookupError:  # it has just gone
            pass
        except OSError as error:
            self.refused = str(error.strerror)
