"""What the command makes of its arguments: the calls on the client, the answers, the errors and exit codes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from poolmgr.cli.root import INTERRUPTED, run
from poolmgr.cli.session import Session, as_json
from poolmgr.cli.settings import as_toml
from poolmgr.cli.tasks import argument
from poolmgr.config import Settings
from poolmgr.errors import AppError, ConfigError, NotFound, NotRunning, PoolError, TaskFailed


class FakeFuture:
    id = "f" * 32

    def __init__(self, value: Any, refusal: BaseException | None = None) -> None:
        self._value = value
        self._refusal = refusal

    def accepted(self) -> None:
        if self._refusal is not None:
            raise self._refusal

    def result(self) -> Any:
        if isinstance(self._value, BaseException):
            raise self._value
        return self._value


class FakePool:
    """Writes down each call, and answers it with ``answers[name]`` (an exception is raised)."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.calls: list[tuple[Any, ...]] = []

    def __enter__(self) -> FakePool:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def using(self, **options: Any) -> FakePool:
        self.calls.append(("using", options))
        return self

    def submit(self, name: str, *args: Any, **kwargs: Any) -> FakeFuture:
        self.calls.append(("submit", name, args, kwargs))
        return FakeFuture(self.answers.get("submit"), self.answers.get("accepted"))

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, *args, *kwargs.items()))
            answer = self.answers.get(name)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> FakePool:
    fake = FakePool({})
    monkeypatch.setattr(Session, "client", lambda session: fake)
    return fake


@pytest.mark.parametrize(
    ("line", "answer", "call"),
    [
        ("scale 30", 30, ("scale", 30, None)),
        ("scale +3", 23, ("scale", "+3", None)),
        ("scale -3 --group gpu", 1, ("scale", "-3", "gpu")),
        ("worker start", "worker-20", ("start_worker", None)),
        ("worker start --group gpu", "worker-20", ("start_worker", "gpu")),
        ("worker stop worker-3", None, ("stop_worker", "worker-3")),
        ("gc", {"workers": 20}, ("collect_garbage",)),
        ("pause crawl", None, ("pause", "crawl")),
        ("resume crawl", None, ("resume", "crawl")),
        ("clear", 3, ("clear",)),
        ("cancel ab", True, ("cancel", "ab", ("kill", False))),
        ("cancel ab --kill", True, ("cancel", "ab", ("kill", True))),
        ("result ab --timeout 2", 1, ("result", "ab", ("timeout", 2.0))),
        (
            "tasks --state dead --name crawl --limit 5",
            [],
            ("tasks", ("state", "dead"), ("name", "crawl"), ("limit", 5)),
        ),
        ("dlq list", [], ("dead_letters", ("limit", 100))),
        ("dlq requeue a b", {"a": "c", "b": "d"}, ("requeue", "a", "b")),
        ("dlq requeue --all", {}, ("requeue",)),
        ("dlq purge --all", 4, ("purge",)),
        ("dlq list --name a --limit 5", [], ("dead_letters", ("limit", 5), ("name", "a"))),
        ("dlq requeue --cause timeout", {}, ("requeue", ("cause", "timeout"))),
        ("dlq purge --older-than 60 --name a", 4, ("purge", ("name", "a"), ("older_than_s", 60.0))),
    ],
)
def test_each_command_is_one_call(pool: FakePool, line: str, answer: Any, call: tuple[Any, ...]) -> None:
    pool.answers[call[0]] = answer
    assert run(line.split()) == 0
    assert pool.calls == [call]


def test_submit_passes_arguments_and_only_the_options_that_were_given(pool: FakePool) -> None:
    line = ["submit", "thumbnail", "a.png", "[1, 2]", "null", "--kwargs", '{"size": 64}', "--priority", "0"]
    assert run([*line, "--delay", "3", "--key", "k", "--", "-5"]) == 0
    assert pool.calls == [
        ("using", {"priority": 0, "delay_s": 3.0, "key": "k"}),
        ("submit", "thumbnail", ("a.png", [1, 2], None, -5), {"size": 64}),
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("3.5", 3.5),
        ("true", True),
        ('"3"', "3"),
        ('{"a": [null]}', {"a": [None]}),
        ("a.png", "a.png"),
        ("", ""),
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
        ("[1, NaN]", "[1, NaN]"),
    ],
)
def test_arguments_are_json_where_they_parse(text: str, value: Any) -> None:
    assert argument(text) == value


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("submit f", "f" * 32 + "\n"),
        ("submit f --wait", '{\n  "a": 1\n}\n'),
        ("submit f --json", {"id": "f" * 32}),
        ("submit f --json --wait", {"id": "f" * 32, "state": "completed", "result": {"a": 1}}),
        ("--json submit f", {"id": "f" * 32}),
    ],
)
def test_submit_answers(
    pool: FakePool, capsys: pytest.CaptureFixture[str], line: str, said: str | dict[str, Any]
) -> None:
    pool.answers["submit"] = {"a": 1}
    assert run(line.split()) == 0
    out = capsys.readouterr().out
    assert (json.loads(out) if isinstance(said, dict) else out) == said


