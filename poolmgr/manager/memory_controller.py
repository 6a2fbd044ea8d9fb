"""The kernel's own limit for what is in a worker's control group: ``memory.max``, where there is a memory controller.

It counts what no process's size shows, too: files in /dev/shm, memfds that nobody maps. Nothing that a group had
before a process came into it counts, so it is as relative as all else. ``memory.oom.group`` has the whole group killed,
never a part of it, and ``memory.events`` tells afterwards that it was.

A controller is handed down from group to group, and a group that hands one down may hold no process itself. So the
daemon makes a group for itself, if it is in the one that was handed over to it, and alone there.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Final

from poolmgr.manager import procfs
from poolmgr.manager.delegation import own_cgroup

IN_FORCE: Final = "in force"
_NO_CONTROLLER: Final = "not enforced by the kernel (no memory controller)"
_OWN: Final = "daemon"  # the daemon's group, where it has to leave the one above
_MB: Final = 1 << 20


def enable(path: str) -> str:
    """Have the memory controller in the groups below ``path``, which is there and empty. ``IN_FORCE``, or why not."""
    above = os.path.dirname(path)
    try:
        if "memory" not in _read(above, "cgroup.controllers").split():
            return _NO_CONTROLLER
        try:
            _write(above, "cgroup.subtree_control", "+memory")
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            if not _move_out(above):
                return "not enforced by the kernel (there are other processes in the daemon's control group)"
            _write(above, "cgroup.subtree_control", "+memory")
        _write(path, "cgroup.subtree_control", "+memory")
    except OSError as error:
        return f"not enforced by the kernel ({error.strerror})"
    return IN_FORCE


def without_groups() -> str:
    """Why it is not in force where workers have no control groups."""
    own = own_cgroup()
    try:
        has_controller = own != "" and "memory" in _read(own, "cgroup.controllers").split()
    except OSError:
        has_controller = False
    return "not enforced by the kernel (no control group is delegated)" if has_controller else _NO_CONTROLLER


def _move_out(group: str) -> bool:
    """Move this process and all that it has started to a group of their own. False: ``group`` has others, too."""
    ours = [os.getpid()]
    for pid in ours:
        ours.extend(child for child in procfs.children(pid) if child not in ours)
    if set(map(int, _read(group, "cgroup.procs").split())) - set(ours):
        return False
    own = os.path.join(group, _OWN)
    with suppress(FileExistsError):
        os.mkdir(own)
    for member in _read(group, "cgroup.procs").split():
        with suppress(ProcessLookupError):
            _write(own, "cgroup.procs", member)
    return True


def limit(group: str, limit_mb: int) -> None:
    """What is in ``group`` may take so much. Raises ``OSError``."""
    _write(group, "memory.oom.group", "1")
    with suppress(OSError):  # no swap is accounted here
        _write(group, "memory.swap.max", "0")
    _write(group, "memory.max", str(limit_mb * _MB))


def cap(group: str, limit_mb: int, more: bool) -> None:
    """So much, or so much ``more`` than it has; never less than it has: that would kill it here and now.
    Raises ``OSError``."""
    held = int(_read(group, "memory.current"))
    most = held + limit_mb * _MB if more else max(held, limit_mb * _MB)
    _write(group, "memory.max", str(most))


def oom_killed(group: str) -> bool | None:
    """Whether the kernel has killed something in it for want of memory; None where that cannot be told."""
    try:
        events = dict(line.split() for line in _read(group, "memory.events").splitlines())
    except OSError:
        return None
    return int(events.get("oom_kill", 0)) > 0


def _read(group: str, name: str) -> str:
    with open(os.path.join(group, name)) as file:
        return file.read()


def _write(group: str, name: str, text: str) -> None:
    """In one system call, whose error is the kernel's answer."""
    file = os.open(os.path.join(group, name), os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)
