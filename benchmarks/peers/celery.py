"""Celery, with Redis as broker and result backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any

import celery

from benchmarks.peers import adapter, tasks
from benchmarks.peers.redis_queue import JsonQueueAdapter, redis_socket

_URL = f"redis+socket://{redis_socket()}"

app = celery.Celery("benchmark", broker=_URL, backend=_URL)
app.conf.update(result_expires=3600, worker_send_task_events=False, broker_connection_retry_on_startup=True)
_TASKS = {function: app.task(name=function.__name__)(function) for function in tasks.ALL}


class Adapter(JsonQueueAdapter):
    """As many processes as processors where speed counts: more are slower. There it prefetches much, elsewhere as much
    as its default is: what is prefetched waits in the worker, too."""

    about = (
        f"Celery {celery.__version__}: prefork, no events, gossip or heartbeat, JSON, results in Redis; chunks by its "
        f"chunks(); {adapter.PROCESSORS} processes and prefetch 128 a process where speed counts, else prefetch 4"
    )
    cannot = MappingProxyType({})
    fastest = adapter.PROCESSORS

    def _command(self, workers: int) -> list[str]:
        prefetch = 128 if workers == self.fastest else 4
        return [
            adapter.command("celery"), "--app", "benchmarks.peers.celery", "worker", "--pool", "prefork",
            "--concurrency", str(workers), "--prefetch-multiplier", str(prefetch), "--without-gossip",
            "--without-mingle", "--without-heartbeat", "--loglevel", "ERROR",
        ]  # fmt: skip

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return _TASKS[function].delay(*arguments)

    def result(self, handle: Any, timeout_s: float) -> Any:
        return handle.get(timeout=timeout_s)

    def map_chunked(self, values: Sequence[Any], size: int) -> list[Any]:
        chunks = _TASKS[tasks.echo].chunks(((value,) for value in values), size).apply_async()
        return [value for chunk in chunks.results for value in chunk.get(timeout=60.0)]
