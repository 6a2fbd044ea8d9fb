"""The one thread that writes: what was handed over since its last commit becomes its next one.

Group commit needs no timer. While one transaction is synced, the next commits gather; the slower the disk, the
larger the transactions, up to a size at which the sync's share of the price is small anyway. Whoever hands over
pays for one queue operation and never waits for the disk. A commit that is alone may wait a moment for another that is
known to follow (linger.py).

When the store refuses, the thread keeps what it could not commit, says so, and tries again each second,
everything that has arrived since included, in order. Nothing is lost and nothing overtakes. Reads that are
behind a refused commit fail with its error: an answer from before what was submitted would be a wrong one,
and waiting would hang the caller.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from itertools import chain
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, Final, NamedTuple, TypeVar

from poolmgr.core.changes import Change
from poolmgr.errors import StoreUnavailable
from poolmgr.store.base import Store
from poolmgr.store.linger import Linger

_log = logging.getLogger(__name__)

# A transaction that has so many takes no more commits: some 100 ms of work, against a sync of 0.1 to 5 ms. The more a
# transaction holds, the more tasks begin and end in it, which costs half (runs.py).
ENOUGH_CHANGES: Final = 8000

T = TypeVar("T")


class _Commit(NamedTuple):
    number: int
    changes: Sequence[Change]
    at: float  # when it was handed over


class _Read(NamedTuple):
    function: Callable[[Store], Any]
    future: Future[Any]


class _Close(NamedTuple):
    """The last of the queue."""


_Job = _Commit | _Read | _Close


class StoreWriter:
    """Owns the use of an open ``store`` from ``start`` to ``close``. All of its methods are of one thread.

    Args:
        store: opened before ``start``, and closed by its owner after ``close``.
        done: called in the writer's thread, must not raise. ``done(n, None)``: the commits up to number n are
            committed. ``done(n, error)``: commit n and all after it are not, for now; said again at every
            failed try.
        retry_s: how long it waits before it tries again.
    """

    def __init__(
        self, store: Store, done: Callable[[int, BaseException | None], None], *, retry_s: float = 1.0
    ) -> None:
        self._store = store
        self._done = done
        self._retry_s = retry_s
        self._queue: SimpleQueue[_Job] = SimpleQueue()
        self._waiting: deque[_Job] = deque()  # taken from the queue, not yet carried out; the thread's own
        self._linger = Linger()
        self._committed_at = 0.0  # when the last transaction ended
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; what was submitted before is written first. Safe to call twice."""
        if self._thread is None and not self._closing.is_set():
            # A daemon thread: a disk that hangs must not keep the process from ending.
            self._thread = threading.Thread(target=self._run, name="poolmgr-store", daemon=True)
            self._thread.start()

    def submit(self, commit_number: int, changes: Sequence[Change]) -> None:
        """Hand over the changes of one commit; numbers ascend. Returns at once, ``done`` tells the rest.

        Raises:
            StoreUnavailable: the writer is closed.
        """
        if self._closing.is_set():
            raise StoreUnavailable("the store is closed")
        self._queue.put(_Commit(commit_number, changes, monotonic()))

    def read(self, function: Callable[[Store], T]) -> Future[T]:
        """Run ``function(store)`` in the thread, after everything submitted before: the future of its result.

        It fails with ``StoreUnavailable`` while a commit before it is refused, and once the writer is closed.
        The function should be short: commits wait for it.
        """
        future: Future[T] = Future()
        if self._closing.is_set():
            future.set_exception(StoreUnavailable("the store is closed"))
        else:
            self._queue.put(_Read(function, future))
        return future

    @property
    def closed(self) -> bool:
        """Whether it takes nothing more."""
        return self._closing.is_set()

    def close(self, timeout_s: float | None = None) -> bool:
        """Write what is waiting (one last try, where the store refuses), and end the thread.

        Safe to call twice, or before ``start``. Returns whether the thread has ended with all of it
        committed; what was not committed was never acknowledged.
        """
        if not self._closing.is_set():
            self._closing.set()
            self._queue.put(_Close())
        if self._thread is not None:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                return False
        else:
            self._take()
            self._refuse_reads(StoreUnavailable("the store is closed"))
        return not any(isinstance(job, _Commit) for job in self._waiting)

    # ------------------------------------------------------------------------------------------ in the thread

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException:
            # A defect of ours. Without this thread nothing that is durable would ever be answered, and nobody would
            # know why; the next start finds all that was acknowledged.
            _log.critical("the store's thread has failed, so this process ends", exc_info=True)
            os._exit(os.EX_SOFTWARE)

    def _serve(self) -> None:
        while True:
            self._take()
            match self._waiting[0]:
                case _Commit(at=at):  # the job itself, and all that it carries, is not to be kept by a name here
                    alone = len(self._waiting) == 1 and at >= self._committed_at
                    if not (self._commit_alone() if alone else self._commit()):
                        return
                case _Read() as read:
                    self._waiting.popleft()
                    _carry_out(read, self._store)
                case _Close():
                    return

    def _take(self) -> None:
        """Move all that was handed over to ``_waiting``; wait for something only if that is empty."""
        if not self._waiting:
            self._waiting.append(self._queue.get())
        try:
            while True:
                self._waiting.append(self._queue.get_nowait())
        except Empty:
            pass

    def _commit_alone(self) -> bool:
        """Commit the one that waits, with its companion, if one is to be expected. False: the last try has failed.

        One that was handed over while the thread wrote is none of these: it is the companion of what was written.
        """
        linger = self._linger
        if linger.wait_s:
            try:
                self._waiting.append(self._queue.get(timeout=linger.wait_s))
            except Empty:
                pass
            linger.waited(companion=isinstance(self._waiting[-1], _Commit) and len(self._waiting) > 1)
            return self._commit()
        began = monotonic()
        went_well = self._commit()
        ended = monotonic()
        if self._waiting or not self._queue.empty():
            self._take()
        first = self._waiting[0] if self._waiting else None
        linger.did_not_wait(ended - began, first.at - began if isinstance(first, _Commit) else None)
        return went_well

    def _commit(self) -> bool:
        """Apply the first of what waits as one transaction. False: the last try has failed."""
        commits = self._first_commits()
        last_try = self._closing.is_set()
        try:
            self._store.apply(list(chain.from_iterable(each.changes for each in commits)))
        except Exception as error:  # whatever it is: without these commits nothing may go on
            self._done(commits[0].number, error)
            self._take()
            self._refuse_reads(error)
            if last_try:
                return False
            self._closing.wait(self._retry_s)
            return True
        self._committed_at = monotonic()
        for _ in commits:
            self._waiting.popleft()
        self._done(commits[-1].number, None)
        return True

    def _first_commits(self) -> list[_Commit]:
        """The commits before the next read, or as many of them as are enough for a transaction."""
        commits: list[_Commit] = []
        changes = 0
        for job in self._waiting:
            if not isinstance(job, _Commit) or changes >= ENOUGH_CHANGES:
                break
            commits.append(job)
            changes += len(job.changes)
        return commits

    def _refuse_reads(self, error: Exception) -> None:
        for job in self._waiting:
            if isinstance(job, _Read) and job.future.set_running_or_notify_cancel():
                job.future.set_exception(error)
        self._waiting = deque(job for job in self._waiting if not isinstance(job, _Read))


def _carry_out(read: _Read, store: Store) -> None:
    if not read.future.set_running_or_notify_cancel():
        return
    try:
        result = read.function(store)
    except BaseException as error:  # the caller's, as in every executor
        read.future.set_exception(error)
    else:
        read.future.set_result(result)
