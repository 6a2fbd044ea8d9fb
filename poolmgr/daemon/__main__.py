"""What ``launch`` execs: detach, then be the daemon."""

from __future__ import annotations

import json
import os
import sys
from typing import IO

from daemon import DaemonContext

from poolmgr.config import Settings, state_dir
from poolmgr.daemon.launch import LOG_FILE, Reporter, Request
from poolmgr.daemon.pid_file import LOOK_AT_MODES
from poolmgr.errors import PoolError, StartFailed


def main(fd: str, request: str) -> int:
    """Start the daemon that ``request`` (JSON of a ``Request``) asks for and report on the pipe ``fd``."""
    reporter = Reporter(int(fd))
    try:
        return _detached(Request(*json.loads(request)), reporter)
    except PoolError as error:
        reporter.failed(error)
        return 1
    except Exception:
        import traceback

        trace = traceback.format_exc()
        print(trace, file=sys.stderr)  # noqa: T201 - standard error is the log by now
        reporter.failed(StartFailed(f"a defect in poolmgr:\n{trace}"))
        return 1


def _detached(request: Request, reporter: Reporter) -> int:
    def read() -> Settings:
        return Settings.load(file=request.file, flags=request.flags)

    settings = read()
    log = os.path.join(state_dir(settings), LOG_FILE)
    with _opened(log) as stream:
        DaemonContext(
            working_directory=os.getcwd(),  # it leads the app's sys.path
            umask=0o077,
            detach_process=True,
            prevent_core=False,  # whether workers dump core is the user's choice (ulimit -c)
            files_preserve=[reporter.fd],
            stdout=stream,
            stderr=stream,
            signal_map={},
        ).open()
    reporter.detached(log)

    # Imported by the process that stays, while its launcher already waits.
    from poolmgr.daemon.log import log_to_file
    from poolmgr.daemon.run import run

    log_to_file(log)
    return run(settings, reread=read, ready=reporter.ready)


def _opened(log: str) -> IO[str]:
    try:
        return open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a")
    except OSError as error:
        raise StartFailed(f"{log} cannot be written ({error.strerror}): {LOOK_AT_MODES}") from None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
