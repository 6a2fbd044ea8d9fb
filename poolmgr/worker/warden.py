"""Killing all that a pool has started, once its daemon is gone.

A process belongs to the pool if it is in the process group of one of its workers (and in the pool's own session:
group numbers are used again), or if it carries the pool's tag in its environment, as every descendant does that has
not thrown its environment away; or if it is in one of the pool's control groups, where it has some
(manager/cgroups.py).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection

TAG = "POOLMGR_POOL"  # the environment variable that marks every process of a pool
WORKER = "POOLMGR_WORKER"  # ... and all of a worker's: "worker-3.7" is the seventh process in that slot
GROUP = "POOLMGR_GROUP"  # the worker's group
PROTOCOL = "POOLMGR_PROTOCOL"  # the version that the manager speaks
HEARTBEAT = "POOLMGR_HEARTBEAT_S"  # how often the worker says that it lives
FILES = "POOLMGR_FILES"  # 1: the manager takes payloads in files
OWN_VARIABLES = (WORKER, GROUP, PROTOCOL, HEARTBEAT, FILES)  # that a worker has on top of the pool's
LABEL_BYTES = 32  # room for that in the template's environment, where it is ``template_label``

_SHORT = 4096  # bytes
_ROUNDS_S = 2.0


def template_label(number: int) -> str:
    """What is in the place of a worker's label in a template, and in all that the app's modules start: it tells which
    version of the app has started it."""
    return f"template.{number}".ljust(LABEL_BYTES, ".")


def kill_pool(tag: str, groups: Collection[int], spared: Collection[int] = (), cgroup: str = "") -> None:
    """SIGKILL everything of the pool but the caller, until nothing of it is left (2 s at most).

    ``groups`` are process groups, and ``cgroup`` is the directory of the control groups, '' for none. ``spared`` are
    other templates: each has groups of its own to kill, and then ends by itself.
    """
    session = os.getsid(0)
    kept = {os.getpid(), *spared}
    until = time.monotonic() + _ROUNDS_S
    while time.monotonic() < until:
        victims = [pid for pid in processes() if pid not in kept and _belongs(pid, tag, groups, session)]
        removed = not cgroup or remove_cgroup(cgroup)
        if removed and not victims:
            return
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        time.sleep(0.005)


def remove_cgroup(group: str) -> bool:
    """SIGKILL all that is in a control group and below it, and remove it. Whether it is gone: not as long as what was
    killed has not ended."""
    try:
        with open(os.path.join(group, "cgroup.kill"), "w") as file:
            file.write("1")
        for directory, _, _ in os.walk(group, topdown=False):
            os.rmdir(directory)
    except FileNotFoundError:
        pass
    except OSError:
        return False
    return True


def tagged(tag: str) -> list[int]:
    """The living processes whose environment carries ``TAG=tag``."""
    return [pid for pid in processes() if has_tag(pid, tag) and _alive(pid)]


def processes() -> list[int]:
    """Every process id that /proc shows."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def has_tag(pid: int, tag: str) -> bool:
    """Whether the process was started with the pool's tag in its environment."""
    return started_with(pid, TAG) == tag


def started_with(pid: int, variable: str) -> str:
    """The value of a variable in the environment that the process was started with; '' if it has none, or is gone."""
    name = f"{variable}=".encode()
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            found = [each for each in file.read().split(b"\0") if each.startswith(name)]
    except OSError:
        return ""
    return os.fsdecode(found[0][len(name) :]) if found else ""


def stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third (state) on; [] if the process is gone."""
    return short_file(f"/proc/{pid}/stat").rpartition(")")[2].split()


def short_file(path: str) -> str:
    """What a file of /proc says, where that is short; '' if it is not there. Half of what ``open`` would take: the
    daemon reads two for each worker and second, one after the other."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(descriptor, _SHORT).decode(errors="replace")
    except OSError:  # it has just gone
        return ""
    finally:
        os.close(descriptor)


def _alive(pid: int) -> bool:
    fields = stat(pid)
    return bool(fields) and fields[0] not in "ZX"


def _belongs(pid: int, tag: str, groups: Collection[int], session: int) -> bool:
    fields = stat(pid)
    if not fields or fields[0] in "ZX":
        return False
    in_group = int(fields[2]) in groups and int(fields[3]) == session
    return in_group or has_tag(pid, tag)
