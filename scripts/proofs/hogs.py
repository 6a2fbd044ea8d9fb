"""Handlers that take too much memory, each in its way, for the proofs of what becomes of them."""

from __future__ import annotations

import gc
import importlib.util
import mmap
import os
import resource
import subprocess
import sys
import time
from typing import Any

from poolmgr import task

_MB = 1 << 20
_ALIKE = b"x" * _MB
_GROW = """
import os, sys, time
held = []
try:
    for _ in range(int(sys.argv[1])):
        held.append(bytearray(b"x" * (1 << 20)))
except MemoryError:  # it was faster than it is looked at, and has twice what it may: that is seen later
    pass
time.sleep(1000)
"""

kept: list[Any] = []  # what leaks


@task
def hog_in_a_loop(mb: int) -> int:
    """A megabyte after the other; what it has when more is refused, it keeps."""
    held: list[bytearray] = []
    try:
        held.extend(bytearray(_ALIKE) for _ in range(mb))
    except MemoryError:  # as in _GROW
        time.sleep(1000)
    return len(held)


@task
def hog_at_once(mb: int) -> int:
    """One array: of numpy, where there is one."""
    if importlib.util.find_spec("numpy") is None:
        return len(bytearray(mb * _MB))
    import numpy

    return int(numpy.ones(mb * _MB // 8).nbytes)


@task
def hog_shared(mb: int) -> int:
    """Shared memory: RLIMIT_DATA does not count it."""
    shared = mmap.mmap(-1, mb * _MB)
    for number in range(mb):
        shared[number * _MB : (number + 1) * _MB] = _ALIKE
    return len(shared)


@task
def hog_in_file(mb: int) -> int:
    """A memory file that is mapped: as multiprocessing's shared memory is."""
    file = os.memfd_create("hog")
    os.ftruncate(file, mb * _MB)
    shared = mmap.mmap(file, mb * _MB)
    for number in range(mb):
        shared[number * _MB : (number + 1) * _MB] = _ALIKE
    return len(shared)


@task
def hog_in_children(mb: int, count: int) -> int:
    """Programs that it has started, none of which is over the limit for long."""
    children = [subprocess.Popen([sys.executable, "-c", _GROW, str(mb // count)]) for _ in range(count)]
    return sum(child.wait() for child in children)


@task
def hog_in_orphan(mb: int) -> None:
    """One that has left its session, and whose parent has died."""
    command = [sys.executable, "-c", _GROW, str(mb)]
    started = f"import subprocess; subprocess.Popen({command!r}, start_new_session=True)"
    subprocess.run([sys.executable, "-c", started], check=True)
    time.sleep(1000)


@task
def share_with_children(mb: int, count: int, seconds: float) -> int:
    """Much memory, and forks that share it: nobody has taken it twice."""
    held = bytearray(_ALIKE) * mb
    children = []
    for _ in range(count):
        child = os.fork()
        if not child:
            time.sleep(seconds)
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    return len(held) // _MB


@task
def leak(mb: float) -> int:
    """Keeps so much for ever; the process that does."""
    kept.append(bytearray(b"x" * int(mb * _MB)))
    return os.getpid()


@task
def square(number: int, seconds: float) -> int:
    """The square of a number, after so many seconds."""
    time.sleep(seconds)
    return number * number


@task
def make_garbage(mb: int) -> int:
    """Cycles that nobody refers to, and that no collection has come to yet; the process that did."""
    gc.disable()
    for _ in range(mb):
        held: list[Any] = [bytearray(_ALIKE)]
        held.append(held)
    gc.enable()
    return os.getpid()


@task
def set_own_limit(data_bytes: int) -> int:
    """Raises RLIMIT_DATA, as far as it may; the process that did."""
    resource.setrlimit(resource.RLIMIT_DATA, (data_bytes, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    return os.getpid()


@task
def hog_unmapped(mb: int, in_child: bool = False) -> int:
    """A memory file that is written to, and not mapped: no process's size shows it, only its control group's."""
    file = os.memfd_create("hog")
    if in_child and (child := os.fork()):
        return os.waitpid(child, 0)[1]
    for _ in range(mb):
        os.write(file, _ALIKE)
    size = os.fstat(file).st_size // _MB
    if in_child:
        os._exit(0)
    return size


@task
def crawl(mb: int, seconds: float) -> int:
    """Takes so much, and holds it for so long."""
    held = [bytearray(_ALIKE) for _ in range(mb)]
    time.sleep(seconds)
    return len(held)
