"""Handlers that do what no handler should: the app of the proof ``hostile``.

Each ends its process, or leaves it changed, or never leaves it. ``surroundings`` tells what a well-behaved task finds.
"""

from __future__ import annotations

import asyncio
import atexit
import builtins
import ctypes
import gc
import io
import itertools
import locale
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from poolmgr import Retry, current_task, task

_libc = ctypes.CDLL(None)
_holding_the_gil = ctypes.PyDLL(None)
_PR_SET_PDEATHSIG = 1


# ---------------------------------------------------------------------------------------------- the well-behaved


@task
def noop(number: int) -> int:
    return number


@task
def bystander(seconds: float) -> int:
    """Which attempt this is: 1, where nobody has disturbed it."""
    time.sleep(seconds)
    return current_task().attempt


@task
def surroundings() -> dict[str, Any]:
    """What a task finds in its process. It is the same whoever ran there before."""
    mask = os.umask(0o077)
    os.umask(mask)
    root = os.stat("/")
    return {
        "directory": os.getcwd(),
        "umask": mask,
        "handlers": [_shown(signal.getsignal(number)) for number in sorted(signal.valid_signals())],
        "blocked": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
        "timers": [signal.getitimer(timer) for timer in range(3)],
        "locale": locale.setlocale(locale.LC_ALL),
        "path": sys.path,
        "json": sys.modules.get("json") is not None,
        "environment": {name: value for name, value in os.environ.items() if name != "POOLMGR_WORKER"},
        "streams": [type(sys.stdout).__name__, type(sys.stderr).__name__, sys.stdout.closed, sys.stderr.closed],
        "functions": [_shown(each) for each in (time.time, os.write, len, print, open, isinstance, socket.socket)],
        "timeout": socket.getdefaulttimeout(),
        "recursion": sys.getrecursionlimit(),
        "traced": [sys.gettrace() is not None, sys.getprofile() is not None],
        "collector": gc.isenabled(),
        # Without that of memory, which is counted from what each process had when it was ready.
        "limits": [resource.getrlimit(each) for each in range(16) if each != resource.RLIMIT_DATA],
        "niceness": os.getpriority(os.PRIO_PROCESS, 0),
        "who": [os.getuid(), os.geteuid(), os.getgid(), root.st_dev, root.st_ino],
        "leads its group": os.getpgrp() == os.getpid(),
        "threads": [each.name for each in threading.enumerate() if not each.daemon],
        "loop": asyncio._get_running_loop() is not None,
    }


@task
async def in_a_loop(number: int) -> int:
    await asyncio.sleep(0)
    return number


def _shown(value: Any) -> str:
    return getattr(value, "__qualname__", None) or str(value)


# ---------------------------------------------------------------------------------------------- ends


@task
def leave(code: int) -> None:
    os._exit(code)


@task
def send(number: int, to_group: bool = False) -> str:
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if to_group:
        os.killpg(os.getpgrp(), number)
    else:
        os.kill(os.getpid(), number)
    return "survived"


@task
def stop_again_and_again() -> None:
    while True:
        os.kill(os.getpid(), signal.SIGSTOP)


@task
def segfault() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    ctypes.string_at(0)


@task
def abort() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    os.abort()


@task
def become(*command: str) -> None:
    os.execvp(command[0], command)


# ---------------------------------------------------------------------------------------------- no end


@task
def loop() -> None:
    while True:
        pass


@task
def loop_deafly() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass


@task
def match_for_ever() -> None:
    re.match(r"(a|aa)+$", "a" * 200 + "b")


@task
def sleep_with_the_gil() -> None:
    _holding_the_gil.usleep(600_000_000)


@task
def deadlock() -> None:
    lock = threading.Lock()
    with lock, lock:
        pass


@task
def recurse() -> None:
    recurse()


@task
def recurse_in_c() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    sys.setrecursionlimit(1 << 30)

    def deeper(_: int) -> list[Any]:
        return list(map(deeper, (1,)))

    deeper(1)


@task
def lower_the_recursion_limit(fails: bool) -> str:
    for limit in itertools.count(5):
        try:
            sys.setrecursionlimit(limit)
            break
        except RecursionError:
            continue
    if fails:
        raise ValueError("low")
    return "low"


