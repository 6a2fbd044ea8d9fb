"""One life of the daemon: the composition root. Signals come in here, an exit code goes out."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import stat
from collections.abc import Callable
from typing import NamedTuple

import uvloop

from poolmgr.config import Settings, listen_socket, state_dir
from poolmgr.config.locations import answers
from poolmgr.daemon.notify import Notifier
from poolmgr.daemon.pid_file import PidFile
from poolmgr.errors import AlreadyRunning, ConfigError, StartFailed
from poolmgr.manager.manager import Manager
from poolmgr.server.listener import Listener
from poolmgr.store.sqlite import SqliteStore

_log = logging.getLogger(__name__)

PID_FILE = "poolmgr.pid"
DATABASE = "poolmgr.db"


class Started(NamedTuple):
    """A daemon whose workers are all ready."""

    pid: int
    epoch: int
    workers: int
    socket: str


def run(settings: Settings, *, ready: Callable[[Started], None]) -> int:
    """Be the daemon until it is stopped; the exit code is 0. ``ready`` is called once all workers are ready.

    Expects logging to be set up, and the process to be the one that stays (already detached, if it is to be).

    Raises:
        AlreadyRunning: another daemon holds the state directory or the socket.
        ConfigError: the settings do not fit this machine (directories, groups, paths).
        AppError: the app cannot be imported; the message holds the traceback.
        StartFailed, StoreUnavailable: it did not come up, for the reason in the message.
    """
    notifier = Notifier.from_environ(os.environ)
    directory, path = state_dir(settings), listen_socket(settings)
    # With the second lock, daemons of different state directories cannot both find one socket stale.
    with (
        PidFile(os.path.join(directory, PID_FILE), guards=f"the state directory {directory}"),
        PidFile(path + ".pid", guards=f"the socket {path}"),
    ):
        remove_stale_socket(path)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_Life(settings, directory, path, notifier).live(ready))
        finally:
            remove_stale_socket(path)
    _log.info("stopped")
    return 0


def remove_stale_socket(path: str) -> None:
    """Remove the socket ``path`` that a daemon left behind, if there is one.

    Raises:
        AlreadyRunning: somebody answers on it.
        ConfigError: it is something else than a socket.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"{path} is in the way: it is not a socket")
    if answers(path):
        raise AlreadyRunning(f"a daemon already answers on {path}")
    os.unlink(path)


class _Life:
    """From the first to the last turn of the loop. Signals are taken between two turns, never within one."""

    def __init__(self, settings: Settings, directory: str, path: str, notifier: Notifier) -> None:
        self._settings = settings
        self._path = path
        self._notifier = notifier
        self._store = SqliteStore(os.path.join(directory, DATABASE), synchronous=settings.synchronous)
        self._starting: asyncio.Task[None] | None = None
        self._stops = 0

    async def live(self, ready: Callable[[Started], None]) -> None:
        """Come up, serve, go down. Safe to fail at any point: what came up goes down again."""
        try:
            self._manager = Manager(self._settings, self._store, self._store.open())
            self._listener = Listener(self._manager, self._settings)
            self._starting = asyncio.create_task(self._start())
            self._take_signals()
            try:
                await self._starting
                self._announce(ready)
                await self._manager.stopped()
            finally:
                self._notifier.say("STOPPING=1")
                self._listener.close()
                self._manager.stop_now()
                await self._manager.stopped()
        except asyncio.CancelledError:
            raise StartFailed("it was stopped before its workers were ready") from None
        finally:
            self._store.close()

    async def _start(self) -> None:
        await self._manager.start()
        await self._listener.start(self._path)

    def _announce(self, ready: Callable[[Started], None]) -> None:
        started = Started(os.getpid(), self._manager.epoch, self._settings.pool_size, self._path)
        _log.info("%d workers ready, epoch %d, socket %s", started.workers, started.epoch, started.socket)
        self._notifier.say("READY=1", f"STATUS={started.workers} workers ready")
        ready(started)

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._on_stop)
        loop.add_signal_handler(signal.SIGINT, self._on_stop)
        loop.add_signal_handler(signal.SIGHUP, _log.warning, "SIGHUP ignored: this version cannot reload")

    def _on_stop(self) -> None:
        """The first signal drains, the second ends what still runs. While it starts, the first ends that."""
        self._stops += 1
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
        elif self._stops == 1:
            _log.info("stopping: running tasks may finish, queued durable ones stay")
            self._notifier.say("STOPPING=1", "STATUS=draining")
            self._manager.drain()
        else:
            _log.warning("stopping now: running tasks are ended")
            self._manager.stop_now()
