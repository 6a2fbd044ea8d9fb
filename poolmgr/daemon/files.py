"""How many files a daemon may have open: five a worker, one a client."""

from __future__ import annotations

import resource

ENOUGH = 65_536  # as many as the systemd units allow it


def allow_files() -> None:
    """Where the soft limit is lower than that, as the usual 1,024 are, raise it as far as the hard one allows.

    Workers inherit it, whichever template they come from. The hard limit, which is the real one, stays.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(ENOUGH, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
