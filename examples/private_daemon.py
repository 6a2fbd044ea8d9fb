"""A daemon of an example's own: private socket, temporary directory, gone when the block is left.

A real program needs none of this. It uses the daemon that ``poolmgr start`` or systemd has started.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent  # leads the daemon's import path, so an app is a module beside this file


@contextmanager
def private_daemon(app: str, *, workers: int = 4, **settings: object) -> Iterator[str]:
    """Start ``poolmgr`` with the handlers of the module ``app``; yields its socket once all workers are ready.

    ``settings`` are those of docs/reference/settings.md. Raises SystemExit, with the daemon's words, if it fails.
    """
    # Ctrl-C has to wait for the `try`: before it, nobody would stop the daemon.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    with TemporaryDirectory(prefix="poolmgr-") as directory:
        socket, log = f"{directory}/poolmgr.sock", Path(directory, "log")
        environ = {name: value for name, value in os.environ.items() if not name.startswith("POOLMGR_")}
        chosen = {"app": app, "pool_size": workers, "socket": socket, "state_dir": f"{directory}/state", **settings}
        environ |= {f"POOLMGR_{name.upper()}": str(value) for name, value in chosen.items()}
        with log.open("w") as stderr:
            daemon = subprocess.Popen(
                [sys.executable, "-m", "poolmgr", "start", "--foreground", "--json"], cwd=HERE, env=environ,
                stdout=subprocess.PIPE, stderr=stderr, start_new_session=True,
                preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, mask),
            )  # fmt: skip
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            assert daemon.stdout is not None
            if not daemon.stdout.readline():  # it writes one line, when it is ready
                raise SystemExit(f"the daemon did not start:\n{log.read_text()}")
            yield socket
        finally:
            daemon.terminate()  # it lets running tasks finish, and takes its workers along
            daemon.communicate()
