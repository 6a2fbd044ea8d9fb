"""Celery, with Redis as broker and result backend."""

from __future__ import annotations

import celery
from celery.result import ResultSet

from benchmarks.peers.adapter import WORKERS as PROCESSES
from benchmarks.peers.adapter import command, redis_socket

_URL = f"redis+socket://{redis_socket()}"

ABOUT = (
    f"Celery {celery.__version__}: prefork, {PROCESSES} processes, prefetch 128 each, no events, JSON, results in Redis"
)
WORKERS = [
    command("celery"), "--app", "benchmarks.peers.celery", "worker", "--pool", "prefork",
    "--concurrency", str(PROCESSES), "--prefetch-multiplier", "128", "--without-gossip", "--without-mingle",
    "--without-heartbeat", "--loglevel", "ERROR",
]  # fmt: skip

app = celery.Celery("benchmark", broker=_URL, backend=_URL)
app.conf.update(result_expires=3600, worker_send_task_events=False, broker_connection_retry_on_startup=True)


@app.task(name="echo")
def echo(value: int) -> int:
    return value


def echo_all(tasks: int) -> None:
    results = ResultSet([echo.delay(number) for number in range(tasks)], app=app)
    assert results.join_native() == list(range(tasks))
