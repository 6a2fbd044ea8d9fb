"""The daemon as systemd sees it: ready, alive, reloading, stopping, and in one line how it is.

The watchdog is fed only while the scheduler advances. It has something to do at least once a second; where that stays
undone for as long as a feed may be late, the pool serves nobody, and systemd is to replace it (``WatchdogSec=``).
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from poolmgr.core import views
from poolmgr.daemon.notify import Notifier
from poolmgr.manager.clock import now
from poolmgr.manager.manager import Manager

_log = logging.getLogger(__name__)

STATUS_S: Final = 5.0  # between two looks at how the pool is
FEEDS: Final = 4  # in one watchdog's patience, so that a late one or two do no harm
WIND_UP_S: Final = 30.0  # the most that a stop takes once nothing runs any more
_TEXT_BYTES: Final = 500


class Service:
    """What ``notifier`` is told, from ``ready`` to ``stopping``. Without anybody to tell it does nothing."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._manager: Manager | None = None  # until it is ready
        self._interval_s = min(STATUS_S, notifier.watchdog_s / FEEDS or STATUS_S)
        self._timer: asyncio.TimerHandle | None = None
        self._told = ""  # the status that systemd has
        self._stopping = False
        self._reloading = False
        self._refusal = ""  # of the last reload

    def ready(self, manager: Manager) -> None:
        """All workers are ready. From here on systemd is told how the pool is, and the watchdog is fed."""
        self._manager = manager
        self._notifier.say("READY=1", self._status())
        if self._notifier:
            self._beat_later()

    def reload_began(self) -> None:
        """A reload begins. ``systemctl reload`` waits for its end."""
        self._reloading = True
        # Both in one message: systemd takes only what was sent after it had asked, and goes by this clock.
        self._notifier.say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", self._status())

    def reload_ended(self, refusal: str = "") -> None:
        """It has ended. With a ``refusal``, its reason, the old code goes on serving."""
        self._reloading = False
        self._refusal = refusal
        if not self._stopping:
            self._notifier.say("READY=1", self._status())

    def stopping(self) -> None:
        """No new work, but what runs may finish; the pool's patience with it is what counts, not the unit's.

        Called again when nothing runs any more.
        """
        patience_s = WIND_UP_S
        if self._manager is not None and not self._stopping:
            patience_s += self._manager.settings.graceful_shutdown_timeout_s
        self._stopping = True
        self._notifier.say("STOPPING=1", f"EXTEND_TIMEOUT_USEC={round(patience_s * 1e6)}", self._status())

    def close(self) -> None:
        """Say no more. Safe to call twice, or before ``ready``."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _beat_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._beat)

    def _beat(self) -> None:
        assert self._manager is not None
        if self._manager.scheduler.state.shutting_down and not self._stopping:  # a client has asked for it
            self.stopping()
        states = []
        overdue_s = self._manager.overdue_s()
        if self._notifier.watchdog_s:
            if overdue_s < self._interval_s:
                states.append("WATCHDOG=1")
            else:
                _log.error("the watchdog is not fed: the scheduler is %.1f s late", overdue_s)
        if self._reloading:  # it takes as long as the tasks that run: that is no reason to give it up
            states.append(f"EXTEND_TIMEOUT_USEC={round(FEEDS * STATUS_S * 1e6)}")
        before = self._told
        status = self._status()
        if status != before:
            states.append(status)
        if states:
            self._notifier.say(*states)
        self._beat_later()

    def _status(self) -> str:
        """The line that ``systemctl status`` shows."""
        sentences = self._sentences(self._manager) if self._manager is not None else ["Not started"]
        self._told = "STATUS=" + ". ".join(sentences).replace("\n", " ")[:_TEXT_BYTES]
        return self._told

    def _sentences(self, manager: Manager) -> list[str]:
        state = manager.scheduler.state
        workers, tasks = views.worker_counts(state), views.task_counts(state)
        health = views.health(state, now(), manager.trouble())
        usable = workers["ready"] + workers["busy"]
        said = []
        if state.shutting_down:
            said.append("Draining")
        elif self._reloading:
            said.append("Reloading")
        elif self._refusal:
            said.append(f"The last reload was refused: {self._refusal}")
        count = f"{usable}" if usable == workers["total"] else f"{usable} of {workers['total']}"
        said.append(
            f"{count} workers ready, {workers['busy']} busy; tasks: {tasks['running']} running, "
            f"{tasks['queued']} queued, {tasks['scheduled']} scheduled"
        )
        if health["status"] != "healthy":
            said.append(": ".join([health["status"], *health["alerts"][:1]]))
        return said
