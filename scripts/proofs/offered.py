"""What the proof ``overload`` offers a daemon: several clients, each in a process of its own, that submit at a pace.

    python -m scripts.proofs.offered SOCKET RELEASE KIND PER_S SECONDS TASK_S

says how many tasks it has offered, as a line of JSON, when its time is over; and, once the file RELEASE is there (which
makes the tasks that still wait short), what became of each.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from poolmgr import Client, PoolError, TaskFuture
from poolmgr.errors import QueueFull

ROOT: Final = Path(__file__).resolve().parents[2]
DURABLE: Final = "durable"
CALLS: Final = "calls"
CLIENTS: Final = 4
_TURN_S: Final = 0.002
_PATIENCE_S: Final = 120.0


class Offered(NamedTuple):
    """What became of tasks that were offered: ``refused`` are those for which the queue was full."""

    tasks: int
    completed: int
    refused: int
    otherwise: dict[str, int]  # any other end, by what it was: there should be none


class Clients:
    """So many clients that offer work together, as a context manager; entered, they begin."""

    def __init__(self, socket: Path, release: Path, kind: str, per_s: float, seconds: float, task_s: float) -> None:
        self._release = release
        words = [str(socket), str(release), kind, str(per_s / CLIENTS), str(seconds), str(task_s)]
        self._command = [sys.executable, "-m", "scripts.proofs.offered", *words]
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        for _ in range(CLIENTS):
            process = subprocess.Popen(self._command, cwd=ROOT, stdout=subprocess.PIPE, process_group=0)
            self._processes.append(process)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def begun(self) -> None:
        """Return when all of them have begun."""
        for each in self._processes:
            _answer(each)

    def offered(self) -> float:
        """Tasks a second, once their time is over."""
        return sum(float(_answer(each)) for each in self._processes)

    def ended(self) -> Offered:
        """What became of all tasks, once they have ended: those that still wait become short."""
        self._release.touch()
        found = [_answer(each) for each in self._processes]
        otherwise = sum((Counter(each["otherwise"]) for each in found), Counter[str]())
        tasks, completed, refused = (sum(each[key] for each in found) for key in ("tasks", "completed", "refused"))
        return Offered(tasks, completed, refused, dict(otherwise))


def _answer(process: subprocess.Popen[bytes]) -> Any:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"a client ended with exit code {process.wait()}"
    return json.loads(line)


def main(words: Sequence[str]) -> None:
    """One client."""
    socket, release, kind, per_s, seconds, task_s = words
    with Client(socket) as client:
        submit = client.using(durable=kind == DURABLE).submit
        client.status()
        print(json.dumps("begun"), flush=True)
        futures: list[TaskFuture[Any]] = []
        began = time.monotonic()
        while (gone_s := time.monotonic() - began) < float(seconds):
            due = int(gone_s * float(per_s)) - len(futures)
            futures += [submit("rest_unless", release, length_s) for length_s in lengths(due, float(task_s))]
            time.sleep(_TURN_S)
        print(json.dumps(len(futures) / gone_s), flush=True)
        while not os.path.exists(release):
            time.sleep(_TURN_S)
        ends = Counter(_end_of(future) for future in futures)
        completed, refused = ends.pop("completed", 0), ends.pop("refused", 0)
        print(json.dumps(Offered(len(futures), completed, refused, dict(ends))._asdict()), flush=True)


def lengths(tasks: int, mean_s: float) -> list[float]:
    """Of so many tasks, in seconds. They differ, or all workers would be free at the same time."""
    return [mean_s * (0.5 + random.random()) for _ in range(tasks)]


def _end_of(future: TaskFuture[Any]) -> str:
    """``completed``, ``refused``, or whatever else became of it. One that never ends is ``TimeoutError``."""
    try:
        future.result(_PATIENCE_S)
    except QueueFull:
        return "refused"
    except (PoolError, TimeoutError) as error:
        return type(error).__name__
    return "completed"


if __name__ == "__main__":
    main(sys.argv[1:])
