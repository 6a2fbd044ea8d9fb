"""The command ``poolmgr``.

Only what a command needs is imported: the answer to ``poolmgr status`` is in part a matter of imports.
"""

from __future__ import annotations

import gc
import time

began_at = time.monotonic()  # when the command was typed, but for the interpreter's own start


def main() -> int:
    """Run the command that ``sys.argv`` holds; its exit code."""
    gc.disable()  # imports make no garbage, and to look for some in them takes a tenth of their time
    from poolmgr.cli.root import run

    gc.enable()
    return run()
