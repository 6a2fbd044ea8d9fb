"""Whether a write-ahead log that was left behind is one that SQLite may take in. Only reads.

SQLite takes the log up to its first frame that does not hold, and then forgets the rest. That is right after a power
loss, which leaves a torn last transaction. But a log that was damaged in its middle would lose what has been
acknowledged, and nobody would hear of it; and one that is of another database would be written into this one.

The format is described in https://www.sqlite.org/fileformat2.html#walformat: a header of 32 bytes, then frames, each a
header of 24 bytes and a page. Each checksum goes on from the one before, so a frame can be judged by what the frame
before it says, whether or not that one holds.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

_MAGIC: Final = 0x377F0682  # the last bit says that checksums are of big-endian words
_HEADER: Final = struct.Struct(">8I")  # magic, version, page size, sequence, two salts, two checksums
_FRAME: Final = struct.Struct(">6I")  # page number, pages after a commit or 0, two salts, two checksums
_APPLICATION_ID: Final = slice(68, 72)  # of a database's first page
_PAGE_SIZE: Final = slice(16, 18)
# A longer log is taken as it is: to look at all of it would take longer than a second.
_LOOKED_AT_BYTES: Final = 32 << 20

Sums = tuple[int, int]


class Frame(NamedTuple):
    """``holds`` says whether it is one of this log, and follows from the one before it."""

    page: int
    is_commit: bool
    holds: bool
    content: bytes


def log_of(database: str) -> str:
    """Where SQLite keeps the log of ``database``."""
    return f"{database}-wal"


def size_of(path: str) -> int:
    """In bytes; 0 where there is no such file. Raises ``OSError`` where that cannot be told."""
    try:
        return os.stat(path).st_size
    except (FileNotFoundError, NotADirectoryError):
        return 0


def trouble_with_log(database: str, application_id: int, *, synced: bool) -> str | None:
    """Why the log of ``database`` must not be taken in, or None.

    Args:
        application_id: of the databases that it may belong to.
        synced: whether each commit was synced. If not, a power loss may leave holes, and they are no damage.

    Raises:
        OSError: it cannot be read.
    """
    path = log_of(database)
    size = size_of(path)
    if size <= _HEADER.size:
        return None
    if not size_of(database):
        return "the database is missing, and its log is there"
    if size > _LOOKED_AT_BYTES:
        return None
    with open(path, "rb") as file:
        log = file.read()
    if not any(log[: _HEADER.size]):  # made just before the power failed, and never written
        return None
    magic, _, page_size, *_, first, second = _HEADER.unpack_from(log)
    words = ">" if magic & 1 else "<"
    if magic & ~1 != _MAGIC or _sums((0, 0), log[:24], words) != (first, second):
        return "its log is corrupt"
    with open(database, "rb") as file:
        (own,) = struct.unpack(">H", file.read(18)[_PAGE_SIZE].rjust(2, b"\0"))
    if page_size != (65536 if own == 1 else own):
        return "its log is of another database"
    commits_beyond, broken = 0, False
    for frame in _frames(log, page_size, words):
        if frame.page == 1 and frame.holds and int.from_bytes(frame.content[_APPLICATION_ID]) != application_id:
            return "its log is of another program's database"
        broken = broken or not frame.holds
        commits_beyond += broken and frame.holds and frame.is_commit
    # The last transaction was perhaps not synced yet, and may be there in part; what is before it was.
    return "its log is corrupt" if synced and commits_beyond > 1 else None


def _frames(log: bytes, page_size: int, words: str) -> Iterator[Frame]:
    """All frames. Behind those of this log there may be some of an earlier one, whose salts are others."""
    *_, salt_1, salt_2, first, second = _HEADER.unpack_from(log)
    length = _FRAME.size + page_size
    sums = first, second
    for start in range(_HEADER.size, len(log) - length + 1, length):
        page, pages, *salts, first, second = _FRAME.unpack_from(log, start)
        content = log[start + _FRAME.size : start + length]
        ours = salts == [salt_1, salt_2]
        holds = ours and _sums(_sums(sums, log[start : start + 8], words), content, words) == (first, second)
        yield Frame(page, pages > 0, holds, content)
        sums = first, second


def _sums(sums: Sums, data: bytes, words: str) -> Sums:
    """The checksums after ``data``, a whole number of pairs of words."""
    first, second = sums
    numbers = iter(struct.unpack(f"{words}{len(data) // 4}I", data))
    for number in numbers:
        first = (first + number + second) & 0xFFFFFFFF
        second = (second + next(numbers) + first) & 0xFFFFFFFF
    return first, second
