"""A small twin of ``scripts/demo``: the same program with fewer workers and modules."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys

import pytest

from tests.acceptance.conftest import EXAMPLES, Examples
from tests.acceptance.test_examples import check_shown

SMALL = ("--workers", "4", "--modules", "200")
SHOWN = [
    "Starting a daemon with 4 workers: .*",
    r"Ready after \d+\.\d\d s\.",
    "Handing over 200 durable tasks, .*",
    r"  \[#{5}\.{45}\] 20 of 200",
    r"  kill -9 \d+: worker-\d is dead, in the middle of .+\.py\.",
    r"  Its slot is ready again after \d+ ms, with \d+ cores all busy: pid \d+, forked from the warm template\.",
    r"  \[#{50}\] 200 of 200",
    r"Done in .* s, .* modules a second\.",
    r"The killed worker's task: (completed|dead) at attempt 2, after worker_died at attempt 1\.",
    r"The other workers: 3 of 3 are still the same processes\.",
    "The 10 modules with the most branches:",
    "This is what `poolmgr status` says:",
    "workers  4 of 4 .*",
    "tasks    200 submitted, .*",
    "Stopping the daemon.",
    r"Nothing is left behind: .* \(\d+ processes\) are gone\.",  # a kill that comes too late is tried again
]


def test_the_demo_shows_it_all_and_leaves_nothing_behind(examples: Examples) -> None:
    printed = examples.run("demo", *SMALL)
    check_shown(printed, SHOWN)
    top = [line for line in printed if re.fullmatch(r"( +[\d,]+){4}  \S+\.py +\S+ \(\d+\)", line)]
    branches = [int(line.split()[0].replace(",", "")) for line in top]
    assert len(branches) == 10
    assert branches == sorted(branches, reverse=True)
    assert max(map(len, printed)) <= 110


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["Starting a daemon", "40 of 200"])
def test_interrupted_it_leaves_nothing_behind(examples: Examples, moment: str, number: int) -> None:
    with examples.start("demo", *SMALL) as demo:
        assert demo.stdout is not None
        assert any(moment in line for line in demo.stdout)
        demo.send_signal(number)
        rest, complaints = demo.communicate()
    assert (demo.returncode, complaints) == (130, "")
    assert "Interrupted." in rest
    examples.check_nothing_is_left()


def test_on_a_terminal_the_bar_moves(examples: Examples) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, str(EXAMPLES / "demo.py"), "--workers", "2", "--modules", "20"]
    with subprocess.Popen(command, env=examples.environ, stdout=theirs, stderr=subprocess.PIPE) as demo:
        os.close(theirs)
        printed = b"".join(iter(lambda: _read(ours), b"")).decode()
    os.close(ours)
    assert demo.returncode == 0
    bars = re.findall(r"\r  \[([#.]+)\] (\d+) of 20", printed)
    assert [int(done) for _, done in bars] == list(range(1, 21))
    assert set(bars[-1][0]) == {"#"}
    examples.check_nothing_is_left()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux's way to say that the other end is closed
        return b""
