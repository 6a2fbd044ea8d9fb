"""RQ, which forks for each job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from redis import Redis
from rq import Queue

from benchmarks.peers import adapter, tasks
from benchmarks.peers.redis_queue import RedisQueueAdapter, redis_socket

_TTL_S = 3600


class Adapter(RedisQueueAdapter):
    """Its default worker, and its own command for many of them. As many as processors where speed counts."""

    about = (
        f"RQ {version('rq')}: worker-pool, the default worker (a fork for each job), pickle; map by "
        f"enqueue_many; "
        f"{adapter.PROCESSORS} workers where speed counts"
    )
    fastest = adapter.PROCESSORS

    def _command(self, workers: int) -> list[str]:
        return [
            adapter.command("rq"), "worker-pool", "--url", f"unix://{redis_socket()}", "--num-workers", str(workers),
            "--logging-level", "ERROR", "benchmark",
        ]  # fmt: skip

    def _start(self, workers: int) -> None:
        super()._start(workers)
        self._queue = Queue("benchmark", connection=Redis(unix_socket_path=redis_socket(), socket_timeout=None))

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._queue.enqueue(function, *arguments, result_ttl=_TTL_S)

    def map(self, values: Sequence[Any]) -> list[Any]:
        jobs = self._queue.enqueue_many(
            [Queue.prepare_data(tasks.echo, (value,), result_ttl=_TTL_S) for value in values]
        )
        return [self.result(job, 60.0) for job in jobs]

    def result(self, handle: Any, timeout_s: float) -> Any:
        result = handle.latest_result(timeout=int(timeout_s))
        if result is None:
            raise TimeoutError(f"no result within {timeout_s:g} s")
        if result.type != result.Type.SUCCESSFUL:
            raise RuntimeError(result.exc_string)
        return result.return_value

    def worker_of(self, pids: Sequence[int]) -> int:
        return pids[1]  # the job's own process is gone with the job
