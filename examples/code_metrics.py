"""The handler of the demo: what there is in a Python module, counted on its syntax tree."""

from __future__ import annotations

import ast
import warnings
from dataclasses import dataclass

from poolmgr import task

_BRANCHES = (
    ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.Assert, ast.comprehension,
    ast.match_case,
)  # fmt: skip


@dataclass(frozen=True)
class ModuleMetrics:
    """What ``measure`` finds. Sizes are in lines; ``longest`` is a function's name, "" where there is none."""

    lines: int
    classes: int
    functions: int
    branches: int
    longest: str
    longest_lines: int


@task(no_retry_on=(SyntaxError, ValueError))
def measure(path: str) -> ModuleMetrics:
    """Parse the module at ``path``.

    ``branches`` counts where the way through the code forks: conditions, loops, handlers, cases, ``and`` and ``or``.

    Raises:
        SyntaxError, ValueError: it is no Python of this version. Trying again would not help, so it is not retried.
    """
    with open(path, "rb") as file:
        source = file.read()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        tree = ast.parse(source, path)
    classes = functions = branches = longest_lines = 0
    longest = ""
    for node in ast.walk(tree):
        if isinstance(node, _BRANCHES):
            branches += 1
        elif isinstance(node, ast.BoolOp):
            branches += len(node.values) - 1
        elif isinstance(node, ast.ClassDef):
            classes += 1
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            functions += 1
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > longest_lines:
                longest, longest_lines = node.name, lines
    return ModuleMetrics(source.count(b"\n"), classes, functions, branches, longest, longest_lines)
