"""What a process does to one directory, and when it says so: its system calls, recorded by strace."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

TRACED: Final = (
    "openat,creat,pwrite64,pwritev,pwritev2,write,writev,ftruncate,truncate,fallocate,sendfile,copy_file_range,"
    "fdatasync,fsync,sync_file_range,mkdir,mkdirat,unlink,unlinkat,rename,renameat,renameat2,link,linkat,symlink"
)

# One call of a trace: its name, what is in the parentheses, and what it returned (the number alone).
_CALL: Final = re.compile(r"^(\w+)\((.*)\)\s+= (-?\d+)")
_TEXT: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_DESCRIPTOR: Final = re.compile(r"^(\d+)<([^>]*)>(\(deleted\))?")


class Call(NamedTuple):
    """A system call that changed something: in the directory, or on standard output (``name`` is '')."""

    call: str
    name: str  # of the file, within the directory; '.' is the directory itself
    offset: int = 0  # of a write; of a truncate, the size
    data: bytes = b""
    to: str = ""  # of a rename


def record(command: Sequence[str], directory: Path, trace: Path) -> list[Call]:
    """Run ``command`` under strace, and return all that it did to ``directory`` and said on standard output, in order.

    Raises:
        FileNotFoundError: there is no strace.
        AssertionError: the command failed, or did what this model does not know.
    """
    options = ["-y", "-xx", "-s", str(1 << 22), "-e", "signal=none", "-e", f"trace={TRACED}", "-o", str(trace)]
    done = subprocess.run(["strace", *options, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with trace.open() as lines:
        return list(_calls(lines, str(directory)))


def _calls(lines: Iterator[str], directory: str) -> Iterator[Call]:
    places: dict[int, int] = {}  # where the next write() to a descriptor goes
    for line in lines:
        found = _CALL.match(line)
        if found is None or int(found[3]) < 0:
            continue
        call, arguments, returned = found[1], found[2], int(found[3])
        texts = [_plain(each) for each in _TEXT.findall(arguments)]
        descriptor = _DESCRIPTOR.match(arguments)
        if call == "openat":
            places[returned] = 0
            name = _within(texts[0].decode(), directory)
            if name and "O_CREAT" in arguments:
                yield Call("create", name)
        elif call in ("mkdir", "unlink", "rename"):
            name, *to = (_within(each.decode(), directory) for each in texts)
            if name:
                yield Call(call, name, to="".join(to))
        elif descriptor is not None and descriptor[1] == "1" and call == "write":
            yield Call("say", "", data=texts[0])
        elif descriptor is not None and not descriptor[3]:
            name = _within(_plain(descriptor[2]).decode(), directory)
            if name:
                yield _change(call, name, arguments, texts, places, int(descriptor[1]), returned)
        else:
            assert directory not in b" ".join(texts).decode(errors="replace"), f"not in the model: {line[:200]}"


def _change(
    call: str, name: str, arguments: str, texts: list[bytes], places: dict[int, int], descriptor: int, returned: int
) -> Call:
    if call in ("fdatasync", "fsync"):
        return Call("sync", name)
    if call == "ftruncate":
        return Call("truncate", name, int(arguments.rpartition(", ")[2]))
    if call == "pwrite64":
        return Call("write", name, int(arguments.rpartition(", ")[2]), texts[0][:returned])
    assert call == "write", f"{call} of {name} is not in the model"
    place = places[descriptor]
    places[descriptor] += returned
    return Call("write", name, place, texts[0][:returned])


def _plain(hexadecimal: str) -> bytes:
    return bytes.fromhex(hexadecimal.replace("\\x", ""))


def _within(path: str, directory: str) -> str:
    """The path from the directory; '' outside of it, and of what a power loss erases anyway: the log's index."""
    if path == directory:
        return "."
    if path.startswith(directory + "/") and not path.endswith("-shm"):
        return path[len(directory) + 1 :]
    return ""
