"""The disk that a proof's files are on: which, how fast it syncs, and how much is on it."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

_SYNCS = 300
_MEMORY = frozenset({"tmpfs", "ramfs"})


def real_disk() -> Path | None:
    """A directory for temporary files that is on a disk: TMPDIR's, else /var/tmp; None where both are in memory."""
    for path in (Path(tempfile.gettempdir()), Path("/var/tmp")):
        if path.is_dir() and os.access(path, os.W_OK) and _mount(path)[2] not in _MEMORY:
            return path
    return None


def file_system(path: Path) -> str:
    """The file system that ``path`` is on, in words."""
    device, point, kind = _mount(path)
    return f"{kind} ({device} at {point})"


def _mount(path: Path) -> tuple[str, str, str]:
    """Its device, mount point and type."""
    resolved = path.resolve()
    mounts = [line.split()[:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    device, point, kind = max(
        (each for each in mounts if resolved.is_relative_to(each[1])), key=lambda each: len(each[1])
    )
    return device, point, kind


def fdatasync_us(directory: Path) -> float:
    """The median time that fdatasync takes there after 4 KiB have been appended to a file, in microseconds."""
    taken = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(_SYNCS):
            os.write(file.fileno(), bytes(4096))
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1e6


def size_mb(directory: Path, pattern: str = "**/*") -> float:
    """What the files there take, in MB. Those that go away meanwhile do not count."""
    found = 0
    for path in directory.glob(pattern):
        try:
            if path.is_file():
                found += path.stat().st_size
        except FileNotFoundError:
            pass
    return found / 1e6
