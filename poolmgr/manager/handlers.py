"""Every task that a pool can run, with its options: the app's, and those that the settings name for a command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from poolmgr.config import Settings, task_options
from poolmgr.errors import AppError
from poolmgr.model import TaskOptions


def all_handlers(settings: Settings, app: Mapping[str, dict[str, Any]]) -> dict[str, TaskOptions]:
    """By name. ``app`` is what the template has told: each name with the options that its handler declares.

    A task of a ``worker_command`` requires its group's name, so that no other worker gets it.

    Raises:
        AppError: the app has a handler for a task that a command is to run.
    """
    defaults = task_options(settings)
    found = {name: defaults.override(options) for name, options in app.items()}
    for group in settings.worker_groups():
        for name in group.worker_tasks:
            if name in found:
                raise AppError(
                    f"the task {name!r} is in the worker_tasks of group {group.name!r}, and the app has a handler of "
                    f"that name: remove one of the two (a handler with requires={{{group.name!r}}} is enough)"
                )
            found[name] = defaults.override({"requires": [group.name]})
    return found
