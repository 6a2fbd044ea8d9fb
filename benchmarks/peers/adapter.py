"""What every peer is asked, and the loop that asks it: ``python -m benchmarks.peers.adapter NAME``.

An adapter is a module in this folder with

    ABOUT: str                       its version, and the settings that it runs with
    WORKERS: list[str]               the command that starts its workers; they import the same module
    def echo_all(tasks: int) -> None submit so many no-op tasks, one by one, and have the result of each

Redis is on the Unix socket $BENCHMARK_REDIS. For each line of stdin, a number of tasks, one round is run and its
duration written to stdout, as JSON; at the end of stdin the workers are ended.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

_PATIENCE_S = 10.0
WORKERS = os.cpu_count() or 1


def redis_socket() -> str:
    """The path of the socket that Redis is on."""
    return os.environ["BENCHMARK_REDIS"]


def command(name: str) -> str:
    """The path of a command of the environment that this runs in."""
    return os.path.join(os.path.dirname(sys.executable), name)


def _say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def main(name: str) -> None:
    """Serve rounds of the peer ``name`` until stdin ends."""
    adapter = importlib.import_module(f"benchmarks.peers.{name}")
    workers = subprocess.Popen(adapter.WORKERS, stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True)
    try:
        adapter.echo_all(100)  # returns when they run
        _say(about=adapter.ABOUT)
        for line in sys.stdin:
            began = time.perf_counter()
            adapter.echo_all(int(line))
            _say(seconds=time.perf_counter() - began)
    finally:
        workers.terminate()
        try:
            workers.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(workers.pid, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])
