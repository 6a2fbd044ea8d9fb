"""What the tests of executors have called: importable here and in the workers."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

_status = "not initialized"


def double(number: int) -> int:
    return 2 * number


def add(*numbers: int, **named: int) -> int:
    return sum(numbers) + sum(named.values())


def hold(directory: str, label: str = "") -> str:
    """Say that this has begun, and wait until the file ``go`` is there."""
    Path(directory, f"begun{label}").touch()
    while not Path(directory, "go").exists():
        time.sleep(0.002)
    return label


def leave(path: str) -> None:
    Path(path).touch()


def pid() -> int:
    return os.getpid()


def initialize(status: str) -> None:
    global _status
    _status = status


def status() -> str:
    return _status


def fail_to_initialize() -> None:
    raise ValueError("no such model")


def fail(kind: type[BaseException], *arguments: Any) -> None:
    raise kind(*arguments)


def fail_with_all() -> None:
    """An exception with a cause, which has a context, and with notes."""
    try:
        try:
            raise KeyError("deepest")
        except KeyError:
            raise LookupError("cause")  # noqa: B904 - the context is wanted
    except LookupError as cause:
        error = ValueError("outermost")
        error.add_note("a note")
        raise error from cause


def fail_in_context() -> None:
    try:
        raise KeyError("context")
    except KeyError:
        raise ValueError("outermost")  # noqa: B904 - the context is wanted


def fail_as_group() -> None:
    inner = ExceptionGroup("inner", [ValueError("one")])
    inner.add_note("of the inner")
    raise ExceptionGroup("outer", [inner, KeyError("two")])


def fail_at_two(number: int) -> int:
    if number == 2:
        raise ValueError("two")
    return number


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_over(_: Any) -> None:
    die()


def unpicklable_result() -> Any:
    return threading.Lock()


class NotLoadable:
    """Can be pickled, and not be loaded."""

    def __reduce__(self) -> Any:
        return _refuse, ()


def _refuse() -> None:
    raise RuntimeError("it does not load")


class LoadsOnlyHere:
    """Can be loaded only by the process that it names."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def __reduce__(self) -> Any:
        return _only_in, (self.pid,)


def _only_in(pid: int) -> LoadsOnlyHere:
    if os.getpid() != pid:
        raise RuntimeError("it does not load here")
    return LoadsOnlyHere(pid)


def loads_only_in_the_worker() -> LoadsOnlyHere:
    return LoadsOnlyHere(os.getpid())


class Unpicklable(Exception):
    """Holds what no pickle can hold."""

    def __init__(self) -> None:
        super().__init__("it holds a lock")
        self.lock = threading.Lock()


class Unloadable(Exception):
    """Wants other arguments than it keeps."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")


def fail_with_unpicklable_cause() -> None:
    raise ValueError("outermost") from Unpicklable()
