"""Where the daemon's log goes: to standard error in the foreground, to a file that rotates when detached.

What a fatal signal finds goes there, too: systemd's watchdog sends SIGABRT, and the stacks say what the daemon was at.
"""

from __future__ import annotations

import faulthandler
import logging
import logging.handlers
import os
from collections.abc import Mapping
from typing import Final

_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_JOURNAL_FORMAT: Final = "%(name)s: %(message)s"  # the journal has the time, and the level is its priority
_PRIORITIES: Final = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}  # of syslog(3)
_BYTES: Final = 10 * 1024 * 1024  # of one file; with its predecessors, the log takes at most 60 MB
_PREDECESSORS: Final = 5


def log_to_stderr() -> None:
    """Send every record from INFO on to standard error. Where that is systemd's journal, with its priority."""
    _use(logging.StreamHandler(), _ForJournal(_JOURNAL_FORMAT) if is_journal(2, os.environ) else None)


def log_to_file(path: str) -> None:
    """Append every record from INFO on to ``path``, and keep standard output and error pointing at it."""
    _use(_RotatingLog(path, maxBytes=_BYTES, backupCount=_PREDECESSORS, encoding="utf-8"))


def is_journal(fd: int, environ: Mapping[str, str]) -> bool:
    """Whether ``fd`` leads to the journal: systemd tells in $JOURNAL_STREAM which file does."""
    found = os.fstat(fd)
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class _ForJournal(logging.Formatter):
    """The journal takes each line for a message of its own, and its priority from the line's beginning."""

    def format(self, record: logging.LogRecord) -> str:
        priority = _PRIORITIES.get(record.levelname, 6)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


class _RotatingLog(logging.handlers.RotatingFileHandler):
    """Takes standard output and error along to the new file: what goes there directly is rotated too."""

    def doRollover(self) -> None:  # noqa: N802 - the name is the standard library's
        super().doRollover()
        if self.stream is not None:
            for descriptor in (1, 2):
                os.dup2(self.stream.fileno(), descriptor)


def _use(handler: logging.Handler, formatter: logging.Formatter | None = None) -> None:
    handler.setFormatter(formatter or logging.Formatter(_FORMAT))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    faulthandler.enable()
