"""An agent reads all of Python's standard library, gives way to urgent work, and loses nothing.

It is asked which exceptions the library raises and nowhere catches. For that it reads some 700 modules of 12 MB, step
by step, and keeps all its notes at each. The pool has one worker. Whenever somebody waits for an urgent answer, the
agent is preempted, and goes on where it was.

python examples/agent.py                  all modules
python examples/agent.py --modules 100    some of them
"""

from __future__ import annotations

import argparse
import ast
import sysconfig
import time
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from private_daemon import private_daemon

from poolmgr import Chunk, Client, current_task, task

LIBRARY = Path(sysconfig.get_path("stdlib"))
LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test"}  # installed later, or never to be run
STEP = 10  # modules
URGENT_AT = (0.1, 0.4, 0.7)  # of all steps

Counts = dict[str, int]  # by the exception's name


def modules(limit: int | None) -> list[str]:
    """The paths of all modules, or of so many that are spread over the library; from it, in order."""
    found = sorted(path for path in LIBRARY.rglob("*.py") if not LEFT_OUT & set(path.relative_to(LIBRARY).parts))
    chosen = found[:: max(1, len(found) // limit)][:limit] if limit else found
    return [str(path.relative_to(LIBRARY)) for path in chosen]


# ------------------------------------------------------------------------------------------------ the handlers


@task
def research(paths: list[str]) -> Generator[Any, None, list[tuple[str, int]]]:
    """Read all of ``paths``; each chunk names those of a step. The end is what is raised and nowhere caught."""
    done, raised, caught = current_task().restored or (0, {}, {})
    while done < len(paths):
        step = paths[done : done + STEP]
        for path in step:
            read(path, raised, caught)
        done += len(step)
        yield Chunk(step, checkpoint=(done, raised, caught))  # if it is stopped here, it goes on behind here
    return conclude(raised, caught)


@task(priority=0)  # CRITICAL: it does not wait for an agent to be done
def look_up(path: str) -> str:
    """What a module says of itself, in a line."""
    return (ast.get_docstring(parse(path)) or "nothing").partition("\n")[0]


# ------------------------------------------------------------------------------------------------ what they do


def parse(path: str) -> ast.Module:
    """A module's syntax tree; an empty one, if it is no Python of this version."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse((LIBRARY / path).read_bytes(), path)
        except (SyntaxError, ValueError):
            return ast.Module([], [])


def read(path: str, raised: Counts, caught: Counts) -> None:
    """Count what a module raises and catches, by name."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Raise):
            count(node.exc.func if isinstance(node.exc, ast.Call) else node.exc, raised)
        elif isinstance(node, ast.ExceptHandler):
            for each in node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]:
                count(each, caught)


def count(node: ast.expr | None, counts: Counts) -> None:
    """One more of what ``node`` names, if that is a class: ``raise error`` names none."""
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    if name.lstrip("_")[:1].isupper():
        counts[name] = counts.get(name, 0) + 1


def conclude(raised: Counts, caught: Counts) -> list[tuple[str, int]]:
    """The names that are raised and not caught, with how often: the most frequent first."""
    return sorted(((name, times) for name, times in raised.items() if name not in caught), key=lambda e: (-e[1], e[0]))


# ------------------------------------------------------------------------------------------------ who asks


def main() -> None:
    parser = argparse.ArgumentParser(description="An agent that is preempted and loses nothing.")
    parser.add_argument("--modules", type=int, help="only so many modules (default: all)")
    paths = modules(parser.parse_args().modules)
    size = sum((LIBRARY / path).stat().st_size for path in paths)
    steps = -(-len(paths) // STEP)
    print(f"The agent is to read {len(paths):,} modules, {size / 1e6:.1f} MB, in {steps} steps.")

    # By default an agent is left alone for the first second of each turn. This one has only a few seconds of work.
    with private_daemon(app="agent", workers=1, preempt_min_run_s=0.1) as socket, Client(socket) as pool:
        agent = pool.submit(research, paths)
        questions = urgent(paths, steps)
        due, question = next(questions)
        seen: list[str] = []
        for number, step in enumerate(agent, 1):
            seen += step
            if number >= due:
                asked = time.perf_counter()
                answer = pool.run(look_up, question)
                took_ms = (time.perf_counter() - asked) * 1000
                print(f"urgent, at step {number}: {question} says {answer!r}; asked {took_ms:.0f} ms ago")
                due, question = next(questions)
        found: list[tuple[str, int]] = [tuple(each) for each in agent.result(timeout=60)]
        print(f"The agent is {pool.task(agent.id).state}; preempted: {pool.metrics()['tasks']['preempted']} times.")
        print(f"Each module was read once, in order: {seen == paths}")

    print("\nRaised by the library, and nowhere caught by their name:")
    for name, times in found[:10]:
        print(f"  {times:4}  {name}")
    print(f"The same answer as without a pool, in one go: {found == in_one_go(paths)}")


def urgent(paths: list[str], steps: int) -> Iterator[tuple[float, str]]:
    """At which steps something urgent comes up, and what; in the end never."""
    for part in URGENT_AT:
        yield part * steps, paths[int(part * len(paths))]
    yield float("inf"), ""


def in_one_go(paths: list[str]) -> list[tuple[str, int]]:
    """What the agent ought to find."""
    raised: Counts = {}
    caught: Counts = {}
    for path in paths:
        read(path, raised, caught)
    return conclude(raised, caught)


if __name__ == "__main__":
    main()
