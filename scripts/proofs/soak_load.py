"""The mixed load of the proof ``soak``: one thread for each kind of work, each with clients of its own.

Whatever breaks with a daemon is tried again with the next. A durable task that was acknowledged has to have its end
then, whatever became of its client's connection; a call may be lost with its daemon, and is counted as excused.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from poolmgr import Client, PoolError, TaskFailed, TaskFuture
from poolmgr.client.caller import Caller
from poolmgr.errors import ConnectionLost, TaskCancelled, TaskLost
from scripts.proofs.pool import Pool, until

TTL_S: Final = 60.0
_PAUSE_S: Final = 0.02  # between two rounds of a kind: the load is steady, and the pool is not saturated
_ROUNDS: Final = 50  # of one client
_PATIENCE_S: Final = 45.0  # under the results' time to live


class Load:
    """Runs from when it is made until ``finish``.

    Attributes:
        right: tasks by kind that ended as they should.
        excused: calls that were lost with their daemon, and submits that it did not acknowledge, by kind.
        lost: what became of durable tasks that were acknowledged, and have no end.
        wrong: ends that no task should have.
    """

    def __init__(self, pool: Pool) -> None:
        self.right: Counter[str] = Counter()
        self.excused: Counter[str] = Counter()
        self.lost: list[str] = []
        self.wrong: list[str] = []
        self._pool = pool
        self._enough = threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=(kind, work), daemon=True) for kind, work in _WORK.items()
        ]
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """No more; returns when what is under way has ended."""
        self._enough.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, kind: str, work: Callable[[Load, Client, str], None]) -> None:
        try:
            while not self._enough.is_set():
                try:
                    with self._pool.client() as client:
                        self._work(client, kind, work)
                except PoolError:  # the next daemon is not there yet
                    self.pause(_PAUSE_S)
        except Exception as error:  # a load that has stopped proves nothing
            self.wrong.append(f"{kind}: {error!r}")

    def _work(self, client: Client, kind: str, work: Callable[[Load, Client, str], None]) -> None:
        """Some rounds; then another client comes."""
        for _ in range(_ROUNDS):
            try:
                work(self, client, kind)
            except PoolError:  # the daemon went; what it had acknowledged was looked after
                self.excused[kind] += 1
                return
            self.pause(_PAUSE_S)
            if self._enough.is_set():
                return

    def client(self) -> Client:
        """Another client of the same daemon."""
        return self._pool.client()

    def pause(self, seconds: float) -> None:
        """Wait, unless the load is to end."""
        self._enough.wait(seconds)

    def expect(self, kind: str, future: TaskFuture[Any], right: Callable[[Any], bool]) -> None:
        """Wait for the end of a durable task, from this daemon or the next, and count it."""
        try:
            end = self._end(future)
        except TimeoutError:
            self.lost.append(f"{kind}: {self._known(future.id)}")
            return
        if end is None:
            self.excused[kind] += 1
        elif right(end):
            self.right[kind] += 1
        else:
            self.wrong.append(f"{kind}: {future.id}: {end!r}")

    def _known(self, task_id: str) -> str:
        try:
            with self._pool.client() as client:
                return str(client.task(task_id))
        except PoolError as error:
            return f"{task_id}: {error}"

    def _end(self, future: TaskFuture[Any]) -> Any:
        """Its result, or how it failed; None where it never was acknowledged."""
        give_up_at = time.monotonic() + _PATIENCE_S
        try:
            return future.result(timeout=_PATIENCE_S)
        except TaskFailed as failure:
            return failure
        except ConnectionLost as lost:
            acknowledged = "is safe" in str(lost)
        while time.monotonic() < give_up_at:
            try:
                with self._pool.client() as client:
                    return client.result(future.id, timeout=_PATIENCE_S)
            except TaskFailed as failure:
                return failure
            except PoolError as error:
                if error.code == "not_found":
                    break
                time.sleep(_PAUSE_S)  # the next daemon is not there yet
        if acknowledged:
            raise TimeoutError
        return None


def _durable(client: Client, **options: Any) -> Caller:
    return client.using(result_ttl_s=TTL_S, **options)


def _hand_over(load: Load, client: Client, kind: str) -> None:
    futures = [_durable(client).submit("echo", number) for number in range(100)]
    for number, future in enumerate(futures):
        load.expect(kind, future, lambda end, number=number: end == number)  # type: ignore[misc]


def _call(load: Load, client: Client, kind: str) -> None:
    try:
        right = list(client.map("echo", range(200))) == list(range(200))
    except TaskLost:
        load.excused[kind] += 1
        return
    if right:
        load.right[kind] += 1
    else:
        load.wrong.append("a map with wrong results")


def _retry(load: Load, client: Client, kind: str) -> None:
    futures = [_durable(client).submit("stumble", 1) for _ in range(5)]
    for future in futures:
        load.expect(kind, future, lambda end: isinstance(end, int) and end >= 2)


def _die(load: Load, client: Client, kind: str) -> None:
    future = _durable(client).submit("stumble", 99)
    load.expect(kind, future, lambda end: isinstance(end, TaskFailed))
    client.purge(future.id)


def _ephemeral(load: Load, client: Client, kind: str) -> None:
    load.expect(kind, _durable(client, ephemeral=True).submit("echo", 1), lambda end: end == 1)


def _delay(load: Load, client: Client, kind: str) -> None:
    futures = [_durable(client, delay_s=random.uniform(0.01, 1.0)).submit("echo", 2) for _ in range(10)]
    for future in futures:
        load.expect(kind, future, lambda end: end == 2)


def _cancel(load: Load, client: Client, kind: str) -> None:
    futures = [_durable(client, delay_s=3600).submit("echo", 3) for _ in range(10)]
    client.flush()
    for future in futures:
        future.cancel()
        load.expect(kind, future, lambda end: isinstance(end, TaskCancelled))


def _carry_much(load: Load, client: Client, kind: str) -> None:
    content = bytes(random.randrange(300_000))
    load.expect(kind, _durable(client).submit("echo", content), lambda end: end == content)
    load.pause(0.5)  # half a megabyte a second is enough, as it is kept for TTL_S


def _come_and_go(load: Load, client: Client, kind: str) -> None:
    with load.client() as other:  # leaves without having asked for a result
        futures = [_durable(other).submit("echo", 4) for _ in range(20)]
    for future in futures[:2]:
        until(lambda future=future: client.task(future.id).state == "completed", timeout_s=_PATIENCE_S)  # type: ignore[misc]
    load.right[kind] += 1


_WORK: Final[dict[str, Callable[[Load, Client, str], None]]] = {
    "durable tasks": _hand_over,
    "calls, in maps of 200": _call,
    "tasks that are retried": _retry,
    "tasks that die": _die,
    "tasks in a fresh process": _ephemeral,
    "delayed tasks": _delay,
    "cancelled tasks": _cancel,
    "large tasks": _carry_much,
    "clients that come and go": _come_and_go,
}
KINDS: Final = tuple(_WORK)
