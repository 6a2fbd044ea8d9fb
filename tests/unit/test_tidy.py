"""The style of the house, executable: each rule is a function that lists the offenders in one file.

Each rule is tested twice: poolmgr/ keeps it, and a small bad source breaks it, so that no rule passes by
accident.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[2]

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_METHODS = 30

DRAWERS = {"common", "helper", "helpers", "misc", "util", "utils"}

# The design calls the HTTP front door `http`: inside a package, and imported by its full name only.
MAY_SHADOW = {"__init__", "__main__", "http"}

# The core is pure: `now`, randomness and everything from outside come in through its arguments.
IMPURE_MODULES = {
    "asyncio", "concurrent", "datetime", "multiprocessing", "os", "pathlib", "psutil", "random", "secrets",
    "select", "selectors", "signal", "socket", "sqlite3", "subprocess", "tempfile", "threading", "time",
    "uuid", "uvloop",
}  # fmt: skip
# hash() of a str and id() differ between processes; the others are I/O.
IMPURE_BUILTINS = {"hash", "id", "input", "open", "print"}
# These keep the order of what they are given; a set's differs between processes. sorted() is the way.
ORDER_KEEPERS = {"enumerate", "iter", "list", "next", "tuple", "zip"}

# What `import poolmgr` must not cost a worker, or `poolmgr status`.
HEAVY_MODULES = {"asyncio", "click", "psutil", "sqlite3", "uvloop"}


@dataclass(frozen=True)
class Source:
    """One file, with its path from the root of the checkout."""

    path: PurePosixPath
    text: str

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """Every node of a Python file; none of any other file."""
        return list(ast.walk(ast.parse(self.text, str(self.path)))) if self.is_python else []

    @property
    def is_python(self) -> bool:
        return self.path.suffix == ".py"

    @property
    def is_core(self) -> bool:
        return self.path.parts[:2] == ("poolmgr", "core")


Offences = Iterator[tuple[int, str]]  # line, what is wrong there
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


def file_length(source: Source) -> Offences:
    lines = len(source.text.splitlines())
    if lines >= MAX_FILE_LINES:
        yield lines, f"{lines} lines; a file has fewer than {MAX_FILE_LINES}"


def function_length(source: Source) -> Offences:
    for node in source.nodes:
        if isinstance(node, FunctionNode):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                yield node.lineno, f"{node.name}() has {lines} lines; at most {MAX_FUNCTION_LINES}"


def class_size(source: Source) -> Offences:
    for node in source.nodes:
        if isinstance(node, ast.ClassDef):
            methods = sum(isinstance(statement, FunctionNode) for statement in node.body)
            if methods > MAX_METHODS:
                yield node.lineno, f"{node.name} has {methods} methods; at most {MAX_METHODS}"


def no_drawers(source: Source) -> Offences:
    for part in source.path.with_suffix("").parts:
        if DRAWERS & set(part.lower().split("_")):
            yield 1, f"{part!r} says nothing of what is inside; name the noun"


def no_stdlib_names(source: Source) -> Offences:
    *packages, stem = source.path.with_suffix("").parts
    names = [*packages, stem] if source.is_python else packages
    for name in names:
        if name in sys.stdlib_module_names and name not in MAY_SHADOW:
            yield 1, f"{name!r} is a module of the standard library"


def module_docstring(source: Source) -> Offences:
    for node in source.nodes:
        if isinstance(node, ast.Module) and not ast.get_docstring(node):
            yield 1, "no module docstring"


def no_unfinished_marks(source: Source) -> Offences:
    for number, line in enumerate(source.text.splitlines(), 1):
        if mark := re.search(r"\b(TODO|FIXME|XXX)\b", line):
            yield number, f"{mark[0]}: do it, or file it"


def core_imports(source: Source) -> Offences:
    for node in source.nodes if source.is_core else ():
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module]
        for module in modules:
            if module.partition(".")[0] in IMPURE_MODULES:
                assert isinstance(node, ast.stmt)
                yield node.lineno, f"imports {module}"


def core_calls(source: Source) -> Offences:
    for node in source.nodes if source.is_core else ():
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_BUILTINS:
            yield node.lineno, f"calls {node.func.id}()"


def core_set_order(source: Source) -> Offences:
    for node in source.nodes if source.is_core else ():
        iterated: list[ast.expr] = []
        if isinstance(node, ast.For | ast.comprehension):
            iterated = [node.iter]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ORDER_KEEPERS:
            iterated = node.args
        elif isinstance(node, ast.Starred):
            iterated = [node.value]
        for expression in iterated:
            if _is_set(expression):
                yield expression.lineno, "depends on the order of a set; use sorted(), or a dict"


def _is_set(node: ast.expr) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in {"set", "frozenset"}
    return isinstance(node, ast.Set | ast.SetComp)


@dataclass(frozen=True)
class Rule:
    """A check, a source that breaks it, and the lines where it does."""

    check: Callable[[Source], Offences]
    bad_text: str
    bad_lines: tuple[int, ...]
    bad_path: str = "poolmgr/noun.py"


RULES = [
    Rule(file_length, "x = 1\n" * 400, (400,)),
    Rule(file_length, "-- a line\n" * 400, (400,), "poolmgr/store/claim.sql"),
    Rule(function_length, "def short(): ...\nasync def long():\n" + "    pass\n" * 60, (2,)),
    Rule(class_size, "class God:\n" + "".join(f"    def m{n}(self): ...\n" for n in range(31)), (1,)),
    Rule(no_drawers, "", (1,), "poolmgr/utils.py"),
    Rule(no_drawers, "", (1,), "poolmgr/misc/noun.py"),
    Rule(no_drawers, "", (1,), "poolmgr/server/socket_helpers.py"),
    Rule(no_stdlib_names, "", (1,), "poolmgr/logging.py"),
    Rule(no_stdlib_names, "", (1,), "poolmgr/core/queue/fair.py"),
    Rule(module_docstring, "import this\n", (1,)),
    Rule(module_docstring, "", (1,), "poolmgr/core/__init__.py"),
    Rule(no_unfinished_marks, "x = 1\n# TODO: y\n# FIXME\n'XXX'\n", (2, 3, 4)),
    Rule(no_unfinished_marks, "-- TODO: an index\n", (1,), "poolmgr/store/claim.sql"),
    Rule(
        core_imports,
        "import time\nfrom os.path import join\nimport asyncio.events as a, heapq\n"
        "if TYPE_CHECKING:\n    from random import Random\ndef f():\n    import sqlite3\n",
        (1, 2, 3, 5, 7),
        "poolmgr/core/noun.py",
    ),
    Rule(core_calls, "def f(x):\n    return hash(x) + id(x) + x.id(1)\n", (2, 2), "poolmgr/core/noun.py"),
    Rule(
        core_set_order,
        "for x in set(y): ...\n[x for x in {1, 2}]\nlist({x for x in y})\n[*frozenset(y)]\nsorted(set(y))\n",
        (1, 2, 3, 4),
        "poolmgr/core/noun.py",
    ),
]
CHECKS = list(dict.fromkeys(rule.check for rule in RULES))


def _sources() -> Iterator[Source]:
    for path in sorted((ROOT / "poolmgr").rglob("*")):
        if path.suffix in {".py", ".sql"}:
            yield Source(PurePosixPath(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))


def _offenders(check: Callable[[Source], Offences], source: Source) -> list[str]:
    return [f"{source.path}:{line}: {what}" for line, what in check(source)]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_poolmgr_keeps_the_rule(check: Callable[[Source], Offences]) -> None:
    offenders = [offender for source in _sources() for offender in _offenders(check, source)]
    assert not offenders, f"rule {check.__name__}:\n" + "\n".join(offenders)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.check.__name__}-{rule.bad_path}")
def test_a_bad_source_breaks_the_rule(rule: Rule) -> None:
    source = Source(PurePosixPath(rule.bad_path), rule.bad_text)
    assert sorted(line for line, _ in rule.check(source)) == list(rule.bad_lines)


def test_the_rules_of_the_core_bind_only_the_core() -> None:
    source = Source(PurePosixPath("poolmgr/manager/noun.py"), "import time\nfor x in set(y): hash(x)\n")
    assert not [*core_imports(source), *core_calls(source), *core_set_order(source)]


def test_there_is_something_to_check() -> None:
    assert PurePosixPath("poolmgr/__init__.py") in {source.path for source in _sources()}


def test_importing_poolmgr_imports_nothing_heavy() -> None:
    program = "import sys; before = set(sys.modules); import poolmgr; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    imported = {name.partition(".")[0] for name in done.stdout.split()}
    assert "poolmgr" in imported
    assert not imported & HEAVY_MODULES
