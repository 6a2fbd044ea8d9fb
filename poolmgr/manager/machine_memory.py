"""How short of memory the machine is, or the control group that the daemon lives in: whichever is tighter.

In use is what the kernel could not give to others without taking it from somebody: page cache is not, however full the
memory is of it. Of the machine that is what ``MemAvailable`` leaves; of a control group, its usage less what is cached
of files. A group may have its limit from any of those above it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final, NamedTuple

from poolmgr.manager.clock import now
from poolmgr.manager.shell import Shell

INTERVAL_S: Final = 1.0
RISING_INTERVAL_S: Final = 0.25
_RISES: Final = 1.0  # points since the last time
_NO_LIMIT: Final = 1 << 60  # cgroup v1 says some number beyond this where there is none
_MACHINE: Final = "the machine's memory"


class Measure(NamedTuple):
    """``percent`` of the memory ``of`` somebody is in use; for ``stalled`` percent of the last ten seconds all work
    there stood still for want of memory, 0.0 where the kernel does not tell."""

    percent: float
    stalled: float
    of: str


class MachineMemory:
    """Reads what /proc and the control groups tell.

    Args:
        proc, cgroups: where they are mounted.
    """

    def __init__(
        self, proc: str | os.PathLike[str] = "/proc", cgroups: str | os.PathLike[str] = "/sys/fs/cgroup"
    ) -> None:
        self._proc = os.fspath(proc)
        self._unified = list(_upwards(os.fspath(cgroups), _own(self._proc, "")))
        self._v1 = list(_upwards(os.path.join(cgroups, "memory"), _own(self._proc, "memory")))

    def read(self) -> Measure | None:
        """The tightest of all; None where nothing can be read."""
        measures = [*self._of_machine(), *self._of_groups()]
        return max(measures, key=lambda each: each.percent) if measures else None

    def _of_machine(self) -> Iterator[Measure]:
        found = _numbers(f"{self._proc}/meminfo")
        total, available = found.get("MemTotal:", 0), found.get("MemAvailable:")
        if total and available is not None:
            yield Measure(100.0 * (1.0 - available / total), _stalled(f"{self._proc}/pressure/memory"), _MACHINE)

    def _of_groups(self) -> Iterator[Measure]:
        for group in self._unified:
            limit, usage = _number(f"{group}/memory.max"), _number(f"{group}/memory.current")
            if limit and usage is not None:
                cached = _numbers(f"{group}/memory.stat")
                cache = sum(cached.get(name, 0) for name in ("inactive_file", "active_file", "slab_reclaimable"))
                yield _of_group(usage, cache, limit, _stalled(f"{group}/memory.pressure"))
        for group in self._v1:
            limit, usage = _number(f"{group}/memory.limit_in_bytes"), _number(f"{group}/memory.usage_in_bytes")
            if limit and limit < _NO_LIMIT and usage is not None:
                cached = _numbers(f"{group}/memory.stat")
                cache = sum(cached.get(name, 0) for name in ("total_inactive_file", "total_active_file"))
                yield _of_group(usage, cache, limit, 0.0)


def _of_group(usage: int, cache: int, limit: int, stalled: float) -> Measure:
    percent = 100.0 * max(0, usage - cache) / limit
    return Measure(percent, stalled, f"the {limit >> 20:,} MB of its control group")


def _own(proc: str, controller: str) -> str:
    """The group of this process, as a path in that hierarchy; '' is the one of cgroup v2."""
    for line in _text(f"{proc}/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path
    return "/"


def _upwards(root: str, path: str) -> Iterator[str]:
    """That group, and all above it. In a container the path may be one of outside: then there is only the root."""
    group = path.strip("/")
    while group:
        if ".." not in group.split("/") and os.path.isdir(f"{root}/{group}"):
            yield f"{root}/{group}"
        group = group.rpartition("/")[0]
    yield root


def _text(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except (OSError, ValueError):
        return ""


def _number(path: str) -> int | None:
    """None where it is none, such as ``max``."""
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _numbers(path: str) -> dict[str, int]:
    """The second word of each line by its first."""
    words = (line.split() for line in _text(path).splitlines())
    return {each[0]: int(each[1]) for each in words if len(each) > 1 and each[1].isdecimal()}


def _stalled(path: str) -> float:
    """``full avg10`` of a pressure file. It is only read: a trigger would need a window of two seconds."""
    for line in _text(path).splitlines():
        kind, *averages = line.split()
        if kind == "full":
            return next((float(each[6:]) for each in averages if each.startswith("avg10=")), 0.0)
    return 0.0


class MemoryWatch:
    """Measures once a second, and more often while it rises, for as long as the manager lives."""

    def __init__(self, shell: Shell, memory: MachineMemory) -> None:
        self._shell = shell
        self._memory = memory
        self._last = 100.0
        self._handle = shell.loop.call_later(INTERVAL_S, self._run)

    def stop(self) -> None:
        """Safe to call twice."""
        self._handle.cancel()

    def _run(self) -> None:
        found = self._memory.read()
        wait_s = INTERVAL_S
        if found is not None:
            self._shell.scheduler.pressure.measured(found.percent, found.stalled, now(), found.of)
            self._shell.wake()
            if found.percent > self._last + _RISES:
                wait_s = RISING_INTERVAL_S
            self._last = found.percent
        self._handle = self._shell.loop.call_later(wait_s, self._run)
