"""The numbers of every message, and the shape of each. docs/protocol.md says the same to people who write peers.

A message is one MessagePack array whose first element is one of these numbers. ``id`` is a task's 16 bytes;
``payload``, ``options`` and ``failure`` are MessagePack in a ``bin``: whoever passes them on does not decode them.
``size``, an int, stands for a payload in a file, whose descriptor comes beside the message (docs/protocol.md, "Files").
Times are seconds of CLOCK_BOOTTIME as floats. Unknown trailing elements are ignored, so a message may grow.
"""

from __future__ import annotations

from typing import Final

PROTOCOL_VERSION: Final = 1
FRAME_LIMIT: Final = 64 * 1024 * 1024  # bytes of one message
PAYLOAD_LIMIT: Final = FRAME_LIMIT - 64 * 1024  # what a frame leaves for the payload beside ids, names and options
CHUNK_LIMIT: Final = 50 * 1024 * 1024  # bytes of one chunk of a stream
CHECKPOINT_LIMIT: Final = 8 * 1024 * 1024  # ... and of a checkpoint, which may go with a chunk in one message
MESSAGE_LIMIT: Final = 16 * 1024  # characters of what an exception, or a worker, says
TRACEBACK_LIMIT: Final = 64 * 1024  # ... kept of a traceback
NAME_LIMIT: Final = 256  # ... of a class's name
TYPES_LIMIT: Final = 256  # bases of an exception that are told
# How many chunks a worker may send where START does not say otherwise, while those that it has sent weigh less than so
# many bytes.
CREDIT_BY_DEFAULT: Final = 10
CREDIT_BYTES_BY_DEFAULT: Final = 50 * 1024 * 1024

# ------------------------------------------------------------------------------- both ways, first on a connection
HELLO: Final = 1  # [HELLO, version, role, info: map]   role: "client" | "worker" | "template"
WELCOME: Final = 2  # [WELCOME, version, info: map]       daemon to client: pid, epoch, payload_limit, window
ERROR: Final = 3  # [ERROR, code, message]              fatal for this connection; its sender closes

# ------------------------------------------------------------------------------- client to daemon
# SUBMITs are numbered 1, 2, ... by their order. ``waited``, which may be left out: a request "room" has given a place.
SUBMIT: Final = 10  # [SUBMIT, id, name, payload | size, options | nil, watch: bool, waited: bool]
SUBMIT_MANY: Final = 12  # [SUBMIT_MANY, ids: array, name, payloads: array, options | nil, watch, waited]  of each
REQUEST: Final = 11  # [REQUEST, number, command, arguments: map]

# ------------------------------------------------------------------------------- daemon to client
ACCEPTED: Final = 20  # [ACCEPTED, n]      of this connection's submits, the first n are accepted or were refused
REFUSED: Final = 21  # [REFUSED, id, code, message]                     a submit
COMPLETED: Final = 22  # [COMPLETED, id, payload | size]                  to whoever watches
COMPLETED_MANY: Final = 29  # [COMPLETED_MANY, ids: array, payloads: array]      where HELLO said that it is understood
FAILED: Final = 23  # [FAILED, id, state, code, failure]               final, not completed
PROGRESS: Final = 24  # [PROGRESS, id, fraction, message]
EVENT: Final = 25  # [EVENT, name, wall_time, fields: map]           after the request "events"
RESPONSE: Final = 26  # [RESPONSE, number, value]
REFUSAL: Final = 27  # [REFUSAL, number, code, message]                a request
SAME: Final = 28  # [SAME, id, first]     this submit is the task ``first``, by its key; its end is told under ``id``

# ------------------------------------------------------------------------------- manager to worker, on the task pipe
# resume: [first, kept, checkpoint | nil]; the last three may be left out together: nil, 10, and 50 MB
START: Final = 40  # [START, fence, id, attempt, name, payload | size, timeout_s | nil, soft_timeout_s | nil, resume | nil, credit, bytes]  # noqa: E501 # fmt: skip
# As many STARTs: first attempts, with the fences fence, fence + 1, ... Where READY said that it is understood.
START_MANY: Final = 41  # [START_MANY, fence, ids: array, name, payloads: array, timeout_s | nil, soft_timeout_s | nil]

# ---------------------------------------------------------------------------- manager to worker, on the control channel
RECALL: Final = 50  # [RECALL, fence]     what has not begun and has this or a smaller fence: do not begin it
INTERRUPT: Final = 51  # [INTERRUPT, fence, reason]    "soft_timeout" | "cancelled" | "preempt"; SIGUSR1 follows
COLLECT: Final = 52  # [COLLECT]            run the garbage collector, when idle
ARGUMENTS: Final = 53  # [ARGUMENTS, fence]   with the file of that START's payload (SCM_RIGHTS)
CREDIT: Final = 54  # [CREDIT, fence, up_to, bytes]  chunks with a smaller number, while those sent weigh less

# ------------------------------------------------------------------------------- worker to manager, on the result pipe
READY: Final = 60  # [READY, version, pid, capabilities: array, info: map]
DONE: Final = 61  # [DONE, fence, begun_at, ended_at, payload | size]
RAISED: Final = 62  # [RAISED, fence, begun_at, ended_at, code, types: array, failure, retry_delay_s | nil | false]
REPORT: Final = 63  # [REPORT, fence, fraction, message]      progress
RECALLED: Final = 64  # [RECALLED, fences: array]               these were not begun, and will not be
BROKEN: Final = 65  # [BROKEN, message]                       a startup hook failed; the worker exits
WORN: Final = 66  # [WORN, fence, why]       the tasks up to this one have changed its process; it begins no other
CHUNK: Final = 67  # [CHUNK, fence, seq, payload | nil, checkpoint | nil]      payload nil: a checkpoint alone
RELEASED: Final = 68  # [RELEASED, fence, begun_at, ended_at]   it has given this one up, as INTERRUPT "preempt" asks

# ---------------------------------------------------------------------------- worker to manager, on the control channel
HEARTBEAT: Final = 70  # [HEARTBEAT]
LOG: Final = 71  # [LOG, fence, level, text]              a record of current_task().log
RESULT: Final = 72  # [RESULT, fence]                       with the file of that DONE's payload (SCM_RIGHTS)

# ------------------------------------------------------------------------------- manager and template
SPAWN: Final = 80  # [SPAWN, spawn, worker, incarnation, group, command: array | nil]   with its fds (SCM_RIGHTS)
SPAWNED: Final = 81  # [SPAWNED, spawn, pid]
SPAWN_FAILED: Final = 82  # [SPAWN_FAILED, spawn, code, message]
HANDLERS: Final = 83  # [HANDLERS, version, pid, {name: options map}]     the app is imported
APP_FAILED: Final = 84  # [APP_FAILED, message]             the import failed: a traceback; the template exits
TEMPLATES: Final = 85  # [TEMPLATES, pids: array]           to a template: all that the pool has, itself included
SPARE: Final = 86  # [SPARE, pid]       it was forked ahead of time, and becomes a worker when one is wanted
