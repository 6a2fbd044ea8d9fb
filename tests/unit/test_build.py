"""The optional compiled build: all of it or nothing, and it says so."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

from poolmgr.version import __version__, is_compiled

ROOT = Path(__file__).resolve().parents[2]


def modules() -> set[str]:
    """The names of those that the build compiles."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        hook = tomllib.load(file)["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["mypyc"]
    found = {path for each in hook["include"] for path in files(each)} - {ROOT / each[1:] for each in hook["exclude"]}
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in found}


def files(pattern: str) -> list[Path]:
    """What a pattern of the hook stands for: a file, or all in a directory."""
    assert pattern.startswith("/")
    path = ROOT / pattern[1:]
    found = list(path.glob("**/*.py")) if path.is_dir() else [path]
    assert found
    assert all(each.exists() for each in found)
    return found


def test_its_modules_are_all_compiled_or_none_is() -> None:
    assert {"poolmgr.core", "poolmgr.core.scheduler", "poolmgr.model", "poolmgr.wire.framing"} <= modules()
    compiled = {name for name in modules() if (spec := find_spec(name)) and str(spec.origin).endswith(".so")}
    assert compiled == (modules() if is_compiled() else set())


def test_the_command_tells_which_build_it_is() -> None:
    said = subprocess.run([sys.executable, "-m", "poolmgr", "--version"], capture_output=True, text=True, check=True)
    assert said.stdout == f"poolmgr {__version__}{' (compiled)' if is_compiled() else ''}\n"
