"""huey, on Redis."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from huey import RedisExpireHuey

from benchmarks.peers import adapter, tasks
from benchmarks.peers.redis_queue import RedisQueueAdapter, redis_socket

# Of its stores the one that does not delete each result when it is read: that would be one more sync a task.
app = RedisExpireHuey("benchmark", url=f"unix://{redis_socket()}", expire_time=3600)
_TASKS = {function: app.task(name=function.__name__)(function) for function in tasks.ALL}
_LOOK_S = 0.0005


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
        return handle.get(blocking=True, timeout=timeout_s, max_delay=0.01)

    def call(self, value: Any) -> Any:
        result = _TASKS[tasks.echo](value)
        return result.get(blocking=True, timeout=60, delay=_LOOK_S, max_delay=_LOOK_S)  # it can but look again
