"""What the daemon tells systemd about itself (sd_notify(3)), when systemd asks."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import MutableMapping

_log = logging.getLogger(__name__)


class Notifier:
    """Sends states such as ``READY=1`` to the socket ``address``; without one, nowhere.

    ``watchdog_s`` is how long systemd waits for the next ``WATCHDOG=1`` before it kills the daemon; 0.0: for ever.
    """

    def __init__(self, address: str | None, watchdog_s: float = 0.0) -> None:
        # An abstract name is written with @ and addressed with NUL.
        self._address = "\0" + address[1:] if address and address.startswith("@") else address
        self.watchdog_s = watchdog_s

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str]) -> Notifier:
        """The notifier that $NOTIFY_SOCKET and $WATCHDOG_USEC ask for. Removes them: workers must not speak for the
        daemon. A watchdog that waits for another process ($WATCHDOG_PID) is none of ours."""
        address = environ.pop("NOTIFY_SOCKET", None)
        microseconds = environ.pop("WATCHDOG_USEC", "")
        waits_for = environ.pop("WATCHDOG_PID", "") or str(os.getpid())
        watched = microseconds.isdecimal() and waits_for == str(os.getpid())
        return cls(address, int(microseconds) / 1e6 if watched else 0.0)

    def __bool__(self) -> bool:
        """Whether there is anybody to be told."""
        return bool(self._address)

    def say(self, *states: str) -> None:
        """Send ``states`` as one message. That nobody listens is logged, and no reason to fail."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
                out.connect(self._address)
                out.sendall("\n".join(states).encode())
        except OSError as error:
            _log.warning("systemd was not told %s: %s", states[0], error)
