"""The template: a small process that has the app imported, and is forked into workers. It is also the warden.

It is exec'd, never forked from the daemon, so it holds nothing of the daemon's; and it stays single-threaded, because
only then is a fork sound. A worker is made by two forks: the middle process exits at once, and the daemon, being the
subreaper, becomes the worker's parent. Workers that are asked for together have one middle process: where fresh ones
are wanted as fast as they can be made, that halves what one costs. One that is asked for by itself is there already
(spare.py).

When the daemon is gone, whatever killed it, the template's socket reads end of file. Then it kills all that this pool
has started: its workers' process groups, and every process that carries the pool's environment tag.

Workers that are not to be forked are exec'd: ``start_method = "spawn"`` and ``worker_command``. Where all are, the
template imports nothing: a child of it does, tells what the app has, and exits.

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
from array import array
from collections.abc import Callable, Sequence
from functools import partial
from select import POLLIN, poll
from typing import Any

import msgpack

from poolmgr.errors import AppError
from poolmgr.wire.messages import (
    APP_FAILED,
    HANDLERS,
    PROTOCOL_VERSION,
    SPARE,
    SPAWN_FAILED,
    SPAWNED,
    TEMPLATES,
)
from poolmgr.worker.app import load_app
from poolmgr.worker.built_in import BUILT_IN
from poolmgr.worker.channels import Channels, Wanted
from poolmgr.worker.ending import run_and_exit
from poolmgr.worker.execute import become, environ_of
from poolmgr.worker.main import Worker
from poolmgr.worker.output import Output, Writer
from poolmgr.worker.page import DUMP_SIGNAL
from poolmgr.worker.registry import Registry, registry
from poolmgr.worker.spare import Spare
from poolmgr.worker.surroundings import Surroundings
from poolmgr.worker.warden import LABEL_BYTES, WORKER, kill_pool, stat

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PACKET = 1 << 20
_TOGETHER = 8  # workers of one middle process: the first of them waits for the last fork
_PIDS_BYTES = 32 * _TOGETHER
_DESCRIPTORS = socket.CMSG_SPACE(4 * len(Channels._fields))
_ADOPTION_MS = 100
# After the last request, before a spare is made: at a start, or where fresh workers follow each other, none is.
_QUIET_MS = 3
_TOLD = 70  # how a child exits that has told why the app cannot be imported
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
    _take_all_signals()
    sock = socket.socket(fileno=fd)
    order: dict[str, Any] = msgpack.unpackb(sock.recv(_PACKET))
    _die_with(order["manager"])  # until it listens to its socket: the import may take long, or never return
    name_process("pool-template")
    if order["forks"] or not order["app"]:
        imported = _import_app(sock, order)
        import traceback  # noqa: F401 - so that a failing task need not import anything
    else:
        imported = _import_in_child(sock, order)
    if not imported:
        return 1
    _libc.prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0)
    template = Template(sock, registry, order)
    gc.collect()
    _libc.malloc_trim(0)
    gc.freeze()
    return template.serve()


def _take_all_signals() -> None:
    """Whoever has started the daemon may have had some ignored or blocked: nohup does so, and a shell with what it
    starts in the background. No task is to find them so."""
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:  # those are ignored by Python itself
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _import_app(sock: socket.socket, order: dict[str, Any]) -> bool:
    """Import the app, and tell the daemon what it has, or why it cannot be imported. Whether it could."""
    try:
        app = load_app(order["app"], order["directory"], order["path"])
        app.handlers.update(BUILT_IN)
        if any(handler.is_async for handler in app.handlers.values()):
            import asyncio  # noqa: F401 - paid once here, and shared by every worker
    except AppError as error:
        _tell(sock, [APP_FAILED, str(error)[: _PACKET // 2]])
        return False
    handlers = {name: handler.declared for name, handler in app.handlers.items()}
    _tell(sock, [HANDLERS, PROTOCOL_VERSION, os.getpid(), handlers])
    return True


def _import_in_child(sock: socket.socket, order: dict[str, Any]) -> bool:
    """The same, in a process that is gone afterwards: this one stays as empty as it is."""
    template = os.getpid()
    child = os.fork()
    if child == 0:
        _die_with(template)
        run_and_exit(lambda: 0 if _import_app(sock, order) else _TOLD)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, _TOLD):
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        _tell(sock, [APP_FAILED, f"the process ended while it imported the app: {how}"])
    return code == 0


def _tell(sock: socket.socket, message: list[Any]) -> None:
    """Send one packet to the daemon. That it is gone is for the next read to find, which has the pool killed."""
    try:
        sock.send(msgpack.packb(message, unicode_errors="replace"))
    except ConnectionError:
        pass


class Template:
    """Makes a worker for each SPAWN."""

    def __init__(self, sock: socket.socket, app: Registry, order: dict[str, Any]) -> None:
        self._sock = sock
        self._app = app
        self._manager: int = order["manager"]
        self._tag: str = order["tag"]
        self._cgroup: str = order["cgroup"]
        self._heartbeat_interval_s: float = order["heartbeat_interval_s"]
        self._forks: bool = order["forks"]
        self._spare: Spare | None = None
        self._groups: set[int] = set()
        self._templates: list[int] = []  # of this pool: while code is reloaded there are two
        self._surroundings = Surroundings()
        self._writer = Writer()  # made here, as all that a worker need not make after its fork
        self._outputs = Output(1, self._writer), Output(2, self._writer)
        self._worker = Worker(app.handlers, self._writer)
        # A worker inherits the handlers, and has its page put in the place of this descriptor.
        self._stacks = os.dup(2)
        faulthandler.enable(self._stacks)
        faulthandler.register(DUMP_SIGNAL, self._stacks, chain=True)  # chained to the default action: death
        self._label = _libc.getenv(WORKER.encode())

    def serve(self) -> int:
        """Until the daemon is gone."""
        asked = poll()
        asked.register(self._sock, POLLIN)
        while True:
            # Not before the first worker: until it asks for that, the daemon may not be who adopts orphans.
            if self._forks and self._spare is None and self._groups and not asked.poll(_QUIET_MS):
                self._make_spare()
            together: list[Wanted] = []
            try:
                alive = self._receive(together, 0)
                while alive and together and len(together) < _TOGETHER:
                    alive = self._receive(together, socket.MSG_DONTWAIT)
            except BlockingIOError:  # that is all for now
                alive = True
            if together and alive:
                self._spawn(together)
            for wanted in together:
                for fd in wanted.channels:
                    os.close(fd)
            if not alive:
                kill_pool(self._tag, self._groups, self._templates, self._cgroup)
                return 0

    def _receive(self, together: list[Wanted], flags: int) -> bool:
        """Take one packet in. False: the daemon is gone.

        Raises:
            BlockingIOError: there is none, and ``flags`` say not to wait.
        """
        try:
            data, fds, _, _ = self._sock.recvmsg(65536, _DESCRIPTORS, flags | socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:
            return False
        if not data:
            return False
        message = msgpack.unpackb(data)
        if message[0] == TEMPLATES:
            self._templates = message[1]
        else:
            _, spawn, worker, incarnation, group, command = message
            together.append(Wanted(spawn, worker, incarnation, group, command, Channels(*array("i", fds[0][2]))))
        return True

    def _spawn(self, together: list[Wanted]) -> None:
        threads = os.listdir("/proc/self/task")
        if len(threads) > 1 and any(wanted.command is None for wanted in together):
            named = ", ".join(sorted({_thread_name(each) for each in threads if int(each) != os.getpid()}))
            for wanted in together:
                _tell(self._sock, [SPAWN_FAILED, wanted.spawn, "threads", named])
            return
        pids = []
        if self._spare is not None and together[0].command is None:
            spare, self._spare = self._spare, None
            if spare.become(together[0]):
                pids.append(spare.pid)
        pids += self._fork_twice(
            "pool-worker", [partial(self._begin, wanted, together) for wanted in together[len(pids) :]]
        )
        for wanted, pid in zip(together, pids, strict=True):
            if pid < 0:
                _tell(self._sock, [SPAWN_FAILED, wanted.spawn, "unavailable", "cannot fork: the system refuses"])
                continue
            _tell(self._sock, [SPAWNED, wanted.spawn, pid])

    def _make_spare(self) -> None:
        """See that there is one, if that can be: it is a matter of speed alone."""
        try:
            if len(os.listdir("/proc/self/task")) > 1:
                return
            spare = Spare()
        except OSError:
            return
        [pid] = self._fork_twice("pool-spare", [partial(self._stand_by, spare)])
        if pid < 0:
            spare.disown()
            return
        spare.forked(pid)
        self._spare = spare
        _tell(self._sock, [SPARE, pid])

    def _fork_twice(self, name: str, lives: Sequence[Callable[[], int]]) -> list[int]:
        """The pids of processes of that name which live so, -1 where one could not be made. Their parent is the middle
        process, and, once that has exited, the daemon."""
        if not lives:
            return []
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            reader, writer = os.pipe()
        except OSError:
            return [-1] * len(lives)
        _before_fork()
        middle = _fork()
        if middle == 0:
            name_process(name)
            for live in lives:
                pid = _fork()
                if pid == 0:
                    _after_fork_in_child()
                    os.setpgid(0, 0)
                    for fd in (reader, writer):
                        os.close(fd)
                    self._sock.close()
                    run_and_exit(live)
                os.write(writer, b"%d " % pid)
            os._exit(0)
        _after_fork_in_parent()
        os.close(writer)
        with os.fdopen(reader, "rb", buffering=0) as pipe:
            if middle > 0:
                os.waitpid(middle, 0)
            pids = [int(pid) for pid in (pipe.read(_PIDS_BYTES) or b"").split()]
        self._groups.update(pid for pid in pids if pid > 0)
        if len(self._groups) > 1024:
            self._groups = {group for group in self._groups if os.path.exists(f"/proc/{group}")}
        return pids + [-1] * (len(lives) - len(pids))

    def _stand_by(self, spare: Spare) -> int:
        """In the process of a spare: until it is known which worker this is, or the template is gone."""
        self._wait_for_adoption()
        wanted = spare.wait()
        return self._become_worker(wanted) if wanted is not None else 0

    def _begin(self, wanted: Wanted, together: Sequence[Wanted]) -> int:
        """In the process that was forked for a worker. What the others' are is not its own: a pipe that it held, too,
        would not come to its end with the one whose it is."""
        for other in together:
            if other is not wanted:
                for fd in other.channels:
                    os.close(fd)
        if self._spare is not None:
            self._spare.disown()
        return self._become_worker(wanted)

    def _become_worker(self, wanted: Wanted) -> int:
        worker, channels = wanted.worker, wanted.channels
        self._label_process(f"{worker}.{wanted.incarnation}")
        environ = environ_of(worker, wanted.incarnation, wanted.group, self._heartbeat_interval_s)
        for name, value in environ.items():
            os.environ[name] = value  # update would touch three times the memory
        name_process(worker)
        if wanted.command is not None:
            self._wait_for_adoption()
            become(wanted.command, channels)
        self._redirect(channels)
        gc.enable()
        self._serve_tasks(worker, channels)
        return 0

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
        self._wait_for_adoption()
        runner = self._worker
        runner.live(worker, channels, self._heartbeat_interval_s)
        runner.begin(self._app.startup_hooks, self._surroundings)
        runner.serve()

    def _wait_for_adoption(self) -> None:
        """Be told to die when the daemon does. Armed before the adoption, the middle process would trigger it."""
        while (parent := os.getppid()) != self._manager:
            if stat(self._manager)[:1] in ([], ["Z"], ["X"]):  # a zombie adopts nobody
                os._exit(0)
            try:
                middle = os.pidfd_open(parent)
            except ProcessLookupError:  # it has gone meanwhile
                continue
            ended = poll()
            ended.register(middle, POLLIN)
            ended.poll(_ADOPTION_MS)
            os.close(middle)
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


def name_process(name: str) -> None:
    """Have this process shown under that name (its first 15 bytes)."""
    _libc.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def _thread_name(thread: str) -> str:
    try:
        with open(f"/proc/self/task/{thread}/comm") as file:
            return file.read().strip()
    except OSError:
        return thread


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
