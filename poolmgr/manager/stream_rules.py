"""The rules for streams (docs/protocol.md), tried with one that the worker is said to know.

It yields the same 3 to 1,000 chunks each time, some of them with a checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgpack

from poolmgr.manager.known import Known, Skipped
from poolmgr.manager.trial import NO_SUCH_JOB, Job, Trial, Violation
from poolmgr.wire.messages import CHUNK, CREDIT, CREDIT_BY_DEFAULT, DONE, INTERRUPT, RELEASED

_ALL: Final = 1 << 40  # credit for whatever comes
_LEAST: Final = 3
_MOST: Final = 1_000


class Whole(NamedTuple):
    """All that came of a stream."""

    chunks: list[bytes]
    checkpoints: dict[int, bytes]  # by the number of the chunk that comes next
    end: Sequence[Any]


def come_in_order(worker: Trial, known: Known) -> None:
    job = _ready(worker, known)
    whole = _run(worker, job)
    if whole.end[0] != DONE:
        raise Violation(f"{job.name} does not end with DONE")
    if not _LEAST <= len(whole.chunks) <= _MOST:
        raise Violation(f"{job.name} yields {len(whole.chunks)} chunks: name one that yields {_LEAST} to {_MOST:,}")
    for payload in (*whole.chunks, *whole.checkpoints.values()):
        try:
            msgpack.unpackb(payload, ext_hook=lambda code, data: None, strict_map_key=False)
        except Exception:
            raise Violation(f"a chunk or checkpoint is not one MessagePack value: {payload[:80]!r}") from None
    if _run(worker, job).chunks != whole.chunks:
        raise Violation(f"{job.name} yields other chunks the second time")


def keeps_to_its_credit(worker: Trial, known: Known) -> None:
    job = _ready(worker, known)
    fence = worker.start_stream(job, credit=1)
    _take(worker, fence, 0, 1)
    _is_silent(worker, "the first chunk, for which alone there is credit")
    worker.tell([CREDIT, fence, 2, _ALL])
    _take(worker, fence, 1, 2)
    _is_silent(worker, "the second chunk, for which alone there is credit")
    worker.tell([CREDIT, fence, _ALL, _ALL])
    if (end := _take(worker, fence, 2)) is None or end[0] != DONE:
        raise Violation(f"{job.name} does not end with DONE once there is credit")
    fence = worker.start_stream(job, credit=_ALL, size=1)
    _take(worker, fence, 0, 1)
    _is_silent(worker, "the first chunk, with which it has sent as many bytes as it may")
    worker.tell([CREDIT, fence, _ALL, _ALL])
    _take(worker, fence, 1)
    for fence in (worker.start(job)[0], worker.start(job)[0]):  # the short and the long START
        if not _run(worker, job, fence, CREDIT_BY_DEFAULT).end:
            _is_silent(worker, f"chunk {CREDIT_BY_DEFAULT - 1}, and START gives credit for {CREDIT_BY_DEFAULT}")
            worker.tell([CREDIT, fence, _ALL, _ALL])
            _take(worker, fence, CREDIT_BY_DEFAULT)


def is_preempted(worker: Trial, known: Known) -> None:
    job = _ready(worker, known)
    fence = worker.start_stream(job, credit=1)
    _take(worker, fence, 0, 1)
    worker.tell([INTERRUPT, fence, "preempt"], interrupt=True)
    end = _take(worker, fence, 1)
    if end is None or end[0] != RELEASED:
        raise Violation("it is asked to give way, and does not answer RELEASED at its next chunk")
    [following] = worker.start(NO_SUCH_JOB)
    worker.answer(following)


def has_checkpoints(worker: Trial, known: Known) -> None:
    job = _ready(worker, known)
    whole = _run(worker, job)
    if not whole.checkpoints:
        raise Skipped("needs a --stream that makes checkpoints")
    for first, checkpoint in whole.checkpoints.items():
        rest = _run(worker, job, resume=[first, first, checkpoint])
        if rest.chunks != whole.chunks[first:]:
            raise Violation(f"resumed from the checkpoint before chunk {first}, it does not yield what was left")


def leaves_out_what_is_kept(worker: Trial, known: Known) -> None:
    job = _ready(worker, known)
    whole = _run(worker, job)
    for kept in (1, len(whole.chunks) - 1, len(whole.chunks)):
        rest = _run(worker, job, resume=[0, kept, None])
        if rest.chunks != whole.chunks[kept:]:
            raise Violation(f"{kept} chunks are kept, and it does not yield just the others")


def _ready(worker: Trial, known: Known) -> Job:
    job = known.need_stream()
    info = worker.message("READY")[4:5]
    if not info or type(info[0]) is not dict or info[0].get("streams") is not True:
        raise Violation('its READY does not say {"streams": true}')
    return job


def _run(worker: Trial, job: Job, fence: int = 0, credit: int = _ALL, *, resume: list[Any] | None = None) -> Whole:
    """The whole of a stream, or what came before it had no credit left."""
    fence = fence or worker.start_stream(job, resume, credit)
    first, kept, _ = resume or (0, 0, None)
    whole = Whole([], {}, ())
    while len(whole.chunks) < credit:
        said = worker.say_of_stream(fence)
        if said[0] != CHUNK:
            return whole._replace(end=said)
        _, _, seq, payload, checkpoint = said
        at = max(kept, first) + len(whole.chunks)
        if payload is None:
            if not first <= seq <= at:
                raise Violation(f"a checkpoint alone comes with {seq}, where chunk {at} is the next")
            whole.checkpoints[seq] = checkpoint
            continue
        if seq != at:
            raise Violation(f"chunk {seq} comes where chunk {at} is the next")
        whole.chunks.append(payload)
        if checkpoint is not None:
            whole.checkpoints[seq + 1] = checkpoint
    return whole


def _take(worker: Trial, fence: int, at: int, end: int = _ALL) -> Sequence[Any] | None:
    """Chunks from ``at`` to before ``end``, or how the task has ended."""
    while at < end:
        said = worker.say_of_stream(fence)
        if said[0] != CHUNK:
            if end != _ALL:
                raise Violation(f"it ends before chunk {at}: name a stream of at least {_LEAST}")
            return said
        if said[3] is not None:
            if said[2] != at:
                raise Violation(f"chunk {said[2]} comes where chunk {at} is the next")
            at += 1
    return None


def _is_silent(worker: Trial, what: str) -> None:
    worker.beats(3, f"while it waits behind {what}")
    if not worker.says_nothing():
        said = worker.message("more")
        if said[0] != CHUNK or said[3] is not None:  # a checkpoint alone needs no credit
            raise Violation(f"it goes on behind {what}")


STREAM_RULES: Final[dict[str, tuple[str, Callable[[Trial, Known], None]]]] = {
    "chunks come in order": ("streams", come_in_order),
    "credit is kept": ("streams", keeps_to_its_credit),
    "it is preempted at the next chunk": ("preemption", is_preempted),
    "it goes on from a checkpoint": ("streams", has_checkpoints),
    "what is kept does not come again": ("streams", leaves_out_what_is_kept),
}
