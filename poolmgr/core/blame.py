"""Whose failure the end of a worker process is."""

from __future__ import annotations

from typing import Final

from poolmgr.core.failure import Failure
from poolmgr.core.slot import Slot
from poolmgr.post_mortem import PostMortem

# Where RLIMIT_DATA is: the manager sets it at that many times the limit. A process that dies close to it has been
# refused memory, whatever it made of that: C++ aborts, C crashes.
REFUSED_AT: Final = 2.0
_CLOSE: Final = 0.9


def blame(slot: Slot, fence: int, how: str, found: PostMortem | None) -> Failure | None:
    """The failure of the task that the worker had begun when it ended, or None if it is not the task's."""
    if slot.doomed is None:
        return _died(slot, how, found)
    why, for_fence = slot.doomed
    if why == "out_of_memory":  # whatever it had begun: an earlier task may have ended when it was seen
        return _over(slot, "was killed")
    if why == "broken":
        return Failure("worker_died", "its worker wrote what the protocol does not know, and was killed")
    if for_fence != fence:
        return None
    if why == "timeout":
        return Failure("timeout", "it ran longer than its timeout_s, and its worker was killed")
    if why == "cancelled":
        return Failure("cancelled", "it was cancelled, and its worker was killed")
    if why == "hung":
        return Failure("worker_died", "its worker hung (no heartbeat, no CPU) and was killed")
    return None


def _died(slot: Slot, how: str, found: PostMortem | None) -> Failure:
    """It ended by itself, or somebody else has ended it."""
    limit_mb = slot.memory_limit_mb
    if found is not None and found.oom_killed:
        had = f"its processes had {max(found.peak_growth_mb, slot.memory_peak_mb):.0f} MB"
        limit = f", and its limit is {limit_mb} MB" if limit_mb else ""
        return Failure("out_of_memory", f"its worker was killed by the kernel, for want of memory: {had}{limit}")
    if found is None or not limit_mb or found.how == "exit code 0":
        return Failure("worker_died", f"the worker process died: {how}")
    if max(found.peak_growth_mb, slot.memory_peak_mb) >= _CLOSE * REFUSED_AT * limit_mb:
        return _over(slot, f"died of it: {how}", found)
    return Failure("worker_died", f"the worker process died: {how}")


def _over(slot: Slot, what: str, found: PostMortem | None = None) -> Failure:
    grown_mb = found.peak_growth_mb if found is not None else 0.0
    used = f"{max(slot.memory_peak_mb, grown_mb):.0f} MB"
    limit = f", its limit is {slot.memory_limit_mb} MB" if slot.memory_limit_mb else ""
    return Failure("out_of_memory", f"its worker took {used}{limit}, and {what}")
