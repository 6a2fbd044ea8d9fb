"""Importing the user's app. ``python -m poolmgr.worker.app DIRECTORY MODULE...`` says why it cannot be, if so."""

from __future__ import annotations

import sys
from importlib import import_module

from poolmgr.errors import AppError
from poolmgr.worker.registry import Registry, registry


def load_app(modules: list[str], directory: str, path: list[str] | None = None) -> Registry:
    """Import ``modules``; what they have registered. ``directory`` leads ``sys.path``, or ``path`` takes its place.

    Raises:
        AppError: a module cannot be imported (with the whole traceback), or two handlers have one name.
    """
    sys.path[:] = path or [directory, *(each for each in sys.path if each not in ("", directory))]
    for module in modules:
        try:
            import_module(module)
        except BaseException as error:
            import traceback

            text = "".join(traceback.format_exception(error))
            raise AppError(f"the app module {module!r} cannot be imported:\n{text}") from error
    if registry.duplicates:
        first, second = registry.duplicates[0]
        raise AppError(
            f"two handlers have the name {first.name!r}: {first.origin} and {second.origin}; "
            "give one of them another with @task(name=...)"
        )
    return registry


def main(directory: str, *modules: str) -> str | None:
    """Import them. Why that cannot be, or None."""
    try:
        load_app([*modules], directory)
    except AppError as error:
        return str(error)
    return None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
