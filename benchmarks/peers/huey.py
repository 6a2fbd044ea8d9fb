"""huey, on Redis."""

from __future__ import annotations

from importlib.metadata import version

from huey import RedisExpireHuey

from benchmarks.peers.adapter import command, redis_socket

# More than there are processors: Redis syncs once for all the commands that come together, so waiting ones help.
PROCESSES = 20

ABOUT = f"huey {version('huey')}: {PROCESSES} processes, no periodic tasks, pickle, results that expire in Redis"
WORKERS = [
    command("huey_consumer"), "benchmarks.peers.huey.app", "--workers", str(PROCESSES), "--worker-type", "process",
    "--no-periodic", "--delay", "0.01", "--quiet",
]  # fmt: skip

# Of its stores the one that does not delete each result when it is read: that would be one more sync a task.
app = RedisExpireHuey("benchmark", url=f"unix://{redis_socket()}", expire_time=3600)


@app.task(name="echo")
def echo(value: int) -> int:
    return value


def echo_all(tasks: int) -> None:
    results = [echo(number) for number in range(tasks)]
    assert [result.get(blocking=True, timeout=60, max_delay=0.01) for result in results] == list(range(tasks))
