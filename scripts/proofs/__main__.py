"""Runs proofs: ``scripts/prove NAME | all | list [--scale X]``.

Each other module in this folder is a proof, but for ``report``, ``pool`` (a private daemon), ``chores`` (its
handlers), ``hogs`` (others that take too much memory), and ``under_kernel``, ``under_systemd`` and ``served`` (what
``memory_kernel`` and ``systemd`` run inside of their sandboxes). It has a docstring whose first line says what it
proves, and

    def prove(scale: float) -> Report

which measures at ``scale`` times the published size (1.0) and returns its Report. One that can be told more has
``add_arguments(parser)``, too; what that parses is given to ``prove`` by name. Module ``daemon_kill`` is the
proof ``daemon-kill``. Proofs import from ``scripts.proofs.report``, and so can tests that run them small.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

_HERE = Path(__file__).resolve().parent
_NOT_PROOFS = {
    "__init__", "__main__", "ballast", "chores", "deadly", "disk", "disk_model", "flood", "fuzz", "heard", "hogs",
    "hostile_cases", "hostile_tasks", "marks", "memory_group", "offered", "pool", "pressure_tasks", "recorded",
    "report", "samples", "served", "small_disk", "soak_load", "traced", "under_kernel", "under_systemd", "witness",
}  # fmt: skip


def names() -> list[str]:
    """Return the names of all proofs, sorted, as the command line knows them."""
    return sorted(path.stem.replace("_", "-") for path in _HERE.glob("*.py") if path.stem not in _NOT_PROOFS)


def _title(name: str) -> str:
    source = (_HERE / f"{name.replace('-', '_')}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"scripts.proofs.{name.replace('-', '_')}")


def _own_arguments(name: str, given: Sequence[str]) -> dict[str, Any]:
    """What the proof itself makes of its part of the command line; it exits where that makes no sense."""
    parser = argparse.ArgumentParser(prog=f"scripts/prove {name}")
    add_arguments = getattr(_module(name), "add_arguments", None)
    if add_arguments is not None:
        add_arguments(parser)
    return vars(parser.parse_args(given))


def _holds(name: str, scale: float, own: dict[str, Any]) -> bool:
    """Run one proof. One that raises, skips or exits has failed; interrupting it interrupts us."""
    try:
        report = _module(name).prove(scale, **own)
    except KeyboardInterrupt:
        raise
    except BaseException:  # pytest's and unittest's skips, SystemExit: nothing but a figure is a proof
        traceback.print_exc()
        return False
    return bool(report.ok)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return 0 when every limit held, 1 when one was short."""
    known = names()
    parser = argparse.ArgumentParser(prog="scripts/prove", description="Prove a promise of poolmgr with figures.")
    parser.add_argument("name", choices=[*known, "all", "list"], metavar="NAME", help="a proof, or: all, list")
    parser.add_argument(
        "--scale", type=_positive, default=1.0, help="size, as a multiple of the published one (default: 1.0)"
    )
    chosen, rest = parser.parse_known_args(arguments)
    if rest and chosen.name in ("all", "list"):
        parser.error(f"{chosen.name} takes no {rest[0]}")
    if chosen.name == "list":
        for name in known:
            print(f"{name:<16} {_title(name)}")
        return 0
    asked = known if chosen.name == "all" else [chosen.name]
    own = _own_arguments(chosen.name, rest) if rest else {}
    short = [name for name in asked if not _holds(name, chosen.scale, own)]
    print(f"{len(asked) - len(short)} held, {len(short)} short" + (f": {', '.join(short)}" if short else ""))
    return 1 if short or not asked else 0


if __name__ == "__main__":
    # Run as a folder, Python puts this folder first on the path, where a proof could hide a module of the
    # standard library. The checkout belongs there.
    sys.path[0] = str(_HERE.parent.parent)
    sys.exit(main())
