"""Every error of poolmgr, in one tree, split by who must act.

    PoolError
      UsageError        the caller asked for something that cannot be: change the call
      Unavailable       the daemon cannot do it now: start it, wait, or look at its log
      TaskFailed        the task itself ended in another way than by completing

Each class has a stable ``code``. The code crosses the wire and is what programs (and people who search) should rely
on; messages may change. ``from_code`` turns a code and a message back into the right class on the other side.
"""

from __future__ import annotations

from typing import Any, ClassVar


class PoolError(Exception):
    """Base of every error that poolmgr raises. ``code`` is stable, ``str(error)`` says what to do."""

    code: ClassVar[str] = "error"


# ---------------------------------------------------------------------------------------- the caller must act


class UsageError(PoolError):
    """The request is wrong, and would be wrong again. Nothing was changed."""

    code = "usage"


class UnknownTask(UsageError):
    """No handler of that name is registered in the daemon's app."""

    code = "unknown_task"


class BadOption(UsageError):
    """An option is unknown, of the wrong type, or out of its range (priority is 0..100)."""

    code = "bad_option"


class BadValue(UsageError):
    """A value cannot be carried; the message names the path to it, such as ``args[0]['x'][3]``."""

    code = "bad_value"


class PayloadTooLarge(UsageError):
    """Arguments or a result exceed the frame limit. Pass a path or a reference in its place."""

    code = "payload_too_large"


class BadDescriptor(UsageError):
    """A payload came as a file that is none of those that are taken: docs/protocol.md says which are."""

    code = "bad_descriptor"


class IdConflict(UsageError):
    """The same task id was submitted before with other content."""

    code = "id_conflict"


class OutcomeUnknown(UsageError):
    """The id is older than what the store remembers: whether it ran cannot be told."""

    code = "outcome_unknown"


class NotFound(UsageError):
    """No such task, worker or name here (it may have ended, and its result been delivered or expired)."""

    code = "not_found"


class ChunksDropped(NotFound):
    """The stream had such a chunk, and it is not kept any more; the message tells the first one that is."""

    code = "chunks_dropped"


class NotAllowed(UsageError):
    """The peer's user may not do this: the owner and root may do everything, the group submit and read."""

    code = "not_allowed"


class WrongState(UsageError):
    """The request does not fit the state of its object, such as a requeue of a task that is not dead."""

    code = "wrong_state"


class ConfigError(UsageError):
    """A setting is unknown or wrong. The message names it, where it came from, and the nearest known name."""

    code = "config"


class AppError(UsageError):
    """The app's modules cannot be imported, or two handlers have one name. The message holds the traceback."""

    code = "app"


class ProtocolError(UsageError):
    """The peer sent something that the protocol does not know, or speaks another version of it."""

    code = "protocol"


class VersionMismatch(ProtocolError):
    """Daemon and peer speak different protocol versions: upgrade one, then restart it."""

    code = "version_mismatch"


# ---------------------------------------------------------------------------------------- the daemon cannot, now


class Unavailable(PoolError):
    """The daemon cannot do it now. The same request may succeed later."""

    code = "unavailable"


class NotRunning(Unavailable):
    """No daemon answers on the socket: start one with ``poolmgr start --app MODULE``."""

    code = "not_running"


class AlreadyRunning(Unavailable):
    """Another daemon holds this socket or state directory."""

    code = "already_running"


class ConnectionLost(Unavailable):
    """The connection broke. Accepted durable tasks are safe: ask for them by id after a reconnect."""

    code = "connection_lost"


class ShuttingDown(Unavailable):
    """The daemon is draining and takes no new work."""

    code = "shutting_down"


class QueueFull(Unavailable):
    """As many tasks wait as may (``max_queue_depth``, or ``max_queued`` of a name). Submit again when some have ended,
    or wait for room with ``block=True``; CRITICAL tasks have places of their own."""

    code = "queue_full"


