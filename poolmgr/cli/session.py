"""What one call of the command carries along: the daemon it means, and how it answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from poolmgr.client.commands import Question
    from poolmgr.client.sync import Client

T = TypeVar("T")
_CONNECT_S = 30.0


@dataclass(slots=True)
class Session:
    """``socket`` is the path that --socket gave, or None; ``as_json`` is whether answers are JSON."""

    socket: str | None = None
    as_json: bool = False

    def client(self) -> Client:
        """A client of the daemon that is meant. Raises NotRunning where there is none."""
        from poolmgr.client.sync import Client

        return Client(self.socket)

    def ask(self, question: Question[T]) -> T:
        """What the daemon answers, whenever it does, to a question that clients have no method for. Raises as
        ``client`` does."""
        from poolmgr.client.dial import Route
        from poolmgr.client.redial import Redial

        redial = Redial(Route(self.socket, _CONNECT_S, "", 0.0))
        try:
            return redial.live().ask(question, None)
        finally:
            redial.close()

    def answer(self, value: Any, text: str | Callable[[], str]) -> None:
        """Print ``value`` as JSON, or else ``text``, made only then if it is a function; nothing if it is ''."""
        if self.as_json:
            click.echo(as_json(value))
        elif shown := text if isinstance(text, str) else text():
            click.echo(shown)

    def remark(self, text: str) -> None:
        """Tell a person what goes on, on standard error; programs that asked for JSON are spared."""
        if not self.as_json:
            click.echo(f"poolmgr: {text}", err=True)


def _remember(ctx: click.Context, option: click.Parameter, value: Any) -> None:
    if value and option.name:
        setattr(ctx.ensure_object(Session), option.name, value)


# On the root and on each command, so that they may stand before and after the command's name.
SOCKET = click.option("--socket", metavar="PATH", expose_value=False, callback=_remember, help="The daemon's socket.")
JSON = click.option("--json", "as_json", is_flag=True, expose_value=False, callback=_remember, help="Answer in JSON.")


def answering(function: Callable[..., int | None]) -> Callable[..., int | None]:
    """Give a command the options --socket and --json, and the ``Session`` as its first argument."""
    return SOCKET(JSON(click.pass_obj(function)))


def as_json(value: Any, *, indent: int | None = 2) -> str:
    """``value`` as JSON. What JSON lacks is told by its nearest: sets as lists, the rest as text."""
    try:
        return json.dumps(value, indent=indent, default=_nearest, ensure_ascii=False)
    except (TypeError, ValueError):  # a map whose keys are no text, or one that holds itself
        return json.dumps(repr(value), ensure_ascii=False)


def _nearest(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)
