"""Dramatiq, with Redis as broker and result backend."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import Retries
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from redis import Redis

from benchmarks.peers import adapter, tasks
from benchmarks.peers.redis_queue import JsonQueueAdapter, redis_socket

_URL = f"unix://{redis_socket()}"
_THREADS = 8

# A client's default is to wait for no answer longer than 5 s, and a result may take longer.
_results = RedisBackend(client=Redis.from_url(_URL, socket_timeout=None))
broker = RedisBroker(url=_URL, middleware=[Retries(), Results(backend=_results, store_results=True)])
dramatiq.set_broker(broker)
_ACTORS = {function: dramatiq.actor(function, actor_name=function.__name__) for function in tasks.ALL}


class Adapter(JsonQueueAdapter):
    """As many processes as processors where speed counts, with its default of 8 threads in each; else one thread."""

    about = (
        f"Dramatiq {version('dramatiq')}: retries and results as the only middleware, JSON, results in Redis; "
        f"{adapter.PROCESSORS} processes of {_THREADS} threads where speed counts, else processes of one thread"
    )
    fastest = adapter.PROCESSORS

    def _command(self, workers: int) -> list[str]:
        threads = _THREADS if workers == self.fastest else 1
        return [
            adapter.command("dramatiq"), "--processes", str(workers), "--threads", str(threads),
            "benchmarks.peers.dramatiq",
        ]  # fmt: skip

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return _ACTORS[function].send(*arguments)

    def result(self, handle: Any, timeout_s: float) -> Any:
        return handle.get_result(block=True, timeout=int(1000 * timeout_s))
