"""What a task may leave changed in its process: found after it and put back, or the process is not used again.

Three looks, the dearer the rarer (docs/explanation/what-a-task-can-do.md has the table):

- at once, before any of our own code runs on: recursion limit, trace and profile functions (main.py has that inline);
- after every task: directory, umask, number of threads, standard output, the handlers of SIGUSR1, SIGTERM and SIGALRM.
  That is under a microsecond, which is why it is no more than that;
- everything, after a handler's first run in this process, once tasks have run for ``LOOK_EVERY_S`` since the last such
  look, when the worker has been idle for ``IDLE_MS``, or when the look after every task has found something. So a task
  that ran for so long is always followed by it at once, and it takes less than a hundredth of a worker's time.

What is put back is what can be, without harm to whoever relied on it. What an app's library makes when it is first used
is no change: what is new in ``sys.path``, ``sys.modules`` or the environment stays, and so do daemon threads and the
threads of executors. All functions are bound here at import: a task may replace them in their modules.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from _locale import LC_ALL, setlocale
from _socket import getdefaulttimeout, setdefaulttimeout
from _thread import _count as count_threads
from _thread import get_ident
from collections.abc import Callable, Sequence
from resource import RLIMIT_DATA, RUSAGE_CHILDREN, getrlimit, getrusage, setrlimit
from signal import SIG_SETMASK, SIGKILL, SIGUSR1
from typing import Any

from poolmgr.worker.library import Library
from poolmgr.worker.warden import OWN_VARIABLES, WORKER, started_with, stat

LOOK_EVERY_S = 0.010  # of tasks' run time, not of time: where 20 workers take turns, each would look after every task
IDLE_MS = 100.0

_LIMITS = tuple(each for each in range(16) if each != RLIMIT_DATA)  # which is the manager's affair
_STATUS_BYTES = 8192
_PR_SET_PDEATHSIG = 1  # SIGKILL when the daemon is gone; a task may have called it off

# The C functions: their namesakes in ``signal`` make an enum member of each number, which takes a microsecond.
_signal: Any = sys.modules["_signal"]
_prctl = ctypes.CDLL(None).prctl
_SIGNALS = tuple(sorted(_signal.valid_signals()))
_AT_SIGUSR1 = _SIGNALS.index(SIGUSR1)
_getsignal, _signal_mask = _signal.getsignal, _signal.pthread_sigmask
_umask, _stat, _fstat, _fchdir, _pread = os.umask, os.stat, os.fstat, os.fchdir, os.pread
_putenv, _waitid, _getpgrp, _getppid, _getpriority = os.putenv, os.waitid, os.getpgrp, os.getppid, os.getpriority
_open, _close, _listdir, _getpid = os.open, os.close, os.listdir, os.getpid
_gc_is_enabled, _gc_enable, _gc_disable = gc.isenabled, gc.enable, gc.disable
_ANY_CHILD = os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT


class Surroundings:
    """The process as the app's import or the startup hooks have left it.

    Made where they have. Most of it is true of what is forked from there, too: that then only calls ``settle``, and
    leaves the memory alone that this takes (some 0.5 MB a worker, and half a millisecond of page faults).
    """

    def __init__(self) -> None:
        self._home = _open(".", os.O_PATH | os.O_CLOEXEC)
        self._root_file = _identity(_stat("/"))
        self._umask = _umask(0o077)
        _umask(self._umask)
        self._handlers = [_getsignal(number) for number in _SIGNALS]
        self._terminate, self._alarm = _getsignal(15), _getsignal(14)
        self._blocked = _signal_mask(0, ())
        self._locale = setlocale(LC_ALL, None)
        self._timeout = getdefaulttimeout()
        self._path = list(sys.path)
        self._sys_modules = sys.modules
        self._library = Library()
        own = frozenset(map(os.fsencode, OWN_VARIABLES))
        found = os.environ._data  # type: ignore[attr-defined]
        self._environ = {name: value for name, value in found.items() if name not in own}
        self._os_environ = os.environ
        self._limits = [getrlimit(each) for each in _LIMITS]
        self._nice = _getpriority(os.PRIO_PROCESS, 0)
        self._known_threads = {id(thread): thread for thread in _threads()}
        self._known_children, _ = _children()
        self._who = _who(_status())

    def settle(self, channels: Sequence[int]) -> None:
        """In the worker: what is its own. ``channels`` are file descriptors that must stay what they are."""
        self._interrupt = self._handlers[_AT_SIGUSR1] = _getsignal(10)
        self._stdout, self._stderr = sys.stdout, sys.stderr
        self._gc = _gc_is_enabled()
        self._group = _getpgrp()
        self._channels = [(fd, _identity(_fstat(fd))) for fd in channels]
        self._own = {name: os.environ[name] for name in OWN_VARIABLES if name in os.environ}
        self._name = self._own.get(WORKER, "")
        self._threads = count_threads() or 1  # the heart: it may not have begun yet
        self._spent = getrusage(RUSAGE_CHILDREN)  # by children that have ended

    # ------------------------------------------------------------------------------------------ after every task

    def tidy(self) -> bool:
        """After every task: put back directory and umask. Whether the rest of what is cheap to see is as it was."""
        _fchdir(self._home)
        _umask(self._umask)
        return (
            count_threads() == self._threads
            and sys.stdout is self._stdout
            and sys.stderr is self._stderr
            and _getsignal(10) is self._interrupt  # by their numbers: an enum member costs a call
            and _getsignal(15) is self._terminate
            and _getsignal(14) is self._alarm
        )

    # ------------------------------------------------------------------------------------------ everything

    def look(self) -> str:
        """Put back what can be; what cannot, in words, or '' where the process is as it was."""
        try:
            self._put_back()
            left = "; ".join(filter(None, (find() for find in self._findings())))
        except BaseException as error:  # a task has replaced something that is called here, or closed our files
            left = f"its process cannot be looked at ({type(error).__name__})"
        self._threads = count_threads()
        return left

    def _put_back(self) -> None:
        sys.stdout, sys.stderr = self._stdout, self._stderr
        _fchdir(self._home)
        _umask(self._umask)
        self._put_back_signals()
        self._put_back_imports()
        if _gc_is_enabled() != self._gc:
            (_gc_enable if self._gc else _gc_disable)()
        if getdefaulttimeout() != self._timeout:
            setdefaulttimeout(self._timeout)
        if setlocale(LC_ALL, None) != self._locale:
            setlocale(LC_ALL, self._locale)
        for each, limit in zip(_LIMITS, self._limits, strict=True):
            if getrlimit(each) != limit:
                setrlimit(each, limit)
        loops = sys.modules.get("_asyncio")
        if loops is not None:
            loops._set_running_loop(None)
        _prctl(_PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)

    def _put_back_signals(self) -> None:
        for timer in range(3):
            if _signal.getitimer(timer) != (0.0, 0.0):
                _signal.setitimer(timer, 0.0)
        for number, handler in zip(_SIGNALS, self._handlers, strict=True):
            if _getsignal(number) is not handler and handler is not None:
                _signal.signal(number, handler)
        if _signal_mask(0, ()) != self._blocked:
            _signal_mask(SIG_SETMASK, self._blocked)

    def _put_back_imports(self) -> None:
        """What was there comes back; what is new stays."""
        if type(sys.path) is not list or not _begins_like(self._path, sys.path):
            new = [each for each in sys.path if each not in self._path] if type(sys.path) is list else []
            sys.path = [*self._path, *new]
        sys.modules = self._sys_modules
        if self._library.modules.changed():
            self._library.modules.put_back()
        os.environ = self._os_environ  # noqa: B003 - the object, which a task may have replaced
        found = os.environ._data  # type: ignore[attr-defined]
        if not self._environ.items() <= found.items():
            for name, value in self._environ.items():
                _putenv(name, value)
            found.update(self._environ)
        for name, value in self._own.items():  # what is started from here is known by them
            if os.environ.get(name) != value:
                os.environ[name] = value

    # ------------------------------------------------------------------------------------------ what stays changed

    def _findings(self) -> tuple[Callable[[], str], ...]:
        return self._patched, self._left_threads, self._left_children, self._moved, self._closed

    def _patched(self) -> str:
        for module, functions in self._library.functions:
            if name := functions.changed():
                return f"{module}.{name} was replaced"
        return ""

    def _left_threads(self) -> str:
        left = [thread.name for thread in _threads() if id(thread) not in self._known_threads]
        return f"threads were left: {', '.join(left)} (daemon threads may stay)" if left else ""

    def _left_children(self) -> str:
        living, ended = _children()
        left = (living | self._orphans(ended)) - self._known_children
        return f"processes were left: {', '.join(map(str, sorted(left)))}" if left else ""

    def _orphans(self, ended: bool) -> set[int]:
        """What has come from here and has lost its parent, so that it is the daemon's child now. Looked for only where
        this process has had children end, waited for or not: an orphan's parent was one of them."""
        spent = getrusage(RUSAGE_CHILDREN)
        if (spent == self._spent and not ended) or not self._name:
            return set()
        self._spent = spent
        others = _children_of(_getppid()) - {_getpid()}
        return {pid for pid in others if started_with(pid, WORKER) == self._name}

    def _moved(self) -> str:
        if _identity(_stat("/")) != self._root_file:
            return "its root directory was changed"
        status = _status()
        if _who(status) != self._who:
            return "its user, group or privileges were changed"
        if _getpgrp() != self._group:
            return "it has left its process group"
        if _getpriority(os.PRIO_PROCESS, 0) != self._nice:
            return "its niceness was changed"
        # A handler that C code has set is not seen by Python's functions: the kernel knows.
        if not int(_field(status, b"\nSigCgt:"), 16) >> (SIGUSR1 - 1) & 1:
            return "its signal handlers were changed"
        return ""

    def _closed(self) -> str:
        if any(_identity(_fstat(fd)) != file for fd, file in self._channels):
            return "files that it needs were replaced"
        if self._stdout.closed or self._stderr.closed:
            return "its output was closed"
        return ""


