"""What the manager asks of the operating system for itself."""

from __future__ import annotations

import ctypes

_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Orphans of this process's descendants become its own children. A fork does not inherit this.

    Raises:
        OSError: the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def give_back_memory() -> None:
    """What this process has freed goes back to the system. malloc keeps most of it: after some minutes of mixed load
    four times what is in use. Takes some ms; other threads go on."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # not every C library has it
    if trim is not None:
        trim(0)
