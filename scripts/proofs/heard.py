"""The events of a daemon, as they come."""

from __future__ import annotations

import threading
from typing import Any

from poolmgr import Client
from poolmgr.errors import PoolError
from poolmgr.model import Event


class Heard(threading.Thread):
    """Events of these names, or all, for as long as the client is open."""

    def __init__(self, client: Client, *names: str) -> None:
        super().__init__(daemon=True)
        self.events: list[Event] = []
        self._stream = client.events(*names)
        self.start()

    def run(self) -> None:
        try:
            for event in self._stream:
                self.events.append(event)
        except PoolError:
            pass  # the client is closed, or the daemon is gone

    def of(self, name: str, **fields: Any) -> list[Event]:
        """Those of this name, and with these fields."""
        return [each for each in self.events if each.name == name and fields.items() <= each.fields.items()]
