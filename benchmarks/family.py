"""The processes that one process has started, whatever became of them: found by /proc, measured, and ended by pid.

Needs nothing but the standard library, since it runs in the environment of every peer.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PATIENCE_S = 10.0
_LOOK_S = 0.005


def adopt_orphans() -> None:
    """Be the parent of all descendants whose own parent dies, so that none gets away: also those that detach."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def go_on_after_the_parent() -> None:
    """Be continued, if this process stands still, when its parent ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)


def _prctl(what: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(what, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def stand_still(pid: int) -> None:
    """Stop a process and all that it has started, until ``go_on``; returns when none of them moves any more.

    Raises:
        RuntimeError: some do not stop.
    """
    give_up_at = time.monotonic() + _PATIENCE_S
    while moving := [each for each in (pid, *descendants(pid)) if _state(each) not in "TZX"]:
        if time.monotonic() > give_up_at:
            raise RuntimeError(f"these cannot be stopped: {moving}")
        for each in moving:  # one may just have been started
            _signal(each, signal.SIGSTOP)
        time.sleep(_LOOK_S / 5)


def go_on(pid: int) -> None:
    """Continue them."""
    for each in (*descendants(pid), pid):
        _signal(each, signal.SIGCONT)


def descendants(pid: int) -> list[int]:
    """The children of a process, theirs, and so on; zombies included."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split():
                found += [int(child), *descendants(int(child))]
    except OSError:
        pass  # it is gone
    return found


def pss_mb(pids: Iterable[int], *, files: bool = True) -> float:
    """What the processes take together, in MiB: a page that several share counts once in all. The dead take nothing.

    Without ``files``, pages of mapped files do not count: others who map the same come and go, and so do the shares.
    """
    kinds = ("Pss:",) if files else ("Pss_Anon:", "Pss_Shmem:")
    found = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        found += sum(int(line.split()[1]) for line in lines if line.startswith(kinds))
    return found / 1024


def end_all(spare: Iterable[int] = ()) -> None:
    """Kill every descendant of this process, but for the children in ``spare`` and theirs, and reap them.

    Raises:
        RuntimeError: some live on.
    """
    give_up_at = time.monotonic() + _PATIENCE_S
    spared = set(spare)
    for each in tuple(spared):
        spared |= set(descendants(each))
    while left := [pid for pid in descendants(os.getpid()) if pid not in spared]:
        if time.monotonic() > give_up_at:
            raise RuntimeError(f"these cannot be killed: {left}")
        for pid in left:
            _end(pid)
        time.sleep(_LOOK_S)


def _state(pid: int) -> str:
    """The letter that /proc has for it; X: it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def _end(pid: int) -> None:
    _signal(pid, signal.SIGKILL)
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass  # it is gone, or somebody else's to reap


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # it is gone
