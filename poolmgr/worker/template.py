"""The template: a small process that has the app imported, and is forked into workers. It is also the warden.

It is exec'd, never forked from the daemon, so it holds nothing of the daemon's; and it stays single-threaded, because
only then is a fork sound. A worker is made by two forks: the middle process exits at once, and the daemon, being the
subreaper, becomes the worker's parent.

When the daemon is gone, whatever killed it, the template's socket reads end of file. Then it kills all that this pool
has started: its workers' process groups, and every process that carries the pool's environment tag.

Run as ``python -m poolmgr.worker.template FD``; the first packet on FD tells what to do (manager/template.py).
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import signal
import socket
import sys
import time
from typing import Any

import msgpack

from poolmgr.errors import AppError
from poolmgr.model import to_wire
from poolmgr.wire.messages import (
    APP_FAILED,
    HANDLERS,
    PROTOCOL_VERSION,
    SPAWN_FAILED,
    SPAWNED,
    TEMPLATES,
)
from poolmgr.worker.app import load_app
from poolmgr.worker.built_in import BUILT_IN
from poolmgr.worker.main import Channels, Worker
from poolmgr.worker.output import Output, Writer
from poolmgr.worker.page import DUMP_SIGNAL
from poolmgr.worker.registry import Registry
from poolmgr.worker.warden import LABEL_BYTES, WORKER, kill_pool, stat

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PACKET = 1 << 20
_libc = ctypes.CDLL(None, use_errno=True)
# The C library's own fork, between what C code that forks has to call by Python's API: os.fork would run every hook of
# os.register_at_fork in the middle process, too, which is gone a moment later. PyDLL: the GIL is kept, and inherited.
_fork = ctypes.PyDLL(None).fork
_libc.getenv.restype = ctypes.c_void_p
_before_fork = ctypes.pythonapi.PyOS_BeforeFork
_after_fork_in_parent = ctypes.pythonapi.PyOS_AfterFork_Parent
_after_fork_in_child = ctypes.pythonapi.PyOS_AfterFork_Child


def main(fd: int) -> int:
    """Import the app, then fork workers until the daemon is gone."""
    gc.disable()  # what the imports make is frozen below; a collection before would only dirty pages
    sock = socket.socket(fileno=fd)
    order: dict[str, Any] = msgpack.unpackb(sock.recv(_PACKET))
    _die_with(order["manager"])  # until it listens to its socket: the import may take long, or never return
    _name_process("pool-template")
    try:
        app = load_app(order["app"], order["directory"], order["path"])
        app.handlers.update(BUILT_IN)
        if any(handler.is_async for handler in app.handlers.values()):
            import asyncio  # noqa: F401 - paid once here, and shared by every worker
    except AppError as error:
        sock.send(msgpack.packb([APP_FAILED, str(error)[: _PACKET // 2]], unicode_errors="replace"))
        return 1
    import traceback  # noqa: F401 - so that a failing task need not import anything

    gc.collect()
    _libc.malloc_trim(0)
    gc.freeze()
    handlers = {name: to_wire(handler.options) for name, handler in app.handlers.items()}
    _libc.prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0)
    template = Template(sock, app, order)
    template.tell([HANDLERS, PROTOCOL_VERSION, os.getpid(), handlers])
    return template.serve()


class Template:
    """Forks a worker for each SPAWN."""

    def __init__(self, sock: socket.socket, app: Registry, order: dict[str, Any]) -> None:
        self._sock = sock
        self._app = app
        self._manager: int = order["manager"]
        self._tag: str = order["tag"]
        self._heartbeat_interval_s: float = order["heartbeat_interval_s"]
        self._groups: set[int] = set()
        self._templates: list[int] = []  # of this pool: while code is reloaded there are two
        self._writer = Writer()  # made here, as all that a worker need not make after its fork
        self._outputs = Output(1, self._writer), Output(2, self._writer)
        # A worker inherits the handlers, and has its page put in the place of this descriptor.
        self._stacks = os.dup(2)
        faulthandler.enable(self._stacks)
        faulthandler.register(DUMP_SIGNAL, self._stacks, chain=True)  # chained to the default action: death
        self._label = _libc.getenv(WORKER.encode())

    def serve(self) -> int:
        """Until the daemon is gone."""
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self._sock, 65536, 16, socket.MSG_CMSG_CLOEXEC)
            except ConnectionError:
                data, fds = b"", []
            if not data:
                kill_pool(self._tag, self._groups, self._templates)
                return 0
            message = msgpack.unpackb(data)
            if message[0] == TEMPLATES:
                self._templates = message[1]
                continue
            try:
                self._spawn(message[1], message[2], message[3], Channels(*fds))
            finally:
                for each in fds:
                    os.close(each)

    def tell(self, message: list[Any]) -> None:
        """Send one packet to the daemon. That it is gone is for the next read to find, which has the pool killed."""
        try:
            self._sock.send(msgpack.packb(message))
        except ConnectionError:
            pass

    def _spawn(self, spawn: int, worker: str, incarnation: int, channels: Channels) -> None:
        threads = os.listdir("/proc/self/task")
        if len(threads) > 1:
            named = ", ".join(sorted({_thread_name(each) for each in threads if int(each) != os.getpid()}))
            message = f"the app's import has started threads ({named}), so it cannot be forked"
            advice = "start them in a @worker_startup hook"
            self.tell([SPAWN_FAILED, spawn, "app", f"{message}: {advice}"])
            return
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            pid = self._fork_twice(worker, incarnation, channels)
        except OSError as error:
            self.tell([SPAWN_FAILED, spawn, "unavailable", f"cannot fork: {error}"])
            return
        self._groups.add(pid)
        if len(self._groups) > 1024:
            self._groups = {group for group in self._groups if os.path.exists(f"/proc/{group}")}
        self.tell([SPAWNED, spawn, pid])

    def _fork_twice(self, worker: str, incarnation: int, channels: Channels) -> int:
        """The worker's pid. Its parent is the middle process, and, once that has exited, the daemon."""
        reader, writer = os.pipe()
        _before_fork()
        middle = _fork()
        if middle == 0:
            pid = _fork()
            if pid == 0:
                _after_fork_in_child()
                os.close(reader)
                os.close(writer)
                self._become_worker(worker, incarnation, channels)
            os.write(writer, b"%d" % pid)
            os._exit(0)
        _after_fork_in_parent()
        os.close(writer)
        with os.fdopen(reader, "rb", buffering=0) as pipe:
            if middle < 0:
                raise OSError("the first fork failed")
            os.waitpid(middle, 0)
            pid = int(pipe.read(32))
        if pid < 0:
            raise OSError("the second fork failed")
        return pid

    def _become_worker(self, worker: str, incarnation: int, channels: Channels) -> None:
        """In the new process; never returns."""
        code = 1
        try:
            os.setpgid(0, 0)
            self._sock.close()
            self._wait_for_adoption()
            self._label_process(f"{worker}.{incarnation}")
            _name_process(worker)
            self._redirect(channels)
            gc.enable()
            self._serve_tasks(worker, channels)
            code = 0
        except BrokenPipeError:
            code = 0  # the daemon is gone
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)

    def _redirect(self, channels: Channels) -> None:
        """Output goes to the manager. Standard input is the template's: nothing."""
        for channel, fd in ((channels.stdout, 1), (channels.stderr, 2)):
            os.dup2(channel, fd)
            os.close(channel)
        os.dup2(channels.page, self._stacks, inheritable=False)
        sys.stdout, sys.stderr = self._outputs

    def _label_process(self, label: str) -> None:
        """By its environment everything is known that the worker will start: what is exec'd inherits it, and what is
        only forked has the block that /proc shows in its memory; there, the template has left room for it."""
        os.environ[WORKER] = label
        if self._label:
            ctypes.memmove(self._label, label.encode().ljust(LABEL_BYTES, b"\0"), LABEL_BYTES)

    def _serve_tasks(self, worker: str, channels: Channels) -> None:
        _reseed()
        runner = Worker(worker, channels, self._app.handlers, self._writer)
        runner.begin(self._app.startup_hooks, self._heartbeat_interval_s)
        runner.serve()

    def _wait_for_adoption(self) -> None:
        """Be told to die when the daemon does. Armed before the adoption, the middle process would trigger it."""
        while os.getppid() != self._manager:
            if stat(self._manager)[:1] in ([], ["Z"], ["X"]):  # a zombie adopts nobody
                os._exit(0)
            time.sleep(0.0002)
        _die_with(self._manager)


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent is gone."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def _reseed() -> None:
    """Random sources that a fork would have in common. The ``random`` module sees to itself."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def _name_process(name: str) -> None:
    _libc.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def _thread_name(thread: str) -> str:
    try:
        with open(f"/proc/self/task/{thread}/comm") as file:
            return file.read().strip()
    except OSError:
        return thread


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
