"""What the manager asks of the operating system for itself."""

from __future__ import annotations

import ctypes

_PR_SET_CHILD_SUBREAPER = 36
_M_MMAP_THRESHOLD = -3  # <malloc.h>
_LARGE_BYTES = 128 * 1024  # what malloc begins with


def become_subreaper() -> None:
    """Orphans of this process's descendants become its own children. A fork does not inherit this.

    Raises:
        OSError: the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def keep_large_blocks_apart() -> None:
    """Blocks of 128 KB and more stay outside of the heap. malloc would raise that limit, up to 32 MB, each time that
    one is freed; they then lie between small ones that live longer, and the heap becomes one of holes: 5 MB an hour
    under mixed load, 1.5 times what is in use in the end. What is so
    large on a hot path is in files, or read into a buffer that stays."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not every C library has it
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def give_back_memory() -> None:
    """What this process has freed goes back to the system. malloc keeps most of it: after some minutes of mixed load
    four times what is in use. Takes some ms; other threads go on."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # not every C library has it
    if trim is not None:
        trim(0)
