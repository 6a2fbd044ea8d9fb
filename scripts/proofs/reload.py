"""New code is loaded under load: no task fails for it, and code that does not come up is refused.

20 workers run tasks of 5 to 20 ms, while the app is rewritten and reloaded 20 times. After each reload every worker
must have the new code. In between, versions whose import or whose startup hook fails must be refused with their
traceback, and the version before must go on.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

from poolmgr import Client
from poolmgr.errors import ReloadFailed
from scripts.proofs.kills import Load
from scripts.proofs.pool import Pool, until
from scripts.proofs.report import Report

RELOADS = 20
WORKERS = 20
BROKEN = 4  # every so many reloads, two versions that do not come up are tried

APP = """
import os
import time

from poolmgr import task, worker_startup

VERSION = {version}

@task(retry_backoff_s=0.01)
def square_slowly(number, seconds):
    time.sleep(seconds)
    return number * number

@task
def version():
    return os.getpid(), VERSION
"""
BAD_IMPORT = "import no_such_module_anywhere\n"
BAD_HOOK = """
@worker_startup
def connect():
    raise OSError("the database is not there")
"""


def prove(scale: float) -> Report:
    """Reload ``scale`` times 20 times."""
    report = Report("reload")
    reloads = max(2, round(RELOADS * scale))
    with tempfile.TemporaryDirectory(prefix="poolmgr-") as directory:
        app = App(Path(directory))
        app.write(1)
        pool = Pool(Path(directory), app="versioned", app_directory=app.directory, workers=WORKERS)
        # Versions of one length, written in one second, are one to Python's cache of compiled modules.
        pool.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        with pool, pool.client() as client:
            load = Load(pool)
            took_s, old, refused, tried = [], 0, 0, 0
            for number in range(2, reloads + 2):
                if number % BROKEN == 2:
                    refused += sum(app.is_refused(client, number, *broken) for broken in BROKEN_VERSIONS)
                    tried += len(BROKEN_VERSIONS)
                    old += app.processes_without(client, number - 1)
                app.write(number)
                began = time.monotonic()
                client.reload()
                took_s.append(time.monotonic() - began)
                old += app.processes_without(client, number)
            ends = Counter(load.finish().values())
            until(lambda: len(pool.children()) == WORKERS + 1, "the old templates are gone")
            failed = client.metrics()["tasks"]["failed_attempts"]
    report.figure("reloads", len(took_s), at_least=reloads)
    report.figure("tasks", ends.total(), at_least=1)
    report.figure("of them failed, or with a wrong result", ends.total() - ends["right"], at_most=0)
    report.figure("attempts that failed", failed, at_most=0)
    report.figure("answers by other code than the latest", old, at_most=0)
    report.figure("broken versions", tried)
    report.figure("of them refused, with their traceback", refused, at_least=tried)
    report.figure("a reload, median", statistics.median(took_s), "s")
    report.figure("a reload, longest", max(took_s), "s")
    return report


BROKEN_VERSIONS = (
    (BAD_IMPORT, "No module named 'no_such_module_anywhere'"),
    (BAD_HOOK, "OSError: the database is not there"),
)


class App:
    """The module ``versioned``, rewritten again and again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "app"
        self.directory.mkdir()

    def write(self, version: int, more: str = "") -> None:
        """A new version, in one step: whoever imports it meanwhile has the old or the new one."""
        new = self.directory / "versioned.new"
        new.write_text(APP.format(version=version) + more)
        new.rename(self.directory / "versioned.py")

    def is_refused(self, client: Client, version: int, more: str, reason: str) -> bool:
        """Whether a version with ``more`` is refused, and the reason told with a traceback."""
        self.write(version, more)
        try:
            client.reload()
        except ReloadFailed as error:
            return "Traceback (most recent call last)" in str(error) and reason in str(error)
        return False

    def processes_without(self, client: Client, version: int) -> int:
        """Of the answers of every worker, how many tell another version."""
        pids = {worker.pid for worker in client.workers()}
        wrong = 0

        def all_have_answered() -> bool:
            nonlocal wrong
            for future in [client.using(durable=False, priority=0).submit("version") for _ in range(WORKERS)]:
                pid, found = future.result(timeout=30)
                pids.discard(pid)
                wrong += found != version
            return not pids

        until(all_have_answered, "every worker has told its version", timeout_s=30)
        return wrong
