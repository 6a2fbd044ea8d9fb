"""The demo: 20 warm workers read all of Python's standard library; one of them is killed, and nobody else notices.

scripts/demo                                          makes the environment, then runs this
python examples/demo.py --workers 4 --modules 200     a smaller one
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from concurrent.futures import Future, as_completed
from dataclasses import dataclass
from pathlib import Path

import psutil
from code_metrics import ModuleMetrics, measure
from private_daemon import private_daemon

from poolmgr import Client, TaskFailed
from poolmgr.model import WorkerInfo

LIBRARY = Path(sysconfig.get_path("stdlib"))
NOT_OURS = {"site-packages", "dist-packages"}  # what was installed later
TOP = 10


def main() -> int:
    options = _options()
    for number in (signal.SIGTERM, signal.SIGHUP):  # end in order, as after Ctrl-C
        signal.signal(number, signal.default_int_handler)
    household: list[psutil.Process] = []
    try:
        _show(options.workers, _modules(options.modules), household)
    except KeyboardInterrupt:
        print("\n\nInterrupted.")
        _check_nothing_is_left(household)
        return 130
    return 0 if _check_nothing_is_left(household) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Shows poolmgr at work on the standard library of this Python.")
    parser.add_argument("--workers", type=int, default=20, help="size of the pool (default: 20)")
    parser.add_argument("--modules", type=int, help="only so many modules (default: all)")
    return parser.parse_args()


def _modules(limit: int | None) -> list[Path]:
    found = sorted(path for path in LIBRARY.rglob("*.py") if not NOT_OURS & set(path.parts))
    return found[:: max(1, len(found) // limit)][:limit] if limit else found


def _show(workers: int, modules: list[Path], household: list[psutil.Process]) -> None:
    """All of it. Every process that the daemon has made is noted in ``household``."""
    _say(f"Starting a daemon with {workers} workers: a private socket, a temporary directory.")
    began = time.perf_counter()
    with private_daemon(app="code_metrics", workers=workers) as socket, Client(socket) as pool:
        print(f"Ready after {time.perf_counter() - began:.2f} s.")
        daemon = psutil.Process(pool.status()["pid"])
        household += [daemon, *daemon.children(recursive=True)]

        _say(f"Handing over {len(modules):,} durable tasks, one for each module in\n{LIBRARY}.")
        measured, unreadable = _measure(pool, modules)
        household += [each for each in daemon.children(recursive=True) if each not in household]

        _say(f"The {TOP} modules with the most branches:\n")
        _print_top(measured)
        if unreadable:
            print(f"\nNo Python of this version: {unreadable}. The library has such files for its own tests.")
            print("Their tasks are dead letters now, kept with their errors (`poolmgr dlq list`).")

        _say("This is what `poolmgr status` says:\n")
        environ = {**os.environ, "POOLMGR_SOCKET": socket}
        subprocess.run([sys.executable, "-m", "poolmgr", "status"], env=environ, check=True)
        _say("Stopping the daemon.")


def _measure(pool: Client, modules: list[Path]) -> tuple[dict[Path, ModuleMetrics], int]:
    """Each module's metrics, and how many could not be parsed. In the middle, a worker is killed."""
    measured: dict[Path, ModuleMetrics] = {}
    unreadable = 0
    kill: Kill | None = None
    progress = Progress(len(modules))
    tasks = [(pool.submit(measure, str(path)), path) for path in modules]
    path_by_id = {future.id: path for future, path in tasks}
    path_of: dict[Future[ModuleMetrics], Path] = dict(tasks)
    for done, future in enumerate(as_completed(path_of), 1):
        try:
            measured[path_of[future]] = future.result()
        except TaskFailed as error:
            if error.type not in ("SyntaxError", "ValueError"):
                raise
            unreadable += 1
        progress.show(done)
        if kill is None and done >= len(modules) // 2:
            kill = _kill_a_busy_worker(pool, path_by_id)
            if kill is not None:
                progress.interrupt(kill.report())
    progress.end()
    print(kill.consequences(pool) if kill is not None else "No worker was met in the middle of a task.")
    return measured, unreadable


# ------------------------------------------------------------------------------------------------ the kill


