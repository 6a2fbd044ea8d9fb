"""Reloading the code: the new template first, then the workers.

    the settings are read anew            broken: refused
    a second template imports the app     broken: refused, with its traceback
    one worker of the new code on trial   \\  core/rollout.py
    the others, a batch at a time         /   broken: refused, and rolled back
    the new tasks and their options are in force

One reload runs at a time. Whoever asks meanwhile shares the next one, which begins after that: its code is at least as
new as the request.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from poolmgr.config import KINDS, RELOADED, Settings
from poolmgr.core.effects import Reloaded
from poolmgr.errors import PoolError, ReloadFailed, ShuttingDown
from poolmgr.manager.clock import now
from poolmgr.manager.handlers import all_handlers, declared_schedules
from poolmgr.manager.shell import Shell
from poolmgr.manager.template import Template
from poolmgr.model import TaskOptions
from poolmgr.schedule import Timing

_log = logging.getLogger(__name__)

IMPORT_PATIENCE_S = 300.0  # for an import that never returns

Answer = dict[str, Any]


class Watcher(Protocol):
    """Who is told of each reload: first that it begins, then how it ended."""

    def reload_began(self) -> None:
        """A reload begins."""
        ...

    def reload_ended(self, refusal: str) -> None:
        """It has ended; empty, or why the old code goes on."""
        ...


class Reloads:
    """One reload after the other.

    Args:
        read_settings: reads them anew, from where they came at the start. Raises ``ConfigError``.

    Attributes:
        watcher: of the daemon around, if it has one.
        listeners: called when the handlers and their options are others.
    """

    def __init__(self, shell: Shell, read_settings: Callable[[], Settings]) -> None:
        self._shell = shell
        self._read_settings = read_settings
        self.watcher: Watcher | None = None
        self.listeners: list[Callable[[], None]] = []
        self._running: asyncio.Task[Answer] | None = None
        self._next: asyncio.Task[Answer] | None = None
        self._stopping: asyncio.Future[None] = shell.loop.create_future()
        self._rolled: asyncio.Future[Reloaded] | None = None
        self._generation = 0  # that is being rolled out
        self._handlers: dict[str, TaskOptions] = {}  # of the new code
        self._schedules: dict[str, tuple[Timing, bytes]] = {}  # that it declares
        self._settings = shell.settings

    async def reload(self) -> Answer:
        """Load the code anew; what came of it.

        Returns:
            ``generation``, ``workers`` (how many the pool has), ``draining`` (ids of those that finish something with
            the old code first), ``tasks_added`` and ``tasks_removed`` (names), ``tasks_dropped`` (how many waited whose
            name was removed), ``restart_needed`` (settings that have changed, and that a reload does not take over),
            ``took_s``.

        Raises:
            ConfigError, ReloadFailed: the new version is refused, and the old one goes on.
            ShuttingDown: the daemon is.
        """
        if self._next is None:
            self._next = self._shell.loop.create_task(self._after(self._running))
            self._next.add_done_callback(_heard)
        return await asyncio.shield(self._next)  # whoever asked may go; others may wait for it

    async def _after(self, before: asyncio.Task[Answer] | None) -> Answer:
        if before is not None:
            await asyncio.wait([before])
        self._running, self._next = self._next, None
        if self._shell.scheduler.state.shutting_down:
            raise ShuttingDown("the daemon is shutting down; the next one that is started has the new code")
        _log.info("reloading the code")
        if self.watcher is not None:
            self.watcher.reload_began()
        refusal = "it was broken off"
        try:
            answer = await self._reload()
            refusal = ""
            return answer
        except PoolError as error:
            _log.error("reload refused: %s", error)
            refusal = str(error)
            raise
        except Exception as error:
            _log.exception("reload failed")
            refusal = repr(error)
            raise
        finally:
            self._running = None
            if self.watcher is not None:
                self.watcher.reload_ended(refusal)

    async def _reload(self) -> Answer:
        began_at = now()
        shell = self._shell
        settings = self._read_settings()
        kept = [name for name in KINDS if name not in RELOADED and _differs(name, settings, shell.settings)]
        if kept:
            _log.warning("changed, but taken over only by a restart: %s", ", ".join(kept))
        self._settings = replace(shell.settings, **{name: getattr(settings, name) for name in RELOADED})
        before = shell.handlers.keys() | set()
        template = await self._imported()
        rolled = await self._roll(template)
        after = shell.handlers.keys()
        answer = {
            "generation": rolled.generation,
            "workers": shell.scheduler.supervisor.size(),
            "draining": list(rolled.draining),
            "tasks_added": sorted(after - before),
            "tasks_removed": sorted(before - after),
            "tasks_dropped": rolled.dropped,
            "restart_needed": kept,
            "took_s": round(now() - began_at, 3),
        }
        _log.info("reloaded: %s", ", ".join(f"{name} {value}" for name, value in answer.items()))
        return answer

    async def _imported(self) -> Template:
        """A template that has imported the app, and ``_handlers`` as it tells them."""
        templates = self._shell.templates
        try:
            template = templates.launch(list(self._settings.app))
        except OSError as error:
            raise self._refused(f"no template can be started: {error}") from error
        found = template.handlers
        try:
            awaited: tuple[asyncio.Future[Any], ...] = (found, self._stopping)
            await asyncio.wait(awaited, timeout=IMPORT_PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
            if self._stopping.done():
                raise ShuttingDown("the daemon is shutting down")
            if not found.done():
                raise ReloadFailed(f"the app was not imported within {IMPORT_PATIENCE_S:g} s; the old code goes on")
            self._handlers = all_handlers(self._settings, found.result())
            if self._shell.declares:
                self._schedules = declared_schedules(found.result(), time.time())
        except PoolError as error:
            found.cancel()
            templates.discard(template)
            if isinstance(error, (ShuttingDown, ReloadFailed)):
                raise
            raise self._refused(str(error)) from None
        return template

    def _refused(self, why: str) -> ReloadFailed:
        """Told to those who listen; to be raised."""
        self._shell.scheduler.state.emit("reload-refused", {"error": why})
        self._shell.wake()
        return ReloadFailed(f"the old code goes on, since {why}")

    async def _roll(self, template: Template) -> Reloaded:
        shell = self._shell
        try:
            self._generation = shell.scheduler.rollout.begin(self._handlers.__contains__, now())
        except PoolError:
            shell.templates.discard(template)
            raise
        shell.templates.join(template, self._generation)
        self._rolled = shell.loop.create_future()
        shell.wake()
        rolled = await self._rolled
        if rolled.failure:
            if shell.scheduler.state.shutting_down:
                raise ShuttingDown("the daemon is shutting down")
            raise ReloadFailed(f"the old code goes on, since {rolled.failure}")
        return rolled

    def rolled(self, effect: Reloaded) -> None:
        """The scheduler says that the roll has ended."""
        shell = self._shell
        if not effect.failure:
            shell.handlers.clear()
            shell.handlers.update(self._handlers)
            shell.scheduler.periodic.declare(self._schedules, now())
            shell.settings = shell.scheduler.state.settings = self._settings
            for listener in self.listeners:
                listener()
        self._generation = 0
        shell.templates.settle(effect.generation, shell.generations)
        if self._rolled is not None:
            self._rolled.set_result(effect)

    def template_died(self, generation: int, how: str) -> None:
        """Where it was the one of the new code, no more workers of that can be made."""
        if generation and generation == self._generation:
            self._shell.scheduler.rollout.fail(f"the template of the new code ended: {how}")

    def stop(self) -> None:
        """The daemon shuts down: wait for no import. Safe to call twice."""
        if not self._stopping.done():
            self._stopping.set_result(None)


def _differs(name: str, one: Settings, other: Settings) -> bool:
    return bool(getattr(one, name) != getattr(other, name))


def _heard(task: asyncio.Task[Answer]) -> None:
    """Nobody may be left to hear of a failure; it is in the log."""
    if not task.cancelled():
        task.exception()
