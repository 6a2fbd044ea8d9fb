"""Where the daemon's log goes: to standard error in the foreground, to a file that rotates when detached."""

from __future__ import annotations

import logging
import logging.handlers
import os
from typing import Final

_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_BYTES: Final = 10 * 1024 * 1024  # of one file; with its predecessors, the log takes at most 60 MB
_PREDECESSORS: Final = 5


def log_to_stderr() -> None:
    """Send every record from INFO on to standard error."""
    _use(logging.StreamHandler())


def log_to_file(path: str) -> None:
    """Append every record from INFO on to ``path``, and keep standard output and error pointing at it."""
    _use(_RotatingLog(path, maxBytes=_BYTES, backupCount=_PREDECESSORS, encoding="utf-8"))


class _RotatingLog(logging.handlers.RotatingFileHandler):
    """Takes standard output and error along to the new file: what goes there directly is rotated too."""

    def doRollover(self) -> None:  # noqa: N802 - the name is the standard library's
        super().doRollover()
        if self.stream is not None:
            for descriptor in (1, 2):
                os.dup2(self.stream.fileno(), descriptor)


def _use(handler: logging.Handler) -> None:
    handler.setFormatter(logging.Formatter(_FORMAT))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
