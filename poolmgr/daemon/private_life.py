"""One life of a private daemon: the composition root of daemon/private.py, as life.py is of the usual daemon."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from typing import Any

from poolmgr.config import Settings
from poolmgr.daemon.loop import on_defect
from poolmgr.daemon.memory import settle_memory
from poolmgr.daemon.passing_on import PassingOn
from poolmgr.manager.launch import Launched
from poolmgr.manager.manager import Manager
from poolmgr.parcels.stream import Stream
from poolmgr.server.connection import Connection
from poolmgr.server.options import OptionCache
from poolmgr.server.peer import peer_of
from poolmgr.store.memory import MemoryStore
from poolmgr.wire.framing import read_buffer

_HANG_UP_S = 10.0  # for the program to read what it is owed


class PrivateLife:
    """From the first to the last turn of the loop.

    Args:
        sock: the connection to the program.
        program: a pidfd of it.
        launched, order: the template that is coming up, and what it was told.
    """

    def __init__(
        self, settings: Settings, sock: socket.socket, program: int, launched: Launched, order: dict[str, Any]
    ) -> None:
        self._settings = settings
        self._sock = sock
        self._program = program
        self._launched = launched
        self._order = order
        self._starting: asyncio.Task[None] | None = None
        self._unwanted = False

    async def live(self) -> None:
        """Come up, serve, go down.

        Raises:
            AppError, StartFailed, ConfigError: it does not come up.
        """
        logging.basicConfig(level=logging.CRITICAL)  # of all that a log would tell, the program's user sees defects
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(on_defect)
        store = MemoryStore()
        output = PassingOn()
        self._manager = Manager(
            self._settings, store, store.open(), self._launched, self._order, lambda: self._settings
        )
        self._manager.shell.printed = output.line
        self._manager.shell.declares = False  # the app's nightly job is no business of each program that uses the app
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._end)
        loop.add_reader(self._program, self._program_ended)
        connection: Connection | None = None
        try:
            self._starting = asyncio.create_task(self._manager.start())
            await self._starting
            connection = self._serve()
            await self._manager.stopped()
        except asyncio.CancelledError:
            if not self._unwanted:
                raise
        finally:
            self._manager.stop_now()
            await self._manager.stopped()
            if connection is not None:
                await asyncio.wait([connection.hang_up()], timeout=_HANG_UP_S)
            output.close()
            store.close()

    def _serve(self) -> Connection:
        """Begin to read what the program has sent meanwhile."""
        settle_memory()
        manager, options = self._manager, OptionCache(self._manager.shell.handlers)
        manager.reloads.listeners.append(options.forget)
        connection = _OnlyConnection(manager, options, lambda _: peer_of(self._sock, None), set())
        Stream(asyncio.get_running_loop(), self._sock, connection, read_buffer())
        return connection

    def _program_ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._program)
        self._end()

    def _end(self) -> None:
        """Nobody needs it any more. What runs is killed."""
        self._unwanted = True
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
        else:
            self._manager.stop_now()


class _OnlyConnection(Connection):
    """With the program. It is what the daemon lives for."""

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._manager.stop_now()
