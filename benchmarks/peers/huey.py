"""huey, on Redis."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from huey import RedisExpireHuey

from benchmarks.peers import adapter, tasks
from benchmarks.peers.redis_queue import RedisQueueAdapter, redis_socket

# Of its stores the one that does not delete each result when it is read: that would be one more sync a task.
app = RedisExpireHuey("benchmark", url=f"unix://{redis_socket()}", expire_time=3600)
_TASKS = {function: app.task(name=function.__name__)(function) for function in tasks.ALL}
_LOOK_S = 0.01
_LOOK_SOON_S = 0.0005


class Adapter(RedisQueueAdapter):
    """20 processes throughout: Redis syncs once for all the commands that come together, so waiting ones help."""

    about = f"huey {version('huey')}: processes, no periodic tasks, pickle, results that expire in Redis"

    def _command(self, workers: int) -> list[str]:
        return [
            adapter.command("huey_consumer"), "benchmarks.peers.huey.app", "--workers", str(workers),
            "--worker-type", "process", "--no-periodic", "--delay", "0.01", "--quiet",
        ]  # fmt: skip

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return _TASKS[function](*arguments)

    def result(self, handle: Any, timeout_s: float) -> Any:
        return _look(handle, timeout_s, _LOOK_S)

    def call(self, value: Any) -> Any:
        return _look(_TASKS[tasks.echo](value), 60.0, _LOOK_SOON_S)


def _look(handle: Any, timeout_s: float, every_s: float) -> Any:
    """What came of a task, by looking again and again, which is what its own waiting does; but that begins with 50 ms.
    It could be told instead, for another push and pop of Redis a task."""
    give_up_at = time.monotonic() + timeout_s
    while (value := handle.get()) is None:
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"no result within {timeout_s:g} s")
        time.sleep(every_s)
    return value
