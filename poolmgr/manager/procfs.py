"""What /proc tells of a process that says nothing itself."""

from __future__ import annotations

import os

from poolmgr.worker.warden import short_file, stat

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def cpu_ticks(pid: int) -> int:
    """Clock ticks of CPU that all threads of the process have used so far; 0 if it is gone."""
    fields = stat(pid)
    return int(fields[11]) + int(fields[12]) if fields else 0


def states(pid: int) -> str:
    """One letter a thread: R, S, D, T, Z, ...; '' if the process is gone."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return ""
    found = []
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/stat") as file:
                found.append(file.read().rpartition(")")[2].split()[0])
        except OSError:
            continue
    return "".join(found)


def verdict(before_ticks: int, pid: int) -> str:
    """What a silent process does: ``stopped``, ``running``, ``asleep`` (or waiting in the kernel), or ``gone``.

    ``before_ticks`` is its ``cpu_ticks`` of a moment ago: CPU that rises means native code that holds the GIL.
    """
    letters = states(pid)
    if not letters or set(letters) <= {"Z", "X"}:
        return "gone"
    if "T" in letters or "t" in letters:
        return "stopped"
    if "R" in letters or cpu_ticks(pid) > before_ticks:
        return "running"
    return "asleep"


def catches(pid: int, number: int) -> bool:
    """Whether the process has a handler for the signal of that number; False if it is gone. Takes 50 us."""
    try:
        with open(f"/proc/{pid}/status") as file:
            caught = next((line.split()[1] for line in file if line.startswith("SigCgt:")), "0")
    except OSError:
        return False
    return bool(int(caught, 16) >> (number - 1) & 1)


def resident_mb(pid: int) -> float:
    """Resident size in MB; 0.0 if the process is gone."""
    fields = short_file(f"/proc/{pid}/statm").split()
    return int(fields[1]) * PAGE_BYTES / (1 << 20) if fields else 0.0


def children(pid: int) -> list[int]:
    """The children of all threads of a process."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                found.extend(int(each) for each in file.read().split())
    except OSError:
        return found
    return found
