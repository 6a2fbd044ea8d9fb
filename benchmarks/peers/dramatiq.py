"""Dramatiq, with Redis as broker and result backend."""

from __future__ import annotations

from importlib.metadata import version

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import Retries
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.peers.adapter import WORKERS as PROCESSES
from benchmarks.peers.adapter import command, redis_socket

_URL = f"unix://{redis_socket()}"
THREADS = 8

ABOUT = (
    f"Dramatiq {version('dramatiq')}: {PROCESSES} processes of {THREADS} threads, retries and results as the only "
    "middleware, JSON, results in Redis"
)
WORKERS = [
    command("dramatiq"), "--processes", str(PROCESSES), "--threads", str(THREADS), "benchmarks.peers.dramatiq",
]  # fmt: skip

broker = RedisBroker(url=_URL, middleware=[Retries(), Results(backend=RedisBackend(url=_URL), store_results=True)])
dramatiq.set_broker(broker)


@dramatiq.actor(actor_name="echo")
def echo(value: int) -> int:
    return value


def echo_all(tasks: int) -> None:
    messages = [echo.send(number) for number in range(tasks)]
    assert [message.get_result(block=True, timeout=60_000) for message in messages] == list(range(tasks))