def _status() -> bytes:
    """What /proc shows of this process."""
    file = _open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _pread(file, _STATUS_BYTES, 0)
    finally:
        _close(file)


def _field(status: bytes, name: bytes) -> bytes:
    start = status.index(name) + len(name)
    return status[start : status.index(b"\n", start)]


def _who(status: bytes) -> list[bytes]:
    """User, groups and privileges: only a task can have changed them, and as a rule only root can change them back."""
    return [_field(status, name) for name in (b"\nUid:", b"\nGid:", b"\nGroups:", b"\nCapEff:", b"\nNoNewPrivs:")]


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _begins_like(before: list[Any], now: list[Any]) -> bool:
    """Whether all of ``before`` is in ``now``, in its order."""
    left = iter(now)
    return before == now or all(each in left for each in before)


def _threads() -> list[Any]:
    """The threads that Python would wait for at its end: neither daemon threads nor those of an executor."""
    threading = sys.modules.get("threading")
    if threading is None:
        return []
    executors = sys.modules.get("concurrent.futures.thread")
    spared = executors._threads_queues if executors is not None else ()
    main = get_ident()  # threading may have come only now, and the main thread with it
    found = [each for each in list(threading._active.values()) if not each.daemon and each not in spared]
    return [each for each in found if each.ident != main]


def _children() -> tuple[set[int], bool]:
    """The living child processes, but for the one that multiprocessing makes for itself; and whether there are others,
    that have ended and were not waited for."""
    try:
        _waitid(*_ANY_CHILD)
    except ChildProcessError:  # there are none
        return set(), False
    found = _children_of("self")
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    if tracker is not None:
        found.discard(tracker._resource_tracker._pid)
    living = {pid for pid in found if stat(pid)[:1] not in (["Z"], [])}
    return living, len(living) < len(found)


def _children_of(pid: int | str) -> set[int]:
    found: set[int] = set()
    for thread in _listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/children") as file:
            found.update(map(int, file.read().split()))
    return found