@task
def allocate_for_ever() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (256 << 20, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    kept = []
    while True:
        kept.append(bytes(16 << 20))


# ---------------------------------------------------------------------------------------------- families


@task
def fork_and_let_die() -> str:
    pid = os.fork()
    if not pid:
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    return "parent"


@task
def fork_and_die() -> None:
    if os.fork():
        os._exit(3)
    time.sleep(1000)


@task
def fork_and_both_return() -> str:
    return "parent" if os.fork() else "child"


@task
def fork_and_both_raise() -> None:
    os.fork()
    raise ValueError("twice")


@task
def leave_a_child(own_session: bool) -> None:
    subprocess.Popen(["sleep", "1000"], start_new_session=own_session)


@task
def leave_a_daemon() -> None:
    """A process whose parent has gone, in a session of its own."""
    subprocess.run(["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &"], check=True)


@task
def daemonise() -> None:
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    time.sleep(1000)


@task
def leave_the_group() -> str:
    """Where a signal to its group does not reach it."""
    child = subprocess.Popen(["sleep", "1000"], process_group=0)
    os.setpgid(0, child.pid)
    return "moved"


@task
def leave_the_group_for_ever() -> None:
    leave_the_group()
    loop()


# ---------------------------------------------------------------------------------------------- files


@task
def close_everything() -> str:
    os.closerange(0, 4096)
    return "closed"


@task
def close_the_standard_files() -> str:
    os.closerange(0, 3)
    return "closed"


@task
def replace_every_file(then_wait: bool) -> str:
    null = os.open(os.devnull, os.O_RDWR)
    for name in os.listdir("/proc/self/fd"):
        os.dup2(null, int(name))
    if then_wait:
        time.sleep(1000)
    return "replaced"


@task
def scribble(then_wait: bool, on: str = "") -> str:
    """Garbage on every file that is open for writing, or on those alone whose name has ``on`` in it."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) > 2 and on in os.readlink(f"/proc/self/fd/{name}"):
                os.write(int(name), b"\xc1 garbage" * 100)
        except OSError:
            continue
    if then_wait:
        time.sleep(1000)
    return "scribbled"


@task
def scribble_on_the_page(value: int, begun_at: float, then: str) -> str:
    with open("/proc/self/maps") as maps:
        line = next(line for line in maps if "poolmgr-page" in line)
    address = int(line.partition("-")[0], 16)
    ctypes.c_uint64.from_address(address).value = value
    ctypes.c_double.from_address(address + 8).value = begun_at
    if then == "die":
        os._exit(3)
    if then == "loop":
        loop()
    return "scribbled"


@task
def print_much(size: int) -> str:
    print("x" * size)
    return "printed"


@task
def write_much(size: int) -> str:
    data = memoryview(b"y" * size)
    while data:
        data = data[os.write(1, data) :]
    return "written"


@task
def chatter() -> None:
    for number in itertools.count():
        print(number)


@task
def read_input() -> str:
    return sys.stdin.read()


@task
def replace_streams(how: str) -> str:
    if how == "close":
        sys.stdout.close()
        sys.stderr.close()
    elif how == "close the buffer":
        print("something")
        sys.stdout.buffer.close()
    elif how == "none":
        sys.stdout = sys.stderr = None
    else:
        sys.stdout = sys.stderr = io.StringIO()
    return how


# ---------------------------------------------------------------------------------------------- what it raises


class Unprintable(Exception):
    """Whatever is asked of it fails."""

    def __str__(self) -> str:
        raise SystemExit("no text")

    __repr__ = __str__

    def __reduce__(self) -> Any:
        raise KeyboardInterrupt


class Endless(Exception):
    def __str__(self) -> str:
        return str(self)


class Liar(type):
    def __getattribute__(cls, name: str) -> Any:
        raise ZeroDivisionError(name)


class Lying(Exception, metaclass=Liar):
    pass


class Nonsense(Retry):
    def __init__(self) -> None:
        self.delay_s = "soon"  # type: ignore[assignment]


class Misnamed(Exception):
    __module__: Any = 7


def _surrogate() -> BaseException:
    kind = type("Half\udc80", (Exception,), {})
    error: BaseException = kind("text \udc80")
    return error


def _circular() -> BaseException:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


def _long_line() -> BaseException:
    kind: type[BaseException] = ValueError
    for number in range(600):
        kind = type(f"Heir{number}", (kind,), {})
    return kind("of many")


ERRORS: dict[str, Callable[[], BaseException]] = {
    "BaseException": lambda: BaseException("base"),
    "SystemExit": lambda: SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "StopIteration": StopIteration,
    "StopAsyncIteration": StopAsyncIteration,
    "CancelledError": asyncio.CancelledError,
    "MemoryError": MemoryError,
    "a group": lambda: BaseExceptionGroup("many", [ValueError(1), KeyboardInterrupt()]),
    "unprintable": Unprintable,
    "endless": Endless,
    "lying": lambda: type.__call__(Lying),
    "nonsense": Nonsense,
    "misnamed": Misnamed,
    "surrogate": _surrogate,
    "circular": _circular,
    "long": lambda: ValueError("x" * 50_000_000),
    "a long line": _long_line,
}


@task
def fail_with(kind: str) -> None:
    raise ERRORS[kind]()


@task
async def fail_with_async(kind: str) -> None:
    raise ERRORS[kind]()


# ---------------------------------------------------------------------------------------------- what it returns


@dataclass
class Unreadable:
    """Where it says that it is from, it is not."""

    value: int = 1


Unreadable.__module__ = "nowhere"


class Odd:
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise SystemExit("no class")


@dataclass
class Explosive:
    value: int = 1

    def __getattribute__(self, name: str) -> Any:
        raise GeneratorExit


def _circle() -> list[Any]:
    circle: list[Any] = []
    circle.append(circle)
    return circle


def _deep() -> list[Any]:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    return deep


def _numbers() -> Iterator[int]:
    yield from range(10)


RESULTS: dict[str, Callable[[], Any]] = {
    "200 MB": lambda: bytes(200 << 20),
    "a lambda": lambda: lambda: None,
    "a generator": _numbers,
    "an object": object,
    "a lock": threading.Lock,
    "a surrogate": lambda: "half \udc80",
    "a circle": _circle,
    "very deep": _deep,
    "unreadable": Unreadable,
    "odd": Odd,
    "explosive": Explosive,
    "an exception": lambda: ValueError("returned"),
    "a coroutine": lambda: asyncio.sleep(0),
}


@task
def return_kind(kind: str) -> Any:
    return RESULTS[kind]()


# ---------------------------------------------------------------------------------------------- what it leaves changed


def _change_handlers() -> None:
    for number in signal.valid_signals():
        try:
            signal.signal(number, signal.SIG_IGN)
        except OSError:
            continue


def _unlink_directory() -> None:
    path = tempfile.mkdtemp()
    os.chdir(path)
    os.rmdir(path)


def _leave_a_loop() -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    asyncio._set_running_loop(loop)


def _trace(*_: Any) -> Any:
    raise SystemExit("traced")


def _broken(*_: Any, **__: Any) -> Any:
    raise SystemExit("patched")


def _thread(daemon: bool) -> None:
    threading.Thread(target=time.sleep, args=(1000,), daemon=daemon).start()


def _patch(module: Any, name: str) -> Callable[[], None]:
    return lambda: setattr(module, name, _broken)


CHANGES: dict[str, Callable[[], object]] = {
    "directory": lambda: os.chdir("/"),
    "unlinked directory": _unlink_directory,
    "umask": lambda: os.umask(0o777),
    "SIGTERM": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "SIGUSR1": lambda: signal.signal(signal.SIGUSR1, signal.SIG_DFL),
    "all handlers": _change_handlers,
    "SIGUSR1 by C": lambda: _libc.signal(signal.SIGUSR1, 1),
    "blocked signals": lambda: signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals()),
    "alarm": lambda: signal.alarm(1),
    "timer with a handler": lambda: (
        signal.signal(signal.SIGALRM, _broken),
        signal.setitimer(signal.ITIMER_REAL, 0.2, 0.01),
    ),
    "CPU timer": lambda: signal.setitimer(signal.ITIMER_PROF, 0.01),
    "locale": lambda: locale.setlocale(locale.LC_ALL, "C"),
    "path": sys.path.clear,
    "no path": lambda: setattr(sys, "path", None),
    "modules": lambda: sys.modules.clear(),
    "no modules": lambda: setattr(sys, "modules", {}),
    "environment": lambda: os.environ.clear(),
    "no environment": lambda: setattr(os, "environ", {}),
    "time.time": _patch(time, "time"),
    "os.write": _patch(os, "write"),
    "print": _patch(builtins, "print"),
    "open": _patch(builtins, "open"),
    "isinstance": _patch(builtins, "isinstance"),
    "len": _patch(builtins, "len"),
    "socket": _patch(socket, "socket"),
    "socket timeout": lambda: socket.setdefaulttimeout(0.001),
    "event loop": _leave_a_loop,
    "collector": gc.disable,
    "trace": lambda: sys.settrace(_trace),
    "profile": lambda: sys.setprofile(_trace),
    "exit handler": lambda: atexit.register(time.sleep, 1000),
    "death signal": lambda: _libc.prctl(_PR_SET_PDEATHSIG, 0),
    "niceness": lambda: os.nice(19),
    "open files": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3)),
    "memory": lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 20, resource.RLIM_INFINITY)),
    "file size": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY)),
    "root": lambda: os.chroot("/proc"),
    "user": lambda: os.setresuid(65534, 65534, 65534),
    "group": lambda: os.setgid(65534),
    "niceness of the group": lambda: os.setpriority(os.PRIO_PGRP, 0, 5),
    "threads": lambda: _thread(False),
    "daemon threads": lambda: _thread(True),
    "excepthook": lambda: setattr(sys, "excepthook", _broken),
}
NEEDS_ROOT = ("root", "user", "group")


@task
def change(what: str, fails: bool = False) -> str:
    CHANGES[what]()
    if fails:
        raise ValueError(what)
    return what


@task
async def close_the_loop() -> str:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0.001)
    return "stopped"
