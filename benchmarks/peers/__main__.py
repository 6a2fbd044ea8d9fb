"""Serves one adapter: ``python -m benchmarks.peers MODULE DIRECTORY [durable]``, in that peer's environment.

Says what it is, as a line of JSON on standard output; then, for each line of standard input (the name of a measure and
its arguments), runs it and answers with its figures, or with what went wrong. At the end of its input it ends, and so
does every process that came of it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, Final, TextIO

from benchmarks import family

STOPPING_S: Final = 5.0
_TRACKERS: Final = ("multiprocessing.resource_tracker", "loky.backend.resource_tracker")


def main(module: str, directory: str, *durable: str) -> None:
    """Serve until standard input ends."""
    family.adopt_orphans()
    family.go_on_after_the_parent()
    # What libraries print is not an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    os.environ["BENCHMARK_DIRECTORY"] = directory
    adapter = None
    try:
        adapter_class = importlib.import_module(f"benchmarks.peers.{module}").Adapter
        adapter = adapter_class(Path(directory), durable=bool(durable))
        _say(answers, about=adapter.about, cannot=dict(adapter.cannot), fastest=adapter.fastest)
        for line in sys.stdin:
            _say(answers, **_measured(adapter, **json.loads(line)))
    except ImportError as error:
        _say(answers, missing=str(error))
    except BaseException:
        traceback.print_exc()
    finally:
        if adapter is not None:
            _stop(adapter)
        trackers = [sys.modules[name]._resource_tracker for name in _TRACKERS if name in sys.modules]
        family.end_all(spare=[each._pid for each in trackers if each._pid])
        for tracker in trackers:
            tracker._stop()  # which removes the semaphores of those that were killed
        family.end_all()
        os._exit(0)  # a library's own farewells may wait for what is gone


def _measured(adapter: Any, measure: str, **arguments: Any) -> dict[str, Any]:
    from benchmarks.peers.measures import MEASURES

    try:
        return MEASURES[measure](adapter, **arguments)
    except Exception as error:
        traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {error}".strip(": ")}


def _stop(adapter: Any) -> None:
    """Let it clean up, as long as that does not take long."""
    stopping = threading.Thread(target=adapter.stop, daemon=True)
    stopping.start()
    stopping.join(STOPPING_S)


def _say(answers: TextIO, **what: Any) -> None:
    print(json.dumps(what), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
