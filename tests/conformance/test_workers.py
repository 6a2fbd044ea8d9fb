"""Every worker executable keeps the protocol, and one that does not is told which rule it breaks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from poolmgr.manager.rules import RULES
from poolmgr.manager.stream_rules import STREAM_RULES

TESTS = Path(__file__).resolve().parents[1]
THIRD_PARTY = [sys.executable, str(TESTS / "conformance" / "third_party_worker.py")]
OUR_OWN = [sys.executable, "-P", "-m", "poolmgr.worker.spawned", str(TESTS / "apps"), "handlers", "streaming"]


def verdicts_on(command: Sequence[str], *options: str, **environ: str) -> dict[str, dict[str, Any]]:
    """By rule, what ``poolmgr worker check`` finds."""
    check = [sys.executable, "-m", "poolmgr", "worker", "check", "--json", *options]
    done = subprocess.run(
        [*check, *command], capture_output=True, text=True, env={**os.environ, **environ}, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    found = {verdict["rule"]: verdict for verdict in json.loads(done.stdout)}
    assert done.returncode == any(verdict["outcome"] == "violated" for verdict in found.values())
    return found


def check_conforms(command: Sequence[str], quick: str, slow: str, stream: str, *, many: bool = True) -> None:
    """``stream``: '' where it knows none. ``many``: whether it takes START_MANY."""
    found = verdicts_on(command, "--task", quick, "--slow", slow, *(["--stream", stream] if stream else []))
    skipped = set() if stream else {*STREAM_RULES}
    skipped |= set() if many else {"many tasks may come in one message"}
    assert [verdict for verdict in found.values() if verdict["outcome"] == "violated"] == []
    assert {rule for rule, verdict in found.items() if verdict["outcome"] == "skipped"} == skipped
    assert found.keys() == RULES.keys()


def test_our_own_worker_conforms() -> None:
    check_conforms(OUR_OWN, "add [1, 2]", "nap [0.4]", "texts [25, 4]")


@pytest.mark.parametrize("stream", ["texts_async [12, 3]", "texts_and_checkpoints [5]"])
def test_our_own_worker_conforms_in_other_streams(stream: str) -> None:
    for rule in STREAM_RULES:
        assert verdicts_on(OUR_OWN, "--stream", stream, "--rule", rule)[rule]["outcome"] == "kept"


def test_a_third_partys_worker_conforms() -> None:
    check_conforms(THIRD_PARTY, "third.add [1, 2]", "third.nap [0.4]", "third.count [30]")


@pytest.mark.skipif(not (shutil.which("node") and shutil.which("npm")), reason="node or npm is missing")
def test_a_worker_in_nodejs_conforms(node_worker: Path) -> None:
    check_conforms(["node", str(node_worker)], 'slug ["Some Words"]', "pause [400]", "", many=False)


@pytest.mark.parametrize(
    ("misbehaviour", "rule", "reason"),
    [
        ("wrong-version", "READY comes first", "protocol version 2, expected 1"),
        ("no-heartbeat", "its heart beats", "no heartbeat while it waits"),
        ("busy-no-heartbeat", "its heart beats while a task runs", "heartbeats while a task ran for"),
        ("wrong-code", "an unknown task fails", "the code is 'bad_arguments', not 'unknown_task'"),
        ("dies-of-unknown-tasks", "an unknown task fails", "it has ended: exit code 1"),
        ("wrong-fence", "a task returns its result", "expected DONE or RAISED for fence 1, got DONE [2,"),
        ("tells-twice", "a task returns its result", "expected DONE or RAISED for fence 2, got DONE [1,"),
        ("wall-clock", "a task returns its result", "ended at"),
        ("wrong-order", "tasks run in their order", "expected DONE or RAISED for fence 1"),
        ("forgets-the-others", "many tasks may come in one message", "no DONE or RAISED for fence 2"),
        ("mixes-them-up", "many tasks may come in one message", "is to fail, bad_arguments, but it answers DONE"),
        ("no-page", "the page shows what was begun", "the page shows 0 after fence 1 has run"),
        ("whole-messages-only", "messages may come in pieces", "it has closed its control channel: exit code 1"),
        ("ends-on-sigusr1", "what it is told does not end it", "SIGUSR1"),
        ("late-interrupt", "a late interrupt strikes nobody", "an earlier fence has struck the task that runs"),
        ("deaf-to-recalls", "what is recalled does not run", "expected RECALLED for [2, 3, 4], got RAISED [2,"),
        ("lingers", "it goes when its tasks end", "it still runs"),
        ("exits-with-1", "it goes when its tasks end", "exit code 1"),
    ],
)
def test_what_a_worker_breaks_is_named(misbehaviour: str, rule: str, reason: str) -> None:
    options = ["--task", "third.add [1]", "--slow", "third.nap [0.4]", "--patience", "3", "--rule", rule]
    verdict = verdicts_on(THIRD_PARTY, *options, MISBEHAVE=misbehaviour)[rule]
    assert verdict["outcome"] == "violated"
    assert reason in verdict["reason"]


@pytest.mark.parametrize(
    ("misbehaviour", "rule", "reason"),
    [
        ("knows-no-streams", "chunks come in order", 'does not say {"streams": true}'),
        ("numbers-from-one", "chunks come in order", "chunk 1 comes where chunk 0 is the next"),
        ("ignores-credit", "credit is kept", "goes on behind the first chunk, for which alone there is credit"),
        ("ignores-bytes", "credit is kept", "goes on behind the first chunk, with which it has sent as many bytes as"),
        ("is-not-preempted", "it is preempted at the next chunk", "no CHUNK, RELEASED, DONE or RAISED"),
        ("goes-on-elsewhere", "it goes on from a checkpoint", "it does not yield what was left"),
        ("forgets-what-is-kept", "what is kept does not come again", "chunk 0 comes where chunk 1 is the next"),
    ],
)
def test_what_a_worker_breaks_of_streams_is_named(misbehaviour: str, rule: str, reason: str) -> None:
    options = ["--stream", "third.count [12]", "--patience", "3", "--rule", rule]
    verdict = verdicts_on(THIRD_PARTY, *options, MISBEHAVE=misbehaviour)[rule]
    assert verdict["outcome"] == "violated"
    assert reason in verdict["reason"]


def test_what_is_no_stream_is_told() -> None:
    rule = "chunks come in order"
    for call, reason in (("third.count [2]", "name one that yields 3 to 1,000"), ("third.add [1]", "yields 0 chunks")):
        verdict = verdicts_on(THIRD_PARTY, "--stream", call, "--rule", rule)[rule]
        assert verdict["outcome"] == "violated"
        assert reason in verdict["reason"]


def test_what_is_no_worker_is_tried_no_further() -> None:
    found = verdicts_on([sys.executable, "-c", "print('hello'); raise SystemExit(3)"], "--patience", "3")
    assert found == {
        "READY comes first": {
            "rule": "READY comes first", "section": "its-life", "outcome": "violated", "output": "hello",
            "reason": "expected READY, but it has ended: exit code 3",
        }
    }  # fmt: skip


def test_what_cannot_be_run_is_told() -> None:
    [verdict] = verdicts_on(["no-such-command"]).values()
    assert verdict["reason"] == (
        "it is not ready: worker_command: 'no-such-command' cannot be run: No such file or directory"
    )


def test_rules_that_need_a_task_are_skipped_without_one() -> None:
    found = verdicts_on(THIRD_PARTY, "--rule", "result")
    assert [verdict["reason"] for verdict in found.values()] == ["needs --task"]


def test_each_rule_names_a_section_of_the_protocol() -> None:
    from tests.acceptance.test_docs import anchors

    assert {section for section, _ in RULES.values()} <= anchors(TESTS.parent / "docs" / "protocol.md")
