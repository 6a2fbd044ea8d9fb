"""What the daemon tells systemd about itself (sd_notify(3)), when systemd asks."""

from __future__ import annotations

import logging
import socket
from collections.abc import MutableMapping

_log = logging.getLogger(__name__)


class Notifier:
    """Sends states such as ``READY=1`` to the socket ``address``; without one, nowhere."""

    def __init__(self, address: str | None) -> None:
        # An abstract name is written with @ and addressed with NUL.
        self._address = "\0" + address[1:] if address and address.startswith("@") else address

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str]) -> Notifier:
        """The notifier that $NOTIFY_SOCKET asks for. Removes it: workers must not speak for the daemon."""
        return cls(environ.pop("NOTIFY_SOCKET", None))

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
