"""Whatever a task does costs that task alone: its worker is back at once, and nobody else notices.

Each case (hostile_cases.py) is one task that does what no task should. Beside it other tasks run. It must come to a
clear end of its own; then 100 no-ops must pass within 5 s of the case's own limit, those other tasks must have
completed in their first attempt, every task must find its process as it was before all cases, clients must be able to
part, and nothing may be left: no process, no file in the daemon, no file on disk.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

from poolmgr import Client, Executor, PoolError
from scripts.proofs.hostile_cases import Case, all_cases
from scripts.proofs.pool import Pool, until
from scripts.proofs.report import Report

WORKERS = 4
NOOPS = 100
BYSTANDERS = 4
PATIENCE_S = 5.0  # for the no-ops, beyond the case's own limit
PARTING_S = 1.0
GONE_S = 10.0  # what is left by then is left
ROOT = Path(__file__).resolve().parents[2]  # the app is to have one name here and there


class End(NamedTuple):
    """What came of a case: a code ('' for a result), the result, and what was said."""

    code: str
    value: Any = None
    text: str = ""


Runner = Callable[[Client, Case], End]


def through_submit(client: Client, case: Case) -> End:
    """Run the case as a registered handler."""
    options = {"max_retries": 0, "durable": False, **case.options}
    return _end_of(client.using(**options).submit(case.handler, *case.args))


def through_executor(client: Client, case: Case) -> End:
    """Run the case as a call of a pickled function. What it raises comes back as itself."""
    with Executor(client=client.using(**case.options)) as executor:
        return _end_of(executor.submit(case.handler, *case.args))


def _end_of(future: Future[Any]) -> End:
    try:
        error = future.exception(timeout=60)
    except PoolError as cancelled:
        error = cancelled
    if error is None:
        return End("", future.result())
    return End(error.code if isinstance(error, PoolError) else "task_failed", None, f"{type(error).__name__}")


RUNNERS: dict[str, Runner] = {"submit": through_submit, "Executor": through_executor}


class Verdict(NamedTuple):
    """What was found wrong with one case, in words; how long until the no-ops had passed; how long parting took."""

    wrong: list[str]
    passed_s: float
    parting_s: float


def prove(scale: float) -> Report:
    """Run all cases, or at a smaller scale so many of them, evenly chosen, through each way to run a task."""
    report = Report("hostile")
    cases = all_cases()
    chosen = cases[:: max(1, round(1 / scale))]
    for name, runner in RUNNERS.items():
        report.note(f"through {name}:")
        _run_all(report, runner, chosen, at_least=60 if scale >= 1 else 1)
    return report


def _run_all(report: Report, runner: Runner, cases: list[Case], at_least: int) -> None:
    late, slow, wrong = 0, 0.0, 0
    with tempfile.TemporaryDirectory(prefix="poolmgr-") as directory:
        scratch = Path(directory) / "tmp"
        scratch.mkdir()
        pool = Pool(
            Path(directory), app="scripts.proofs.hostile_tasks", app_directory=ROOT, workers=WORKERS,
            zombie_after_s=1.5, heartbeat_interval_s=0.3, breaker_failures=0,
        )  # fmt: skip
        pool.environ["TMPDIR"] = str(scratch)
        with pool:
            arena = Arena(pool, scratch)
            for case in cases:
                verdict = arena.run(runner, case)
                for each in verdict.wrong:
                    report.note(f"{case.name}: {each}")
                wrong += bool(verdict.wrong)
                late += verdict.passed_s > case.limit_s + PATIENCE_S
                slow = max(slow, verdict.parting_s)
    report.figure("cases", len(cases), at_least=at_least)
    report.figure("with another end, or a trace left", wrong, at_most=0)
    report.figure(f"where {NOOPS} no-ops took over {PATIENCE_S:g} s more", late, at_most=0)
    report.figure("slowest parting of a client", slow, "s", at_most=PARTING_S)


class Arena:
    """One pool in which case after case is run."""

    def __init__(self, pool: Pool, scratch: Path) -> None:
        self._pool = pool
        self._scratch = scratch
        self._before = self._found()
        until(lambda: len(pool.crew()) == WORKERS + 2, "the pool is complete")
        self._files = pool.open_files()

    def run(self, runner: Runner, case: Case) -> Verdict:
        """Run one case, and look for what it has done to others."""
        wrong: list[str] = []
        client = self._pool.client()
        began = time.monotonic()
        beside = [client.using(durable=False).submit("bystander", 0.1 * (1 + number)) for number in range(BYSTANDERS)]
        try:
            end = runner(client, case)
            expected = case.ends if runner is through_submit else (*case.ends, *case.pickled)
            completes = not case.ends or case.returns is not None
            if end.code not in expected and not (completes and end[:2] == ("", case.returns)):
                wrong.append(f"it ended as {end.code or 'completed'}: {end.value!r:.200} {end.text}")
        except Exception as error:
            wrong.append(f"the client raised {error!r:.200}")
        passed_s = self._noops(client, began, wrong)
        for future in beside:
            try:
                if future.result(timeout=10) != 1:
                    wrong.append("a bystander was run again")
            except (PoolError, TimeoutError) as error:
                wrong.append(f"a bystander ended as {error!r:.200}")
        client.purge()
        parting = time.monotonic()
        client.close()
        parting_s = time.monotonic() - parting
        wrong.extend(self._left())
        return Verdict(wrong, passed_s, parting_s)

    def _noops(self, client: Client, began: float, wrong: list[str]) -> float:
        try:
            if list(client.map("noop", range(NOOPS))) != list(range(NOOPS)):
                wrong.append("a no-op returned something else")
        except PoolError as error:
            wrong.append(f"a no-op ended as {error.code}: {error!s:.200}")
        return time.monotonic() - began

    def _left(self) -> list[str]:
        """What there is now that was not there before."""
        try:
            until(self._is_as_before, "it is as it was", GONE_S)
        except AssertionError:
            found = [
                f"processes: {self._strangers()}",
                f"files of the daemon: {self._pool.open_files()}, of {self._files}",
                f"files in the temporary directory: {os.listdir(self._scratch)}",
            ]
            for pid in self._strangers():
                os.kill(pid, signal.SIGKILL)  # the next case is not to be blamed for it
            return ["; ".join(found)]
        try:
            found_now = self._found()
        except AssertionError as error:
            return [f"a worker is not back: {error}"]
        return [
            f"{name} is {found_now[name]!r:.300}, was {value!r:.300}"
            for name, value in self._before.items()
            if found_now[name] != value
        ]

    def _strangers(self) -> list[int]:
        """Processes that are neither the daemon nor its template nor a worker."""
        with self._pool.client() as client:
            known = {self._pool.pid, self._pool.template(), *(worker.pid for worker in client.workers())}
        return sorted(set(self._pool.crew()) - known)

    def _is_as_before(self) -> bool:
        pool = self._pool
        return pool.open_files() <= self._files and len(pool.crew()) == WORKERS + 2 and not os.listdir(self._scratch)

    def _found(self) -> dict[str, Any]:
        """What tasks find in their processes now, each worker asked; where two differ, the difference."""
        with self._pool.client() as client:
            until(lambda: [worker.state for worker in client.workers()] == ["ready"] * WORKERS, "all are ready")
            calls = client.using(durable=False)
            for future in [calls.submit("in_a_loop", number) for number in range(WORKERS)]:
                future.result(timeout=10)
            answers = [calls.submit("surroundings") for _ in range(3 * WORKERS)]
            found: list[dict[str, Any]] = [answer.result(timeout=10) for answer in answers]
        return {name: value if all(each[name] == value for each in found) else [each[name] for each in found]
                for name, value in found[0].items()}  # fmt: skip
