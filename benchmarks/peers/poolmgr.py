"""poolmgr: a daemon, started by the command that its users type, and one client."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from benchmarks.peers import adapter, tasks
from poolmgr import Client, Executor
from poolmgr.version import __version__, is_compiled


class Adapter(adapter.PeerAdapter):
    """Its own defaults, whatever the environment says: 20 workers, synchronous FULL."""

    about = (
        f"poolmgr {__version__}{', compiled' if is_compiled() else ''}: its defaults. Not durable: map, run and "
        "using(durable=False).submit; chunks by Executor.map. Durable: submit, on SQLite at synchronous=FULL"
    )

    def _start(self, workers: int) -> None:
        self._command("start", "--app", "benchmarks.peers.poolmgr_app", "--workers", str(workers))

    def _command(self, *arguments: str) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("POOLMGR_")}
        where = {
            "POOLMGR_SOCKET": str(self.directory / "poolmgr.sock"),
            "POOLMGR_STATE_DIR": str(self.directory / "state"),
        }
        subprocess.run(
            [adapter.command("poolmgr"), *arguments], env=environ | where, check=True, stdin=subprocess.DEVNULL
        )

    def stop(self) -> None:
        if self.workers:
            self._command("stop", "--now")

    @cached_property
    def _client(self) -> Client:
        return Client(str(self.directory / "poolmgr.sock"))

    @cached_property
    def _submit(self) -> Callable[..., Any]:
        return self._client.using(durable=self.durable).submit

    @cached_property
    def _executor(self) -> Executor:
        return Executor(client=self._client)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._submit(function.__name__, *arguments)

    def result(self, handle: Any, timeout_s: float) -> Any:
        return handle.result(timeout_s)

    def flush(self) -> None:
        self._client.flush()

    def map(self, values: Sequence[Any]) -> list[Any]:
        return list(self._client.map("echo", values))

    def map_chunked(self, values: Sequence[Any], size: int) -> list[Any]:
        return list(self._executor.map(tasks.echo, values, chunksize=size))

    def call(self, value: Any) -> Any:
        return self._submit("echo", value).result() if self.durable else self._client.run("echo", value)
