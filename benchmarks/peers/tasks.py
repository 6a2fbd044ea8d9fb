"""What the workers of every peer run. Plain functions, importable by their names, that import nothing heavy."""

from __future__ import annotations

import os
import time
from typing import Any

_LOOK_S = 0.002
_PATIENCE_S = 60.0


def echo(value: Any) -> Any:
    """What it was given: the no-op."""
    return value


def nap(seconds: float) -> list[int]:
    """The process that slept for so long, and its parent."""
    time.sleep(seconds)
    return [os.getpid(), os.getppid()]


def stay(began: str) -> bool:
    """Notes its process in the file ``began`` and stays until it is killed. Tried again, it returns at once."""
    if os.path.exists(began):
        return True
    with open(began + ".new", "w") as file:
        file.write(f"{os.getpid()} {os.getppid()}")
    os.rename(began + ".new", began)
    time.sleep(_PATIENCE_S)
    return False


def wait(until: str) -> None:
    """Keeps a worker busy until the file is there."""
    give_up_at = time.monotonic() + _PATIENCE_S
    while not os.path.exists(until) and time.monotonic() < give_up_at:
        time.sleep(20 * _LOOK_S)


ALL = (echo, nap, stay, wait)
