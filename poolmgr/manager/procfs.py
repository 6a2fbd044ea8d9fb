"""What /proc tells of a process that says nothing itself."""

from __future__ import annotations

import os
from typing import NamedTuple

from poolmgr.worker.warden import short_file, stat

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PAGE_MB = PAGE_BYTES / (1 << 20)


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


class Memory(NamedTuple):
    """What statm says of a process, in MB; nothing but zeros if it is gone.

    Attributes:
        resident_mb: all that is in memory.
        own_mb: of that, what is anonymous.
        mapped_mb: the rest: mapped files, and shared memory.
        data_bytes: the address space that RLIMIT_DATA counts (and the stack).
    """

    resident_mb: float = 0.0
    own_mb: float = 0.0
    mapped_mb: float = 0.0
    data_bytes: int = 0


def memory(pid: int) -> Memory:
    """Takes 11 us."""
    fields = short_file(f"/proc/{pid}/statm").split()
    if not fields:
        return Memory()
    resident, mapped, data = int(fields[1]), int(fields[2]), int(fields[5])
    return Memory(resident * _PAGE_MB, (resident - mapped) * _PAGE_MB, mapped * _PAGE_MB, data * PAGE_BYTES)


def shared_memory_mb(pid: int) -> float:
    """What it has mapped of shared memory: memfds, /dev/shm, shared anonymous maps. 0.0 if it is gone. 25 us."""
    return _sum_mb(short_file(f"/proc/{pid}/status"), ("RssShmem:",))


def peak_mb(pid: int) -> float:
    """The largest resident size that it ever had; 0.0 if it is gone."""
    return _sum_mb(short_file(f"/proc/{pid}/status"), ("VmHWM:",))


def share_mb(pid: int) -> float | None:
    """Anonymous, swapped and shared memory of a process, divided by how many have each page. None if the kernel does
    not say. 7 ms a GB."""
    text = short_file(f"/proc/{pid}/smaps_rollup")
    if "Pss_Anon:" not in text:  # Linux before 5.4, or not ours
        return None
    return _sum_mb(text, ("Pss_Anon:", "Pss_Shmem:", "SwapPss:")) - _sum_mb(text, ("LazyFree:",))


def _sum_mb(text: str, names: tuple[str, ...]) -> float:
    """Of lines such as ``RssShmem:  12 kB``."""
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(names)) / 1024


def oom_kills() -> int:
    """How many processes the kernel has killed for want of memory since it runs; 0 where it does not say."""
    try:
        with open("/proc/vmstat") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("oom_kill ")), 0)
    except OSError:
        return 0


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