def test_text_results_are_printed_as_they_are(pool: FakePool, capsys: pytest.CaptureFixture[str]) -> None:
    pool.answers["result"] = "two\nlines"
    assert run(["result", "ab"]) == 0
    assert capsys.readouterr().out == "two\nlines\n"


@pytest.mark.parametrize("line", ["--socket /a status", "status --socket /a", "--socket /b status --socket /a"])
def test_the_socket_may_be_named_before_and_after_the_command(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    seen = []

    def client(session: Session) -> FakePool:
        seen.append(session.socket)
        return FakePool({"status": NotRunning("nobody there")})

    monkeypatch.setattr(Session, "client", client)
    assert run(line.split()) == 3
    assert seen == ["/a"]


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (NotRunning("say what to do"), 3),
        (ConfigError("say what to do"), 2),
        (NotFound("say what to do"), 1),
        (AppError("say what to do"), 1),
        (TaskFailed("say what to do"), 1),
    ],
)
def test_errors_are_one_line_and_an_exit_code(
    pool: FakePool, capsys: pytest.CaptureFixture[str], error: PoolError, exit_code: int
) -> None:
    pool.answers["task"] = error
    assert run(["task", "ab"]) == exit_code
    assert capsys.readouterr() == ("", "poolmgr: say what to do\n")
    assert run(["task", "ab", "--json"]) == exit_code
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err) == {"error": {"code": error.code, "message": "say what to do"}}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("no-such-command", "No such command 'no-such-command'"),
        ("worker", "Missing command"),
        ("status --no-such", "No such option"),
        ("submit", "Missing argument 'NAME'"),
        ("submit f --kwargs [1]", "a JSON object"),
        ("submit f --kwargs {", "not JSON"),
        ("submit f --priority x", "not a valid integer"),
        ("scale x", "a number of workers, or a change such as +3 or -3"),
        ("scale +-3", "a number of workers"),
        ("tasks --state lost", "lost"),
        ("dlq purge", "name the ids, or say which"),
        ("dlq purge a --all", "name the ids, or say which"),
        ("dlq purge a --name b", "name the ids, or say which"),
        ("dlq requeue --all --cause timeout", "name the ids, or say which"),
    ],
)
def test_wrong_usage_exits_2(pool: FakePool, capsys: pytest.CaptureFixture[str], line: str, said: str) -> None:
    assert run(line.split()) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("poolmgr: ")
    assert said in err
    assert not pool.calls


def test_a_cancel_that_came_too_late_exits_1(pool: FakePool, capsys: pytest.CaptureFixture[str]) -> None:
    pool.answers["cancel"] = False
    assert run(["cancel", "ab"]) == 1
    assert capsys.readouterr().out == "not cancelled: it has begun (--kill ends it) or ended\n"


@pytest.mark.parametrize(("status", "exit_code"), [("healthy", 0), ("degraded", 0), ("critical", 1)])
def test_health_exits_1_when_critical(pool: FakePool, status: str, exit_code: int) -> None:
    workers = {"total": 20, "healthy": 20, "unhealthy": 0}
    pool.answers["health"] = {
        "status": status, "capacity": 1.0, "alerts": [], "workers": workers, "uptime_s": 1.0
    }  # fmt: skip
    assert run(["health"]) == exit_code


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    listed = capsys.readouterr().out.partition("Commands:\n")[2]
    assert [line.split()[0] for line in listed.splitlines() if line[2:3].strip()] == [
        "start", "stop", "restart", "reload", "status", "health", "metrics", "workers", "events", "worker", "scale",
        "gc", "pause", "resume", "breakers", "submit", "task", "result", "chunks", "cancel", "preempt", "tasks",
        "clear", "schedule", "dlq", "config", "db",
    ]  # fmt: skip


def test_what_json_lacks_is_told_by_its_nearest() -> None:
    assert json.loads(as_json({"a": {2, 1}, "b": b"x", "c": ("t", 1)})) == {"a": [1, 2], "b": "x", "c": ["t", 1]}
    assert json.loads(as_json({(1, 2): 3})) == "{(1, 2): 3}"


def test_the_settings_as_toml_read_back_the_same() -> None:
    import tomllib
    from dataclasses import asdict

    settings = Settings(app=("a", "b"), socket='/tmp/with "quotes"')
    read = tomllib.loads(as_toml(asdict(settings)))
    assert Settings.load(environ={}, flags=read) == settings


@pytest.mark.parametrize("at", ["accepted", "submit"])
def test_who_no_longer_waits_for_a_task_is_told_its_id(
    pool: FakePool, capsys: pytest.CaptureFixture[str], at: str
) -> None:
    pool.answers[at] = KeyboardInterrupt()
    assert run(["submit", "work", "--wait"]) == INTERRUPTED
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.rstrip().endswith(f"poolmgr result {FakeFuture.id}")
