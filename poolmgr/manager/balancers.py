"""The balancer that the settings name."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from poolmgr.core.balancer import BALANCERS, Affine, Balancer
from poolmgr.core.slot import Slot
from poolmgr.core.task import Task
from poolmgr.errors import ConfigError

_log = logging.getLogger(__name__)


class Guarded:
    """A balancer of the user's, whose mistakes cost the pool no more than its opinion.

    Where it raises, or chooses none of the candidates, the task goes to the one that waits longest. The first mistake
    is logged; there may be one for each task.
    """

    def __init__(self, name: str, custom: Balancer) -> None:
        self._name = name
        self._custom = custom
        self._told = False

    def choose(self, task: Task, candidates: Sequence[Slot]) -> Slot:
        candidates = list(candidates)
        try:
            chosen = self._custom.choose(task, candidates)
            if chosen in candidates:
                return chosen
            raise ValueError(f"choose() returned {chosen!r}, which is none of its candidates")
        except Exception:
            if not self._told:
                self._told = True
                _log.exception("load_balancing: %s makes mistakes, and is overruled; the first of them:", self._name)
        return candidates[0]


def load_balancer(name: str) -> Balancer:
    """``most-recent``, ``round-robin``, ``least-loaded``, or a class of one's own as ``module:Class``: one by the
    protocol of core/balancer.py.

    Raises:
        ConfigError: there is no such class, or it cannot be made.
    """
    cls = BALANCERS.get(name)
    if cls is not None:
        return Affine(cls())
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        custom: Balancer = getattr(import_module(module), attribute)()
    except Exception as error:
        raise ConfigError(f"load_balancing: {name!r} cannot be loaded: {type(error).__name__}: {error}") from error
    if not callable(getattr(custom, "choose", None)):
        raise ConfigError(f"load_balancing: {name!r} has no method choose(task, candidates)")
    return Affine(Guarded(name, custom))


def main(name: str) -> str | None:
    """Load it. Why that cannot be, or None."""
    try:
        load_balancer(name)
    except ConfigError as error:
        return str(error)
    return None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
