"""Celery, with Redis as broker and result backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import celery
from celery.result import ResultSet

from benchmarks.peers import adapter, tasks
from benchmarks.peers.redis_queue import JsonQueueAdapter, redis_socket

_URL = f"redis+socket://{redis_socket()}"

app = celery.Celery("benchmark", broker=_URL, backend=_URL)
app.conf.update(result_expires=3600, worker_send_task_events=False, broker_connection_retry_on_startup=True)
_TASKS = {function: app.task(name=function.__name__)(function) for function in tasks.ALL}


class Adapter(JsonQueueAdapter):
    """As many processes as processors where speed counts: more are slower."""

    about = (
        f"Celery {celery.__version__}: prefork, prefetch 128 a process, no events, gossip or heartbeat, JSON, results "
        f"in Redis; {adapter.PROCESSORS} processes where speed counts"
    )
    fastest = adapter.PROCESSORS

    def _command(self, workers: int) -> list[str]:
        return [
            adapter.command("celery"), "--app", "benchmarks.peers.celery", "worker", "--pool", "prefork",
            "--concurrency", str(workers), "--prefetch-multiplier", "128", "--without-gossip", "--without-mingle",
            "--without-heartbeat", "--loglevel", "ERROR",
        ]  # fmt: skip

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return _TASKS[function].delay(*arguments)

    def result(self, handle: Any, timeout_s: float) -> Any:
        return handle.get(timeout=timeout_s)

    def submit_all(self, values: Sequence[Any]) -> list[Any]:
        echo = _TASKS[tasks.echo]
        found: list[Any] = ResultSet([echo.delay(value) for value in values], app=app).join_native()
        return found
