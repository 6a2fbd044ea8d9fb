"""Each example, run as a user runs it: it ends well, shows what it is to show, and leaves nothing behind."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Final

import pytest

from tests.acceptance.conftest import EXAMPLES, ROOT, Examples

# Of each example: patterns of lines that it must print, in this order, others may stand between.
SHOWN: Final[dict[str, list[str]]] = {
    "agent": [
        r"The agent is to read \d+ modules, \d+\.\d MB, in \d+ steps.",
        r"urgent, at step \d+: .* says .*; asked \d+ ms ago",
        r"urgent, at step \d+: .* says .*; asked \d+ ms ago",
        r"urgent, at step \d+: .* says .*; asked \d+ ms ago",
        "The agent is completed; preempted: [1-3] times.",
        "Each module was read once, in order: True",
        r" +\d+  [A-Z]\w+",
        "The same answer as without a pool, in one go: True",
    ],
    "asynchronous": ["ONE", "TWO", "THREE FOUR", "FIVE", "SIX", "SEVEN"],
    "basic": [
        r"this is process \d+",
        r"Hello, Ada! \(process \d+\)",
        r"Good morning, Grace! \(process \d+\)",
        r"Hello, Edsger! \(process \d+\)",
        r"task [0-9a-f]{32} is completed: greet, priority 0, attempt 1",
    ],
    "custom_balancer": [
        "round-robin: worker-0 3, worker-1 3, worker-2 3, worker-3 3",
        "custom_balancer:LowestFirst: worker-0 12",
    ],
    "events": [
        r"task-started    cup 2  attempt 1, worker_id worker-\d",
        r"task-failed     cup 2  attempt 1, worker_id worker-\d, error RuntimeError: no water, retried True",
        r"task-started    cup 2  attempt 2, worker_id worker-\d",
        r"task-completed  cup 2  attempt 2, worker_id worker-\d",
        r"cup 1: last progress \(1.0, 'poured'\)",
        r"cup 2: last progress \(1.0, 'poured'\)",
        r"cup 3: last progress \(1.0, 'poured'\)",
    ],
    "executor": [
        "0 3 6 9 12 15 18 21",
        "42",
        r"LookupError\('no number: four'\), because of ValueError\(.*'four'.*\)",
        "the others: 0 1 2 3 4",
        "the worker process died: exit code 3",
    ],
    "failures": [
        "task_failed: ValueError: invalid literal for int.*'four'",
        "  ValueError: invalid literal for int.*'four'",
        "retried: done at attempt 3",
        r"timeout after \d+\.\d s: it ran longer than its timeout_s, .*",
        r"worker_died: the worker process died: signal 9 \(SIGKILL\)",
        "dead: TaskFailed",
        "  read, task_failed, 1 failed: FileNotFoundError",
        r"  crash, worker_died, 2 failed: .*SIGKILL.*",
        "requeued: all is well",
        "its origin is the dead one: True",
        "purged: 4",
    ],
    "streaming": [
        "a call: 2 3 5 7 11 13 17 19 23 29",
        "across a crash: 2 3 5 7 11 13 17 19 23 29",
        "10 primes in attempt 2",
        "the last three: 19 23 29",
    ],
    "health": [
        "healthy: capacity 100%, 4 of 4 workers healthy, 0 alerts",
        r"  worker-exited: worker-\d, pid \d+",
        r"degraded: capacity \d+%, [23] of 4 workers healthy, 0 alerts",
        r"  worker-started: worker-\d, pid \d+",
        "healthy: capacity 100%, 4 of 4 workers healthy, 0 alerts",
        "1,000 tasks completed, 0 dead, 0 waiting",
        r"worker reuse 0\.9\d\d, median run \d+ us",
    ],
    "parallel": [
        "17,984 primes below 200,000, counted by [1-8] processes",
        r"  the first ranges: \(1229, 1033, 983, 958\); .* s",
        r"  1,229 more, from process \d+",
        r"20,000 small tasks: sum 399,980,000, .* tasks/s",
    ],
    "private_pool": [
        "6",
        "1 2 3 4 5",
        r"\[1, 2\]",
        "task_failed: ValueError: nothing to count",
        "now 6 workers",
        "8 tasks completed",
    ],
    "scaling": [
        "  4 workers: 0 1 2 3",
        "  8 workers: 0 1 2 3 4 5 6 7",
        "  6 workers: .*",
        "    12 naps, while it shrinks: 2.4 s slept",
        "  2 workers: .*",
        "  3 workers: .*",
        "  2 workers: .*",
        "    refused, bad_option: .*min_workers 2 and max_workers 8.*",
    ],
}
ARGUMENTS: Final = {"agent": ["--modules", "250"]}  # `scripts/prove agent` runs it in full
NOT_RUN_HERE: Final = {"private_daemon", "code_metrics", "demo"}  # what examples share; test_demo.py runs the demo


def check_shown(printed: list[str], patterns: list[str]) -> None:
    """Each pattern fits a line below the one that the last pattern fitted."""
    lines = iter(printed)
    for pattern in patterns:
        found = any(re.fullmatch(pattern, line) for line in lines)
        assert found, f"no line fits {pattern!r} where it should:\n" + "\n".join(printed)


@pytest.mark.parametrize("name", SHOWN)
def test_an_example_shows_what_it_is_to_show(examples: Examples, name: str) -> None:
    check_shown(examples.run(name, *ARGUMENTS.get(name, ())), SHOWN[name])


def test_no_example_is_left_out() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == SHOWN.keys() | NOT_RUN_HERE


def test_each_is_in_the_list_of_examples() -> None:
    listed = (EXAMPLES / "README.md").read_text()
    assert all(f"({path.name})" in listed for path in EXAMPLES.glob("*.py"))


def test_an_app_that_does_not_load_is_told_by_the_daemon(examples: Examples) -> None:
    program = "from private_daemon import private_daemon\nwith private_daemon('no_such_app'): print('ready')"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=EXAMPLES, env=examples.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "No module named 'no_such_app'" in done.stderr
    examples.check_nothing_is_left()


def test_the_examples_are_typed_to_the_letter() -> None:
    cache = ROOT / ".mypy_cache" / "examples"
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={cache}", "."]
    done = subprocess.run(command, cwd=EXAMPLES, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
