"""The options of a submit: what the settings, the handler and the submit say, in this order."""

from __future__ import annotations

from poolmgr.errors import NotAllowed
from poolmgr.manager.handlers import resolve
from poolmgr.model import RESERVED, TaskOptions

_KEPT = 256
_SMALL_BYTES = 1024  # larger ones are not kept: they are no few that most submits share


class OptionCache:
    """Resolved options by (handler's name, packed overrides). Most submits share a few: those are not even decoded."""

    def __init__(self, handlers: dict[str, TaskOptions], *, for_strangers: bool = False) -> None:
        self._handlers = handlers
        self._for_strangers = for_strangers
        self._strangers: OptionCache | None = None
        self._known: dict[tuple[str, bytes | None], TaskOptions] = {}

    def for_strangers(self) -> OptionCache:
        """The same for clients of another user, whose pickles no worker shall load."""
        if self._strangers is None:
            self._strangers = OptionCache(self._handlers, for_strangers=True)
        return self._strangers

    def forget(self) -> None:
        """The handlers are others now."""
        self._known.clear()
        if self._strangers is not None:
            self._strangers.forget()

    def resolve(self, name: str, packed: bytes | None) -> TaskOptions:
        """The options of a task ``name`` that was submitted with ``packed`` overrides.

        Raises:
            UnknownTask: there is no such handler; the message names the nearest.
            NotAllowed: it is a pickled call, and comes from a stranger.
            BadOption: an override is unknown, of the wrong type or out of range.
        """
        options = self._known.get((name, packed))
        if options is None:
            options = self._resolve(name, packed)
            if packed is not None and len(packed) > _SMALL_BYTES:
                return options
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[name, packed] = options
        return options

    def _resolve(self, name: str, packed: bytes | None) -> TaskOptions:
        if self._for_strangers and name.startswith(RESERVED):
            raise NotAllowed("calls by an Executor are taken from the daemon's own user alone: they run any code")
        return resolve(self._handlers, name, packed)
