"""The documentation is true: its programs and commands are run as they stand there, and its links lead somewhere.

Of each page, in order: a block of python or toml that begins with ``# NAME.py`` (or .toml) is written to that file, a
block of sh is run. Only blocks marked ``sh not-run`` are left out: they are for a checkout, or for root.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.acceptance.conftest import ROOT

PAGES: Final = sorted([ROOT / "README.md", ROOT / "examples" / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK: Final = re.compile(r"^( *)```(\w+)([^\n]*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK: Final = re.compile(r"\[[^\]]+\]\(([^)#\s]*)(#[^)\s]*)?\)")


def blocks(page: Path) -> Iterator[tuple[str, str, str]]:
    """(language, mark, text) of each block."""
    for indent, language, mark, text in BLOCK.findall(page.read_text()):
        yield language, mark.strip(), re.sub(rf"^{indent}", "", text, flags=re.MULTILINE)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def run_by_a_reader(page: Path) -> bool:
    return any(language == "sh" and not mark for language, mark, _ in blocks(page))


@pytest.fixture
def environ() -> Iterator[dict[str, str]]:
    """A shell's environment in which ``poolmgr`` and ``python`` are the tested ones, and the daemon is private."""
    directory = Path(tempfile.mkdtemp(prefix="poolmgr-"))
    kept = {each: value for each, value in os.environ.items() if not each.startswith("POOLMGR_")}
    private = {"POOLMGR_SOCKET": f"{directory}/run/p.sock", "POOLMGR_STATE_DIR": f"{directory}/state"}
    (directory / "work").mkdir()
    environ = {**kept, **private, "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}", "PWD": f"{directory}/work"}
    yield environ
    stop = ["poolmgr", "stop", "--now", "--timeout", "10"]
    stopped = subprocess.run(stop, env=environ, capture_output=True, text=True, check=False)
    shutil.rmtree(directory)
    assert stopped.returncode == 3, "the page does not stop its daemon"


@pytest.mark.parametrize("page", [page for page in PAGES if run_by_a_reader(page)], ids=name)
def test_what_a_page_tells_to_run_runs(page: Path, environ: dict[str, str]) -> None:
    directory = Path(environ["PWD"])
    script = ["set -euo pipefail"]
    for language, mark, text in blocks(page):
        if language in ("python", "toml") and (named := re.match(r"# (\w+\.(?:py|toml))\n", text)):
            (directory / named[1]).write_text(text)
        elif language == "sh" and not mark:
            script.append(text)
    # One shell for the whole page, as a reader has: variables live on from block to block.
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)], cwd=directory, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    for target, anchor in LINK.findall(re.sub(r"`[^`\n]*`", "", page.read_text())):
        if "://" in target:
            continue
        file = page.parent / target if target else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor[1:] not in anchors(file)):
            dead.append(f"{target}{anchor}")
    assert not dead


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
