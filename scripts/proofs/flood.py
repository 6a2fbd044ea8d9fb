"""What the proof ``ageing`` floods a daemon with: CRITICAL calls from a process of its own, that never stops.

    python -m scripts.proofs.flood SOCKET WINDOW TASK_S

has so many calls under way at any time. It says so as its first ones have ended; how many have, once its input ends.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from poolmgr import Client, TaskFuture

ROOT: Final = Path(__file__).resolve().parents[2]
CRITICAL: Final = 0


class Flood:
    """So many clients, as a context manager. Entered, the flood is there; it goes on until ``stop``."""

    def __init__(self, socket: Path, clients: int, window: int, task_s: float) -> None:
        self._command = [sys.executable, "-m", "scripts.proofs.flood", str(socket), str(window), str(task_s)]
        self._clients = clients
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        for _ in range(self._clients):
            process = subprocess.Popen(
                self._command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
            )  # fmt: skip
            self._processes.append(process)
        for process in self._processes:
            _answer(process)
        return self

    def stop(self) -> int:
        """How many calls have been answered; no more come."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        return sum(_answer(process) for process in self._processes)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                stream.close()


def _answer(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"a client ended with exit code {process.wait()}"
    return int(json.loads(line))


def main(words: Sequence[str]) -> None:
    """One client."""
    socket, window, task_s = words
    stopped = threading.Event()
    threading.Thread(target=_wait_for_the_end, args=(stopped,), daemon=True).start()
    with Client(socket) as client:
        submit = client.using(priority=CRITICAL, durable=False).submit
        under_way: deque[TaskFuture[Any]] = deque(submit("rest", float(task_s)) for _ in range(int(window)))
        answered = 0
        while not stopped.is_set():
            under_way.popleft().result()
            under_way.append(submit("rest", float(task_s)))
            answered += 1
            if answered == 1:
                print(json.dumps(answered), flush=True)
        for future in under_way:
            future.result()
        print(json.dumps(answered + len(under_way)), flush=True)


def _wait_for_the_end(stopped: threading.Event) -> None:
    sys.stdin.read()
    stopped.set()


if __name__ == "__main__":
    main(sys.argv[1:])
