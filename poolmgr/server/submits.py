"""The options of a submit: what the settings, the handler and the submit say, in this order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgpack

from poolmgr.errors import BadOption, NotAllowed, UnknownTask
from poolmgr.model import RESERVED, TaskOptions

_KEPT = 4096


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
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[name, packed] = options
        return options

    def _resolve(self, name: str, packed: bytes | None) -> TaskOptions:
        if self._for_strangers and name.startswith(RESERVED):
            raise NotAllowed("calls by an Executor are taken from the daemon's own user alone: they run any code")
        options = self._handlers.get(name)
        if options is None:
            raise unknown_task(name, self._handlers)
        if packed is None:
            return options
        try:
            overrides: Any = msgpack.unpackb(packed)
        except Exception as error:
            raise BadOption(f"the options are no MessagePack map: {error}") from error
        if not isinstance(overrides, dict):
            raise BadOption("the options are no MessagePack map")
        return options.override(overrides)


def unknown_task(name: str, handlers: Iterable[str]) -> UnknownTask:
    """What to tell of a name that is not among ``handlers``: the nearest, or all."""
    from difflib import get_close_matches

    known = [each for each in handlers if not each.startswith(RESERVED)]
    if not known:
        return UnknownTask(f"unknown task {name!r}: this daemon has no app; start it with --app MODULE")
    near = get_close_matches(name, known, n=1)
    if near:
        return UnknownTask(f"unknown task {name!r}; did you mean {near[0]!r}?")
    return UnknownTask(f"unknown task {name!r}; the app has {', '.join(sorted(known)[:20])}")
