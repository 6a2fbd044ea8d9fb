"""What a disk may hold after the power has failed, by what was written to it and what was synced.

A file holds what it held at its last sync, and of what was written since then any of the pieces: each write is cut at
the borders of sectors, and each piece and each change of the size has happened or has not. A directory likewise: names
that came, went or changed since it was synced may have, or may not. Nothing else is assumed of the file system.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from scripts.proofs.traced import Call

SECTOR_BYTES: Final = 512


class Piece(NamedTuple):
    """Part of a write, within one sector; or, with no data, a new size."""

    offset: int
    data: bytes | None

    def apply(self, content: bytearray) -> None:
        """To what the file holds."""
        if self.data is None:
            del content[self.offset :]
        missing = self.offset - len(content)
        if missing > 0:
            content.extend(bytes(missing))
        if self.data is not None:
            content[self.offset : self.offset + len(self.data)] = self.data


@dataclass(slots=True, eq=False)
class File:
    """``content`` is what a reader sees, ``synced`` what is certain, ``pending`` lies between them."""

    content: bytearray = field(default_factory=bytearray)
    synced: bytearray = field(default_factory=bytearray)
    pending: list[Piece] = field(default_factory=list)

    def change(self, piece: Piece) -> None:
        """A write or a truncate."""
        piece.apply(self.content)
        self.pending.append(piece)

    def sync(self) -> None:
        """All of it is certain now."""
        for piece in self.pending:
            piece.apply(self.synced)
        self.pending.clear()

    def after(self, chance: random.Random, share: float) -> bytes:
        """What it holds once the power is back, where so large a share of what was pending has happened."""
        content = bytearray(self.synced)
        for piece in self.pending:
            if chance.random() < share:
                piece.apply(content)
        return bytes(content)


Image = dict[str, bytes]
_Names = dict[str, File | None]


class Disk:
    """One directory, to which calls are applied, and what it may look like after a power loss.

    Args:
        image: what it held, synced, in the beginning.
    """

    def __init__(self, image: Image) -> None:
        self.names = {name: File(bytearray(data), bytearray(data)) for name, data in image.items()}
        self._directories = {".", *map(_directory, image)}
        self.names.update({name: File() for name in self._directories})
        self._synced: dict[str, File] = dict(self.names)
        self._pending: list[_Names] = []

    def apply(self, call: Call) -> None:
        """It has happened, as far as any reader can see."""
        if call.call == "create":
            if call.name not in self.names:
                self._rename({call.name: File()})
        elif call.call == "mkdir":
            self._directories.add(call.name)
            self._rename({call.name: File()})
        elif call.call == "unlink":
            self._rename({call.name: None})
        elif call.call == "rename":
            self._rename({call.name: None, call.to: self.names[call.name]})
        elif call.call == "write":
            file = self.names[call.name]
            for piece in _pieces(call.offset, call.data):
                file.change(piece)
        elif call.call == "truncate":
            self._resize(self.names[call.name], call.offset)
        elif call.call == "sync" and call.name in self._directories:
            self._sync_directory(call.name)
        elif call.call == "sync":
            self.names[call.name].sync()

    def _sync_directory(self, directory: str) -> None:
        for change in self._pending:
            if _directory(next(iter(change))) == directory:
                _apply(change, self._synced)
        self._pending = [change for change in self._pending if _directory(next(iter(change))) != directory]

    def _rename(self, change: _Names) -> None:
        _apply(change, self.names)
        self._pending.append(change)

    def _resize(self, file: File, size: int) -> None:
        if size < len(file.content):
            file.change(Piece(size, None))
        elif size > len(file.content):
            file.change(Piece(size, b""))

    @property
    def certain(self) -> bool:
        """Whether there is only one thing that it can look like."""
        return not self._pending and not any(file.pending for file in self.names.values())

    def whole(self) -> Image:
        """Everything has reached the disk, in its order."""
        return {name: bytes(file.content) for name, file in self._reached(self.names)}

    def least(self) -> Image:
        """Nothing has reached it but what had to."""
        return {name: bytes(file.synced) for name, file in self._reached(self._synced)}

    def any(self, chance: random.Random) -> Image:
        """Some of it has."""
        names = dict(self._synced)
        share = chance.choice((0.1, 0.5, 0.9, 1.0))
        for change in self._pending:
            if chance.random() < share:
                _apply(change, names)
        shares = (0.0, 0.1, 0.5, 0.9, 1.0)  # of what is pending, by file
        return {name: file.after(chance, chance.choice(shares)) for name, file in self._reached(names)}

    def _reached(self, names: dict[str, File]) -> Iterator[tuple[str, File]]:
        """The files among these names whose directories are there."""
        for name, file in names.items():
            if name not in self._directories and _directory(name) in names:
                yield name, file


def _apply(change: _Names, names: dict[str, File]) -> None:
    for name, file in change.items():
        if file is None:
            names.pop(name, None)
        else:
            names[name] = file


def _directory(name: str) -> str:
    return name.rpartition("/")[0] or "."


def _pieces(offset: int, data: bytes) -> Iterator[Piece]:
    begin = 0
    while begin < len(data):
        end = begin + SECTOR_BYTES - (offset + begin) % SECTOR_BYTES
        yield Piece(offset + begin, data[begin:end])
        begin = end
