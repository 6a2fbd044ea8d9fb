"""One life of the daemon: the composition root. Signals come in here."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import uvloop

from poolmgr.config import Settings
from poolmgr.config.locations import DATABASE
from poolmgr.daemon.loop import on_defect
from poolmgr.daemon.memory import settle_memory
from poolmgr.daemon.notify import Notifier
from poolmgr.daemon.service import Service
from poolmgr.daemon.started import Started
from poolmgr.errors import PoolError, StartFailed
from poolmgr.manager.launch import Launched
from poolmgr.manager.manager import Manager
from poolmgr.server.listener import Listener
from poolmgr.store.sqlite import SqliteStore

_log = logging.getLogger(__name__)


def live(
    settings: Settings,
    reread: Callable[[], Settings],
    directory: str,
    address: str | socket.socket,
    notifier: Notifier,
    launched: Launched,
    order: dict[str, Any],
    ready: Callable[[Started], None],
) -> None:
    """Serve on ``address``, a path or a socket that listens, until stopped, with the workers of the template
    ``launched``, which was told ``order``."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_Life(settings, reread, directory, address, notifier, launched, order).live(ready))


class _Life:
    """From the first to the last turn of the loop. Signals are taken between two turns, never within one."""

    def __init__(
        self,
        settings: Settings,
        reread: Callable[[], Settings],
        directory: str,
        address: str | socket.socket,
        notifier: Notifier,
        launched: Launched,
        order: dict[str, Any],
    ) -> None:
        self._settings = settings
        self._reloads: set[asyncio.Task[None]] = set()  # that SIGHUP has asked for
        self._launched = launched
        self._order = order
        self._address = address
        self._service = Service(notifier)
        self._reread = reread
        self._store = SqliteStore(
            os.path.join(directory, DATABASE),
            synchronous=settings.synchronous,
            results_limit_bytes=(settings.results_limit_mb << 20) or None,
        )
        self._starting: asyncio.Task[None] | None = None
        self._stops = 0

    async def live(self, ready: Callable[[Started], None]) -> None:
        """Come up, serve, go down. Safe to fail at any point: what came up goes down again."""
        asyncio.get_running_loop().set_exception_handler(on_defect)
        try:
            epoch = self._store.open()
            self._manager = Manager(self._settings, self._store, epoch, self._launched, self._order, self._reread)
            self._manager.reloads.watcher = self._service
            self._listener = Listener(self._manager, self._settings)
            self._starting = asyncio.create_task(self._start())
            self._take_signals()
            try:
                await self._starting
                self._announce(ready)
                await self._manager.stopped()
            finally:
                self._service.stopping()
                self._listener.close()
                self._manager.stop_now()
                await self._manager.stopped()
                await self._listener.hang_up()
                self._service.close()
        except asyncio.CancelledError:
            raise StartFailed("it was stopped before its workers were ready") from None
        finally:
            self._store.close()

    async def _start(self) -> None:
        await self._manager.start()
        self._listener.start(self._address)
        settle_memory()

    def _announce(self, ready: Callable[[Started], None]) -> None:
        started = Started(os.getpid(), self._manager.epoch, self._settings.pool_size, self._listener.path)
        _log.info("%d workers ready, epoch %d, socket %s", started.workers, started.epoch, started.socket)
        self._service.ready(self._manager)
        ready(started)

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._on_stop)
        loop.add_signal_handler(signal.SIGINT, self._on_stop)
        loop.add_signal_handler(signal.SIGHUP, self._on_reload)

    def _on_reload(self) -> None:
        """Whoever sends SIGHUP hears nothing of it; what comes of it is in the log, and in the events."""
        if self._starting is not None and not self._starting.done():
            _log.warning("SIGHUP ignored: the daemon is still starting, with the code as it is")
            return
        task = asyncio.get_running_loop().create_task(self._reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload(self) -> None:
        with suppress(PoolError):
            await self._manager.reloads.reload()

    def _on_stop(self) -> None:
        """The first signal drains, the second ends what still runs. While it starts, the first ends that."""
        self._stops += 1
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
        elif self._stops == 1:
            _log.info("stopping: running tasks may finish, queued durable ones stay")
            self._manager.drain()
            self._service.stopping()
        else:
            _log.warning("stopping now: running tasks are ended")
            self._manager.stop_now()
