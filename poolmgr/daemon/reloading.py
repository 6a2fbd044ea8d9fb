"""A reload, as the daemon sees it: where the settings are read anew, and what the outside is told of its course."""

from __future__ import annotations

import logging
from collections.abc import Callable

from poolmgr.config import Settings
from poolmgr.daemon.service import Service

_log = logging.getLogger(__name__)


class Reloading:
    """The host of reloads (manager/reloads.py), whoever asks for them: SIGHUP, or the command.

    ``began`` and ``ended`` come in pairs, one pair after the other.
    """

    def __init__(self, reread: Callable[[], Settings], service: Service) -> None:
        self._reread = reread
        self._service = service

    def read_settings(self) -> Settings:
        """As at the start, from the file and the environment of now. Raises ``ConfigError``."""
        return self._reread()

    def reload_began(self) -> None:
        """A reload begins."""
        _log.info("reloading the code")
        self._service.reload_began()

    def reload_ended(self, refusal: str) -> None:
        """It has ended; empty, or why the old code goes on."""
        self._service.reload_ended(refusal)
