"""The balancer that the settings name."""

from __future__ import annotations

import os
import sys
from importlib import import_module

from poolmgr.core.balancer import BALANCERS, Affine, Balancer
from poolmgr.errors import ConfigError


def load_balancer(name: str) -> Balancer:
    """``round-robin``, ``least-loaded``, or a class of one's own as ``module:Class`` (core/balancer.py's protocol).

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
    return Affine(custom)
