"""Every task that a pool can run, with its options: the app's, and those that the settings name for a command."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgpack

from poolmgr.config import Settings, task_options
from poolmgr.errors import AppError, BadOption, UnknownTask
from poolmgr.manager.timetable import Timetable
from poolmgr.model import RESERVED, TaskOptions
from poolmgr.schedule import Timing, timing_of
from poolmgr.wire.values import pack_call

_SCHEDULE = "schedule"  # among a handler's options: when it is to be run by itself
_STREAM = "stream"  # ... and whether it yields chunks
_NO_OPTIONS = frozenset({_SCHEDULE, _STREAM})


def all_handlers(settings: Settings, app: Mapping[str, dict[str, Any]]) -> dict[str, TaskOptions]:
    """By name. ``app`` is what the template has told: each name with the options that its handler declares.

    A task of a ``worker_command`` requires its group's name, so that no other worker gets it.

    Raises:
        AppError: the app has a handler for a task that a command is to run.
    """
    defaults = task_options(settings)
    found = {name: defaults.override(_options_of(options)) for name, options in app.items()}
    for group in settings.worker_groups():
        for name in group.worker_tasks:
            if name in found:
                raise AppError(
                    f"the task {name!r} is in the worker_tasks of group {group.name!r}, and the app has a handler of "
                    f"that name: remove one of the two (a handler with requires={{{group.name!r}}} is enough)"
                )
            found[name] = defaults.override({"requires": [group.name]})
    return found


def _options_of(told: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if name not in _NO_OPTIONS}


def declared_streams(app: Mapping[str, dict[str, Any]]) -> frozenset[str]:
    """The names of the app's handlers that yield chunks."""
    return frozenset(name for name, told in app.items() if told.get(_STREAM) is True)


def declared_schedules(app: Mapping[str, dict[str, Any]], now: float) -> dict[str, tuple[Timing, bytes]]:
    """The schedules that the app's handlers declare: by task, when it runs, and the payload (no arguments).

    Raises:
        AppError: one cannot be read, or never comes.
    """
    found: dict[str, tuple[Timing, bytes]] = {}
    timetable = Timetable()
    for name, options in app.items():
        if _SCHEDULE in options:
            try:
                timing = timing_of(options[_SCHEDULE])
                timetable.check(timing, now)
            except BadOption as error:
                raise AppError(f"the schedule of the task {name!r}: {error}") from None
            found[name] = timing, pack_call((), {})
    return found


OPTIONS_BYTES = 16 * 1024  # what the options of one task may take
_NAME_MOST = 200  # characters of a name for which a nearest is looked for


def resolve(handlers: Mapping[str, TaskOptions], name: str, packed: bytes | None) -> TaskOptions:
    """The options of a task ``name``: its handler's, with ``packed`` (MessagePack of a map) on top.

    Raises:
        UnknownTask: there is no such handler; the message names the nearest.
        BadOption: an override is unknown, of the wrong type or out of range.
    """
    options = handlers.get(name)
    if options is None:
        raise unknown_task(name, handlers)
    return options if packed is None else options.override(unpack_overrides(packed))


def unpack_overrides(packed: bytes) -> dict[str, Any]:
    """Options as a submit or a schedule brings them. Raises ``BadOption``."""
    if len(packed) > OPTIONS_BYTES:
        raise BadOption(f"the options take {len(packed):,} bytes, {OPTIONS_BYTES:,} are allowed")
    try:
        overrides: Any = msgpack.unpackb(packed)
    except Exception as error:
        raise BadOption(f"the options are no MessagePack map: {error}") from error
    if not isinstance(overrides, dict):
        raise BadOption("the options are no MessagePack map")
    return overrides


def unknown_task(name: str, handlers: Iterable[str]) -> UnknownTask:
    """What to tell of a name that is not among ``handlers``: the nearest, or all."""
    if len(name) > _NAME_MOST:  # to look for the nearest would take the daemon a second for each million characters
        return UnknownTask(f"unknown task {name[:_NAME_MOST]!r}... of {len(name):,} characters")
    from difflib import get_close_matches

    known = [each for each in handlers if not each.startswith(RESERVED)]
    if not known:
        return UnknownTask(f"unknown task {name!r}: this daemon has no app; start it with --app MODULE")
    near = get_close_matches(name, known, n=1)
    if near:
        return UnknownTask(f"unknown task {name!r}; did you mean {near[0]!r}?")
    return UnknownTask(f"unknown task {name!r}; the app has {', '.join(sorted(known)[:20])}")
