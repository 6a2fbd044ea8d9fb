"""The connection that a sync client has now: another when it was lost, or when the process has forked."""

from __future__ import annotations

import threading
from typing import TypeVar, overload

from poolmgr.client.dial import Route
from poolmgr.client.link import Link
from poolmgr.errors import ConnectionLost, WrongState

L = TypeVar("L", bound=Link)


class Redial:
    """Gives the live link: one that is down is connected again, in the place of one that is lost there is another."""

    def __init__(self, route: Route) -> None:
        self.timeout_s = route.timeout_s
        self.closed = False
        self._route = route
        self._lock = threading.Lock()
        self._link: Link | None = None

    def live(self) -> Link:
        """Errors: those of ``Link.open``, and WrongState once it is closed."""
        link = self._link
        if link is not None and link.protocol.down is None:
            return link
        if link is not None and link.protocol.lost is None:
            link.reconnect()
            return link
        with self._lock:
            link = self._link
            if link is None or link.protocol.lost is not None:
                link = self._link = self.another()
            return link

    @overload
    def another(self) -> Link: ...
    @overload
    def another(self, kind: type[L]) -> L: ...
    def another(self, kind: type[Link] = Link) -> Link:
        """A connection beside the live one; whoever takes it closes it."""
        if self.closed:
            raise WrongState("this client is closed")
        return kind.open(self._route)

    def current(self) -> Link | None:
        """The last link, if there was one; it may be lost."""
        return self._link

    def close(self) -> None:
        """End the connection. Safe to call twice."""
        self.closed = True
        if self._link is not None:
            self._link.close(ConnectionLost("this client was closed"))
