"""What the proofs of memory pressure run."""

from __future__ import annotations

import os
import time

from poolmgr import task

_MB = 1 << 20


@task(timeout_s=None)
def read_files(directory: str, megabytes: int) -> int:
    """Writes files of so much in all, and reads them; how many bytes were read."""
    block, read = os.urandom(_MB), 0
    for number in range(megabytes // 64):
        with open(f"{directory}/{number}", "wb") as file:
            file.writelines(block for _ in range(64))
            file.flush()
            os.fsync(file.fileno())  # what is not written yet is not cache, but waits for the disk
        with open(f"{directory}/{number}", "rb") as file:
            while data := file.read(_MB):
                read += len(data)
    return read


@task(timeout_s=None)
def hold(file: str, label: str) -> str:
    """Waits until the file is there."""
    while not os.path.exists(file):
        time.sleep(0.01)
    return label


@task
def echo(value: int) -> int:
    """What it was given."""
    return value
