"""Events and workers' output in the daemon's log."""

from __future__ import annotations

import logging
from typing import Any

_log = logging.getLogger("poolmgr.pool")

_LEVELS = {
    "pool-initialized": logging.INFO,
    "code-reloaded": logging.INFO,
    "pool-scaled-up": logging.INFO,
    "pool-scaled-down": logging.INFO,
    "worker-exited": logging.INFO,
    "worker-error": logging.ERROR,
    "zombie-detected": logging.WARNING,
    "breaker-opened": logging.WARNING,
    "breaker-closed": logging.INFO,
    "schedule-missed": logging.WARNING,
    "schedule-held": logging.WARNING,
    "task-failed": logging.WARNING,
    "task-dead": logging.ERROR,
}


def log_event(name: str, fields: dict[str, Any]) -> None:
    """One line an event: ``task-dead task_id=... name=...``.

    Those of every single task, and of workers that come and go as they should, only at level DEBUG.
    """
    level = logging.DEBUG if fields.get("retiring") else _LEVELS.get(name, logging.DEBUG)
    if _log.isEnabledFor(level):
        shown = " ".join(f"{key}={_shown(value)}" for key, value in fields.items())
        _log.log(level, "%s %s", name, shown)


def log_line(worker: str, task_id: str, source: str, line: str) -> None:
    """A line that a worker has printed (``source`` stdout or stderr), or logged (its level)."""
    _log.log(_SOURCES.get(source, logging.INFO), "[%s] %s %s| %s", worker, task_id or "-", source, line)


_SOURCES = {"debug": logging.DEBUG, "warning": logging.WARNING, "error": logging.ERROR}


def _shown(value: Any) -> str:
    text = str(value)
    return repr(text) if " " in text or "\n" in text else text