class StoreUnavailable(Unavailable):
    """The store refuses to write (a full disk, a locked or corrupt file). Nothing acknowledged is lost."""

    code = "store_unavailable"


class ReloadFailed(Unavailable):
    """The new code does not come up, and the old one goes on. The message holds the traceback."""

    code = "reload_failed"


class StartFailed(Unavailable):
    """The daemon did not come up. The message holds the reason."""

    code = "start_failed"


# ---------------------------------------------------------------------------------------- the task did not complete


class TaskFailed(PoolError):
    """A task reached a final state other than ``completed``.

    Attributes:
        task_id: the task's id, 32 hex digits ('' where unknown).
        type: qualified name of the handler's exception, such as ``ValueError`` ('' where there was none).
        message: the exception's text, or the reason.
        traceback: the traceback as the worker saw it, as text ('' where there was none).
    """

    code = "task_failed"

    def __init__(self, message: str = "", *, task_id: str = "", type: str = "", traceback: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.task_id = task_id
        self.type = type
        self.traceback = traceback

    def __str__(self) -> str:
        text = f"{self.type}: {self.message}" if self.type else self.message
        return f"{text}\n\n{self.traceback.rstrip()}" if self.traceback else text

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.task_id, self.type, self.traceback)


class BadArguments(TaskFailed):
    """The handler does not take these arguments. Never retried."""

    code = "bad_arguments"


class BadResult(TaskFailed):
    """The handler returned a value that cannot be carried, or that is over the frame limit."""

    code = "bad_result"


class TaskTimeout(TaskFailed):
    """The task ran longer than its ``timeout_s`` (or ``soft_timeout_s``)."""

    code = "timeout"


class WorkerDied(TaskFailed):
    """The worker process died while it ran the task; the message names the exit code or signal."""

    code = "worker_died"


class OutOfMemory(WorkerDied):
    """The task exceeded its memory limit."""

    code = "out_of_memory"


class TaskCancelled(TaskFailed):
    """The task was cancelled."""

    code = "cancelled"


class TaskExpired(TaskFailed):
    """The task was not begun within its ``expires_s``."""

    code = "expired"


class TaskShed(TaskExpired):
    """The task was ``sheddable``, and memory was short before it had begun. Submit it again later."""

    code = "shed"


class TaskInterrupted(TaskFailed):
    """The task may not be re-run (``restartable=False``) and was interrupted."""

    code = "interrupted"


class PayloadLost(TaskFailed):
    """The file with the task's large payload has vanished from the spool directory, or was cut. It cannot be run, nor
    requeued."""

    code = "payload_lost"


class TaskLost(TaskFailed):
    """The daemon went away with a task that was not durable. Whether it ran is unknown."""

    code = "lost"


def _rebuild(cls: type[TaskFailed], message: str, task_id: str, type: str, traceback: str) -> TaskFailed:
    return cls(message, task_id=task_id, type=type, traceback=traceback)


def _tree(cls: type[PoolError]) -> dict[str, type[PoolError]]:
    found = {cls.code: cls}
    for sub in cls.__subclasses__():
        found.update(_tree(sub))
    return found


BY_CODE: dict[str, type[PoolError]] = _tree(PoolError)


def from_code(code: str, message: str) -> PoolError:
    """The error that a peer reported as ``code``; an unknown code (a newer peer) gives a plain ``PoolError``."""
    return BY_CODE.get(code, PoolError)(message)


def failure(code: str, message: str, *, task_id: str, type: str = "", traceback: str = "") -> TaskFailed:
    """The ``TaskFailed`` that stands for a task's failure ``code``; an unknown code gives ``TaskFailed`` itself."""
    cls = BY_CODE.get(code, TaskFailed)
    if not issubclass(cls, TaskFailed):
        cls = TaskFailed
    return cls(message, task_id=task_id, type=type, traceback=traceback)
