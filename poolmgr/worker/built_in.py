"""The one handler that every worker has, whatever its app: a call of a pickled callable (wire/pickled.py).

What it needs is imported with the first call: a worker that serves an app's handlers alone never pays for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from poolmgr.model import check_options
from poolmgr.wire.pickled import CALL
from poolmgr.worker.registry import Handler


def _call(*arguments: Any) -> list[Any]:
    global _imported
    if _imported is None:
        from poolmgr.worker.calls import call

        _imported = call
    return _imported(*arguments)


_imported: Callable[..., list[Any]] | None = None  # the import statement itself would cost each call a microsecond

# Never tried again, and never begun a second time, whatever happens to its worker.
_OPTIONS = check_options({"durable": False, "restartable": False, "max_retries": 0, "timeout_s": None})

BUILT_IN = {CALL: Handler(CALL, _call, _OPTIONS, writable=True)}
