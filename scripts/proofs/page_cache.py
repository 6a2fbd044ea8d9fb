"""Page cache is not use: nine tenths of a memory are filled with it, and nothing is held, shed or preempted.

The memory is that of a control group, where one can be made: that is quick, and disturbs nobody. Else it is the whole
machine's, and needs as much room on the disk. Afterwards a program allocates as much for itself, and that is seen.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from poolmgr.model import LOW_LEAST
from scripts.proofs.ballast import Ballast
from scripts.proofs.heard import Heard
from scripts.proofs.memory_group import ground
from scripts.proofs.pool import Pool, until
from scripts.proofs.report import Report

LIMIT_MB = 2048
LEAST_MB = 384
FILLED = 90.0  # percent
CONTROL = 75.0  # percent that are really used, afterwards


def prove(scale: float) -> Report:
    """``page-cache``: 90 % of the memory filled with files, no event; then 75 % used, and there is one."""
    report = Report("page-cache")
    with tempfile.TemporaryDirectory(prefix="pm-") as name, ground(max(LEAST_MB, int(LIMIT_MB * scale))) as here:
        where = "a control group" if here.group is not None else "the machine"
        report.note(f"{where} of {here.total_mb:,} MB, 3 workers")
        directory, files = Path(name), Path(name) / "files"
        files.mkdir()
        if shutil.disk_usage(directory).free < 1.5 * (here.total_mb << 20):
            report.skip("room on the disk for files of that size")
            return report
        pool = Pool(directory, app="pressure_tasks", workers=3, worker_memory_limit_mb=0)
        pool.command = here.command(pool.command)
        with pool, pool.client() as client, pool.client() as listening:
            heard = Heard(listening, "memory-pressure", "task-preempted", "tasks-shed")
            before = here.in_use().percent
            reading = client.submit("read_files", str(files), here.total_mb)
            filled, used, shown, low = 0.0, 0.0, set(), 0
            while not reading.done():
                filled, used = max(filled, here.filled()), max(used, here.in_use().percent)
                memory = client.status()["memory"]
                shown.add(memory["level"])
                assert client.using(priority=LOW_LEAST, sheddable=True).submit("echo", low).result(timeout=60) == low
                low += 1
            reading.result()
            report.figure("in use before", before, "%")
            report.figure("filled, page cache included", filled, "%", at_least=FILLED)
            report.figure("in use then, at most", used, "%", at_most=60.0)
            report.figure("LOW sheddable tasks that ran meanwhile", low, at_least=1)
            report.figure("levels seen", len(shown - {"normal"}), "not normal", at_most=0)
            report.figure("events of pressure", len(heard.events), at_most=0)
            with Ballast(here) as ballast:
                ballast.fill_to(CONTROL)
                until(lambda: heard.of("memory-pressure"), "it is seen", timeout_s=30)
            report.figure(
                "the same, really used: level seen", heard.of("memory-pressure")[0].fields["percent"], "%", at_least=70
            )
    return report
