"""chunks: what a task yields, as it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from poolmgr.cli.session import Session, answering, as_json

if TYPE_CHECKING:
    from poolmgr.client.streams import ChunkStream


@click.command()
@click.argument("id")
@click.option(
    "--offset", type=click.IntRange(0), default=0, show_default=True, help="Begin with the chunk of this number."
)
@click.option("--follow", is_flag=True, help="Also wait for those that are still to come, until the task has ended.")
@answering
def chunks(session: Session, id: str, offset: int, follow: bool) -> None:
    """Print the chunks of the task ID.

    Each is a line: text as it is, everything else as JSON. With --json a line is an object with the chunk's number.
    """
    with session.client() as pool:
        if follow:
            show_chunks(session, pool.chunks(id, offset))
            return
        kept = pool.task(id).chunks
        stream = pool.chunks(id, offset)
        while stream.offset < kept:
            show_chunk(session, stream.offset, next(stream))


def show_chunks(session: Session, stream: ChunkStream[Any]) -> None:
    """Print each chunk when it comes."""
    number = stream.offset
    for chunk in stream:
        show_chunk(session, number, chunk)
        number = stream.offset


def show_chunk(session: Session, number: int, chunk: Any) -> None:
    """Print one, at once: another program may wait for it."""
    if session.as_json:
        text = as_json({"seq": number, "chunk": chunk}, indent=None)
    else:
        text = chunk if isinstance(chunk, str) else as_json(chunk, indent=None)
    click.echo(text)


def show_end(session: Session, answer: dict[str, Any]) -> None:
    """Print the result of a task whose chunks were printed, if it has any."""
    value = answer["result"]
    if session.as_json:
        click.echo(as_json(answer, indent=None))
    elif value is not None:
        click.echo(value if isinstance(value, str) else as_json(value))
