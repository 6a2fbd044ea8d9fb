"""Running one handler: decode, call, encode; and saying exactly what went wrong."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from poolmgr.errors import BadValue, PayloadTooLarge
from poolmgr.model import exception_name
from poolmgr.wire import values
from poolmgr.wire.messages import (
    CHECKPOINT_LIMIT,
    CHUNK_LIMIT,
    MESSAGE_LIMIT,
    NAME_LIMIT,
    TRACEBACK_LIMIT,
    TYPES_LIMIT,
)
from poolmgr.wire.parts import Part
from poolmgr.worker.context import Preempted, Retry, SoftTimeout
from poolmgr.worker.registry import Handler

R = TypeVar("R")

# Between the worker's frame and a generator's, and of no interest to anybody who reads a traceback.
_BETWEEN = frozenset(__file__.removesuffix("run.py") + name for name in ("main.py", "generators.py"))


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
    return _carried(values.pack, value)


def result_parts(value: Any) -> list[Part] | None:
    """The same in parts, if it is large; else None."""
    return _carried(values.value_parts, value)


def encode_chunk(value: Any, seq: int) -> list[Part]:
    """The payload of a chunk, in one part or more. Raises ``Failed``, as for a result, with the chunk's number."""
    name = f"chunk {seq}"
    pack = partial(_in_parts, name=name, limit=CHUNK_LIMIT)
    return _carried(pack, value, name)


def _in_parts(value: Any, name: str, limit: int) -> list[Part]:
    return values.value_parts(value, name, limit) or [values.pack(value, name, limit)]


def encode_checkpoint(state: Any, seq: int) -> bytes:
    """The checkpoint that comes with a chunk. Raises ``Failed``, as for a result."""
    name = f"checkpoint of chunk {seq}"
    return _carried(partial(values.pack, name=name, limit=CHECKPOINT_LIMIT), state, name)


def _carried(pack: Callable[[Any], R], value: Any, name: str = "result") -> R:
    try:
        return pack(value)
    except (BadValue, PayloadTooLarge) as error:
        raise Failed("bad_result", [], {"type": "", "message": str(error), "traceback": ""}) from error
    except MemoryError as error:
        raise _starved(error) from None
    except BaseException as error:  # it may call what the app's classes define
        message = f"the {name} cannot be carried: {type(error).__name__}: {text_of(error)}"
        raise Failed("bad_result", [], {"type": "", "message": message[:MESSAGE_LIMIT], "traceback": ""}) from error


def unknown(name: str) -> Failed:
    """This worker's app has no such handler (the app has changed since the submit)."""
    message = f"the app has no task {name!r}"
    return Failed("unknown_task", [], {"type": "", "message": message, "traceback": ""})


def undecodable(error: BaseException) -> Failed:
    """The arguments are no payload that this worker can read; or it has not the memory to."""
    if isinstance(error, MemoryError):
        return _starved(error)
    return Failed("bad_arguments", [], {"type": "", "message": text_of(error), "traceback": ""})


def describe(error: BaseException, handler: Handler, args: Any, kwargs: Any) -> Failed:
    """What a handler raised, as it travels: codes, names of the types, message, traceback without our own frames.

    Whatever the exception's class may define, this returns."""
    if isinstance(error, MemoryError):
        _let_go(error)
    try:
        return _describe(error, handler, args, kwargs)
    except BaseException as broken:
        message = f"its exception cannot be described: {_name(type(broken))} was raised by the attempt"
        return Failed("task_failed", [], {"type": _name(type(error)), "message": message, "traceback": ""})


def _describe(error: BaseException, handler: Handler, args: Any, kwargs: Any) -> Failed:
    failure = {
        "type": _name(type(error)),
        "message": text_of(error),
        "traceback": traceback_of(error),
    }
    bases = type.__dict__["__mro__"].__get__(type(error))  # not what its metaclass may say
    if Retry in bases:
        delay_s = getattr(error, "delay_s", None)
        return Failed("task_failed", [], failure, delay_s if _is_delay(delay_s) else None)
    types = [_name(cls) for cls in bases[:TYPES_LIMIT] if cls is not object]
    if SoftTimeout in bases:
        failure["message"] = failure["message"] or "it ran longer than its soft_timeout_s"
        return Failed("timeout", types, failure)
    if TypeError in bases and _was_called_wrongly(error, handler, args, kwargs):
        return Failed("bad_arguments", types, failure)
    return Failed("task_failed", types, failure)


def gives_way(error: BaseException) -> bool:
    """Whether a handler has raised ``Preempted``, and nothing else: a TaskGroup wraps it."""
    kind = type(error)
    if kind is BaseExceptionGroup:
        return error.split(Preempted)[1] is None  # type: ignore[attr-defined]
    return Preempted in type.__dict__["__mro__"].__get__(kind)


def _starved(error: MemoryError) -> Failed:
    """There was no memory for what is ours to do for the handler."""
    _let_go(error)
    failure = {"type": _name(type(error)), "message": text_of(error), "traceback": traceback_of(error)}
    return Failed("task_failed", ["MemoryError"], failure)


def _let_go(error: BaseException) -> None:
    """Free what the frames hold that it has passed: else there is none left to tell of it."""
    passed = error.__traceback__
    while passed is not None:
        try:
            passed.tb_frame.clear()
        except RuntimeError:  # it still runs: ours
            pass
        passed = passed.tb_next


def _was_called_wrongly(error: BaseException, handler: Handler, args: Any, kwargs: Any) -> bool:
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
    except BaseException as broken:
        return f"(its text cannot be had: {_name(type(broken))})"


def _name(kind: type[BaseException]) -> str:
    """Its name as text that can be sent: a class may be given any."""
    try:
        name = str(exception_name(kind))
    except BaseException:
        name = type.__dict__["__name__"].__get__(kind)
    return name[:NAME_LIMIT].encode("utf-8", "replace").decode()


def _is_delay(value: Any) -> bool:
    return type(value) is float and 0 <= value < float("inf")


def traceback_of(error: BaseException) -> str:
    """Its traceback as text, without the frame that called the handler."""
    import traceback

    shown = error.__traceback__.tb_next if error.__traceback__ is not None else None  # without the worker's own frame
    while shown is not None and shown.tb_frame.f_code.co_filename in _BETWEEN:
        shown = shown.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, shown))
    except BaseException as broken:
        text = f"{_name(type(error))} (its traceback cannot be formatted: {_name(type(broken))})"
    if len(text) > TRACEBACK_LIMIT:
        half = TRACEBACK_LIMIT // 2
        text = f"{text[:half]}\n  [... {len(text) - TRACEBACK_LIMIT} characters ...]\n{text[-half:]}"
    return text
