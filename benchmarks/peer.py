"""One peer, in its own environment: its workers and its client, asked for rounds from here."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("celery", "dramatiq", "huey")


def make_environment() -> None:
    """See that the peers and Redis are installed. Raises ``subprocess.CalledProcessError``, after it has said why."""
    subprocess.run([ROOT / "benchmarks" / "env"], check=True)


class Peer:
    """A peer's adapter, as a context manager: entered, its workers have run a task.

    Attributes:
        about: its version and its settings, once it is entered.
    """

    def __init__(self, name: str, redis_socket: Path, directory: Path) -> None:
        self.name = name
        self.about = ""
        self._log = directory / f"{name}.log"
        self._environ = {**os.environ, "BENCHMARK_REDIS": str(redis_socket)}
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        python = ROOT / ".venv-peers" / "bin" / "python"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.peers.adapter", self.name],
                cwd=ROOT,
                env=self._environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.about = self._answer()["about"]
        return self

    def round(self, tasks: int) -> float:
        """Seconds from the first submit of so many no-op tasks to the last of their results."""
        assert self._process is not None
        assert self._process.stdin is not None
        print(tasks, file=self._process.stdin, flush=True)
        return float(self._answer()["seconds"])

    def _answer(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise RuntimeError(f"{self.name} failed\n{self._log.read_text()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.communicate()  # the end of its input is the end of it
