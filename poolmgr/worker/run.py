"""Running one handler: decode, call, encode; and saying exactly what went wrong."""

from __future__ import annotations

import sys
from typing import Any

from poolmgr.errors import BadValue, PayloadTooLarge
from poolmgr.model import exception_name
from poolmgr.wire import values
from poolmgr.worker.context import Retry, SoftTimeout
from poolmgr.worker.registry import Handler

TRACEBACK_LIMIT = 64 * 1024  # characters kept of a traceback
MESSAGE_LIMIT = 16 * 1024


class Failed(Exception):
    """A handler's failure, ready to be told: (code, types, failure map, retry delay)."""

    def __init__(
        self, code: str, types: list[str], failure: dict[str, str], retry_delay_s: float | bool | None = None
    ) -> None:
        super().__init__(code)
        self.code = code
        self.types = types
        self.failure = failure
        self.retry_delay_s = retry_delay_s


def encode_result(value: Any) -> bytes:
    """The payload of a handler's result. Raises ``Failed`` (``bad_result``) with the path to what cannot be carried."""
    try:
        return values.pack(value)
    except (BadValue, PayloadTooLarge) as error:
        raise Failed("bad_result", [], {"type": "", "message": str(error), "traceback": ""}) from error


def unknown(name: str) -> Failed:
    """This worker's app has no such handler (the app has changed since the submit)."""
    message = f"the app has no task {name!r}"
    return Failed("unknown_task", [], {"type": "", "message": message, "traceback": ""})


def undecodable(error: Exception) -> Failed:
    """The arguments are no payload that this worker can read."""
    return Failed("bad_arguments", [], {"type": "", "message": str(error), "traceback": ""})


def describe(error: BaseException, handler: Handler, args: Any, kwargs: Any) -> Failed:
    """What a handler raised, as it travels: codes, names of the types, message, traceback without our own frames."""
    failure = {
        "type": exception_name(type(error)),
        "message": text_of(error),
        "traceback": traceback_of(error),
    }
    if isinstance(error, Retry):
        return Failed("task_failed", [], failure, error.delay_s)
    types = [exception_name(cls) for cls in type(error).__mro__ if cls is not object]
    if isinstance(error, SoftTimeout):
        failure["message"] = failure["message"] or "it ran longer than its soft_timeout_s"
        return Failed("timeout", types, failure)
    if isinstance(error, TypeError) and _was_called_wrongly(error, handler, args, kwargs):
        return Failed("bad_arguments", types, failure)
    return Failed("task_failed", types, failure)


def _was_called_wrongly(error: TypeError, handler: Handler, args: Any, kwargs: Any) -> bool:
    """Whether the call itself failed: nothing of the handler ran, and its signature does not take these arguments."""
    frame = error.__traceback__
    if frame is None or frame.tb_next is not None:
        return False
    import inspect

    try:
        inspect.signature(handler.function).bind(*args, **kwargs)
    except (TypeError, ValueError):
        return True
    return False


def text_of(error: BaseException) -> str:
    """What it says, at most 16 K characters."""
    try:
        return str(error)[:MESSAGE_LIMIT]
    except Exception as broken:
        return f"(its text cannot be had: {type(broken).__name__})"


def traceback_of(error: BaseException) -> str:
    """Its traceback as text, without the frame that called the handler."""
    import traceback

    shown = error.__traceback__.tb_next if error.__traceback__ is not None else None  # without the worker's own frame
    try:
        text = "".join(traceback.format_exception(type(error), error, shown))
    except Exception:
        text = f"{type(error).__name__} (its traceback cannot be formatted: {sys.exc_info()[1]!r})"
    if len(text) > TRACEBACK_LIMIT:
        half = TRACEBACK_LIMIT // 2
        text = f"{text[:half]}\n  [... {len(text) - TRACEBACK_LIMIT} characters ...]\n{text[-half:]}"
    return text