@dataclass
class Kill:
    """A worker that was killed while it ran a task, and its successor."""

    killed: WorkerInfo
    successor: WorkerInfo
    replaced_s: float
    task_id: str
    path: Path
    others: dict[str, int | None]  # the pid of each other worker, at that moment

    def report(self) -> str:
        return (
            f"\n  kill -9 {self.killed.pid}: {self.killed.id} is dead, in the middle of "
            f"{self.path.relative_to(LIBRARY)}.\n"
            f"  Its slot is ready again after {self.replaced_s * 1000:.0f} ms, with {os.cpu_count()} cores all busy: "
            f"pid {self.successor.pid}, forked from the warm template.\n"
        )

    def consequences(self, pool: Client) -> str:
        """What had become of the task and of the other workers when all was done."""
        task = pool.task(self.task_id)
        unchanged = sum(self.others.get(worker.id) == worker.pid for worker in pool.workers())
        return (
            f"The killed worker's task: {task.state} at attempt {task.attempt}, "
            f"after {task.attempts[0].cause} at attempt {task.attempts[0].attempt}.\n"
            f"The other workers: {unchanged} of {len(self.others)} are still the same processes."
        )


def _kill_a_busy_worker(pool: Client, paths: dict[str, Path]) -> Kill | None:
    """Kill the worker that runs the largest module (``paths`` by task id). None: its task had just ended."""
    workers = pool.workers()
    running = {worker.id: paths[worker.current_task] for worker in workers if worker.current_task in paths}
    if not running:
        return None
    killed = next(each for each in workers if each.id == max(running, key=lambda id: running[id].stat().st_size))
    if killed.pid is None or killed.current_task is None:
        return None
    with pool.events("worker-started") as events:
        killed_at = time.time()
        os.kill(killed.pid, signal.SIGKILL)
        started = next(event for event in events if event.fields["worker_id"] == killed.id)
    if not any(attempt.cause == "worker_died" for attempt in pool.task(killed.current_task).attempts):
        return None
    return Kill(
        killed=killed,
        successor=pool.worker(killed.id),
        replaced_s=started.at - killed_at,
        task_id=killed.current_task,
        path=running[killed.id],
        others={worker.id: worker.pid for worker in workers if worker is not killed},
    )


# ------------------------------------------------------------------------------------------------ what is printed


class Progress:
    """A bar that moves on a terminal. Elsewhere, as in a log, a line for each tenth."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._live = sys.stdout.isatty()
        self._step = max(1, total // (200 if self._live else 10))
        self._width = max(10, min(50, shutil.get_terminal_size().columns - 24))
        self._began = time.perf_counter()
        self._shown = 0

    def show(self, done: int) -> None:
        if done < self._total and done - self._shown < self._step:
            return
        self._shown = done
        full = self._width * done // self._total
        line = f"  [{'#' * full}{'.' * (self._width - full)}] {done:,} of {self._total:,}"
        print(f"\r{line}" if self._live else line, end="" if self._live else "\n", flush=True)

    def interrupt(self, text: str) -> None:
        """Print something between two states of the bar."""
        print(f"\n{text}" if self._live else text, flush=True)

    def end(self) -> None:
        took = time.perf_counter() - self._began
        if self._live:
            print()
        print(f"\nDone in {took:.1f} s, {self._total / took:,.0f} modules a second.")


def _print_top(measured: dict[Path, ModuleMetrics]) -> None:
    print(f"  branches functions classes  lines  {'module':24}  longest function")
    for path in sorted(measured, key=lambda path: -measured[path].branches)[:TOP]:
        found = measured[path]
        module = str(path.relative_to(LIBRARY))
        print(
            f"  {found.branches:>8,} {found.functions:>9,} {found.classes:>7,} {found.lines:>6,}  "
            f"{module if len(module) <= 24 else '..' + module[-22:]:24}  {found.longest[:14]} ({found.longest_lines})"
        )


def _check_nothing_is_left(household: list[psutil.Process]) -> bool:
    if not household:
        return True  # it never came to life
    _, alive = psutil.wait_procs(household, timeout=5)
    if alive:
        print(f"STILL THERE: {', '.join(map(str, alive))}")
    else:
        print(f"Nothing is left behind: the daemon, its template, its workers ({len(household)} processes) are gone.")
    return not alive


def _say(text: str) -> None:
    print(f"\n{text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
