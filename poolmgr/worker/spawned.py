"""A worker of the app that was exec'd, not forked: ``start_method = "spawn"``.

To the manager it is an executable like any other that speaks docs/protocol.md; it begins with nothing of another
process, and imports the app by itself. For apps that cannot be forked.

Run as ``python -m poolmgr.worker.spawned PATH MODULE...`` with the descriptors and variables of execute.py. PATH is the
directory that is to lead ``sys.path``; or, separated by colons, all of it.
"""

from __future__ import annotations

import faulthandler
import os
import sys

from poolmgr.errors import AppError
from poolmgr.worker.app import load_app
from poolmgr.worker.built_in import BUILT_IN
from poolmgr.worker.channels import Channels
from poolmgr.worker.ending import run_and_exit
from poolmgr.worker.execute import CONTROL, PAGE, RESULTS, TASKS
from poolmgr.worker.main import Worker
from poolmgr.worker.output import Output, Writer
from poolmgr.worker.page import DUMP_SIGNAL
from poolmgr.worker.registry import registry
from poolmgr.worker.surroundings import Surroundings
from poolmgr.worker.template import name_process
from poolmgr.worker.warden import HEARTBEAT, WORKER


def main(path: str, *modules: str) -> int:
    """Be a worker until the task pipe is closed; the exit code."""
    worker = os.environ[WORKER].partition(".")[0]
    name_process(worker)
    for fd in (TASKS, RESULTS, CONTROL, PAGE):
        os.set_inheritable(fd, False)
    os.set_blocking(CONTROL, True)
    faulthandler.enable(PAGE)
    faulthandler.register(DUMP_SIGNAL, PAGE, chain=True)  # chained to the default action: death
    writer = Writer()
    sys.stdout, sys.stderr = Output(1, writer), Output(2, writer)
    runner = Worker(registry.handlers, writer)
    runner.live(worker, Channels(TASKS, RESULTS, CONTROL, PAGE, 1, 2), float(os.environ[HEARTBEAT]))
    try:
        directory, *more = path.split(os.pathsep)
        app = load_app([*modules], directory, [directory, *more] if more else None)
    except AppError as error:
        runner.broken(str(error))
        return 1
    app.handlers.update(BUILT_IN)
    runner.begin(app.startup_hooks, Surroundings())
    runner.serve()
    return 0


if __name__ == "__main__":
    run_and_exit(lambda: main(*sys.argv[1:]))
