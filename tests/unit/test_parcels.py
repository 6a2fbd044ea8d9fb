"""Payloads in files: what is taken, what is closed, and when memory is written again."""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from poolmgr.errors import BadDescriptor
from poolmgr.parcels.memfds import Memfds
from poolmgr.parcels.parcel import Allowance, Parcel, check, is_memfd, taken
from poolmgr.parcels.passing import ANCILLARY_BYTES, RECEIVE, received, send
from poolmgr.parcels.stream import unread

KIB = 1024
NEITHER = 3  # the access mode that may neither read nor write
A, B = b"a" * 100 * KIB, b"b" * 100 * KIB


@pytest.fixture
def memfds() -> Iterator[Memfds]:
    made = Memfds(4, 1000 * KIB, 1000 * KIB)
    yield made
    made.close()


def write(memfds: Memfds, *parts: bytes) -> Parcel:
    parcel = memfds.write(parts)
    assert parcel is not None
    return parcel


def inode(parcel: Parcel) -> int:
    return os.fstat(parcel.fd).st_ino


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


# ------------------------------------------------------------------------------------------ memory that is used again


def test_what_is_written_is_read_and_the_memory_is_used_again(memfds: Memfds) -> None:
    first = write(memfds, A, b"", b"tail")
    assert first.content() == A + b"tail"
    where = inode(first)
    first.close()
    second = write(memfds, B)
    assert inode(second) == where
    assert second.content() == B
    assert len(memfds) == 1


def test_a_shorter_payload_has_nothing_of_the_last_one_behind_it(memfds: Memfds) -> None:
    long = write(memfds, b"secret" * 60 * KIB)
    where = inode(long)
    long.close()
    for size in (200 * KIB + 7, 70 * KIB, 300 * KIB, 1):
        short = write(memfds, b"s" * size)
        assert inode(short) == where
        assert os.pread(short.fd, 1000 * KIB, 0) == b"s" * size + bytes(360 * KIB - size)
        short.close()


Keep = Callable[[Parcel], Callable[[], Any]]


def _keep_open(parcel: Parcel) -> Callable[[], Any]:
    return parcel.close


def _keep_copy(parcel: Parcel) -> Callable[[], Any]:
    copy = os.dup(parcel.fd)
    parcel.close()
    return lambda: os.close(copy)


def _keep_mapping(parcel: Parcel) -> Callable[[], Any]:
    mapping = mmap.mmap(parcel.fd, 4096, prot=mmap.PROT_READ)
    parcel.close()
    return mapping.close


def _keep_in_socket(parcel: Parcel) -> Callable[[], Any]:
    ours, theirs = socket.socketpair()
    send(ours, b"x", parcel.fd, 0)
    parcel.close()

    def receive() -> None:
        _, ancillary, _, _ = theirs.recvmsg(10, ANCILLARY_BYTES, RECEIVE)
        [fd] = received(ancillary)
        assert not os.get_inheritable(fd)
        os.close(fd)
        ours.close()
        theirs.close()

    return receive


def _keep_in_child(parcel: Parcel) -> Callable[[], Any]:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    parcel.close()
    os.close(reader)

    def end() -> None:
        os.close(writer)
        os.waitpid(child, 0)

    return end


@pytest.mark.parametrize("keep", [_keep_open, _keep_copy, _keep_mapping, _keep_in_socket, _keep_in_child])
def test_while_anybody_may_read_it_it_is_not_written(
    memfds: Memfds, keep: Callable[[Parcel], Callable[[], Any]]
) -> None:
    first = write(memfds, A)
    where = inode(first)
    let_go = keep(first)
    second = write(memfds, B)
    assert inode(second) != where
    second.close()
    let_go()
    found = set()
    for _ in range(3):
        again = write(memfds, B)
        found.add(inode(again))
        again.close()
    assert where in found


def test_somebody_who_has_opened_it_anew_keeps_it_too(memfds: Memfds) -> None:
    first = write(memfds, A)
    where = inode(first)
    anew = os.open(f"/proc/self/fd/{first.fd}", os.O_RDONLY)
    first.close()
    second = write(memfds, B)
    assert inode(second) != where
    assert os.pread(anew, 4, 0) == b"aaaa"
    os.close(anew)


def test_a_forked_child_has_none_of_its_parents(memfds: Memfds) -> None:
    parcel = write(memfds, A)
    where = inode(parcel)
    parcel.close()
    child = os.fork()
    if child == 0:
        own = memfds.write([B])
        os._exit(0 if own is not None and inode(own) != where and len(memfds) == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    again = write(memfds, b"c" * 100 * KIB)
    assert again.content() == b"c" * 100 * KIB


def test_there_are_no_more_than_may_be(memfds: Memfds) -> None:
    kept = [write(memfds, A) for _ in range(4)]
    assert memfds.write([A]) is None
    kept.pop().close()
    assert memfds.write([b"x" * 800 * KIB]) is None  # with the others it would be too much
    assert memfds.write([b"x" * 300 * KIB]) is not None


def test_what_nobody_reads_can_be_given_back(memfds: Memfds) -> None:
    before = open_files()
    kept = [write(memfds, A) for _ in range(3)]
    kept.pop().close()
    memfds.trim(100 * KIB)
    assert len(memfds) == 1  # the others are read, and go with those who read them
    assert [each.content() for each in kept] == [A, A]
    for each in kept:
        each.close()
    memfds.trim(0)
    assert len(memfds) == 0
    assert open_files() == before


def test_more_than_is_to_be_kept_is_not_kept() -> None:
    memfds = Memfds(10, 10_000 * KIB, 250 * KIB)
    kept = [write(memfds, A) for _ in range(5)]
    assert len(memfds) == 5
    for each in kept:
        each.close()
    write(memfds, A).close()
    assert len(memfds) <= 3
    memfds.close()


def test_a_descriptor_that_a_task_has_closed_is_not_written_to(memfds: Memfds, tmp_path: Path) -> None:
    parcel = write(memfds, A)
    mine = next(fd for fd in range(1000) if fd != parcel.fd and _same_file(fd, parcel.fd))
    parcel.close()
    os.close(mine)
    (tmp_path / "file").write_bytes(b"mine")
    other = os.open(tmp_path / "file", os.O_RDWR)
    os.dup2(other, mine)
    os.close(other)
    write(memfds, B).close()
    assert (tmp_path / "file").read_bytes() == b"mine"
    memfds.close()
    os.close(mine)  # nor was it closed


def _same_file(one: int, other: int) -> bool:
    try:
        return os.fstat(one).st_ino == os.fstat(other).st_ino
    except OSError:
        return False


@pytest.mark.parametrize("missing", ["F_SETLEASE", "F_SETSIG"])
def test_without_leases_each_has_a_new_file(memfds: Memfds, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setattr(fcntl, missing, 99_999)
    before = open_files()
    kept = [write(memfds, A) for _ in range(20)]  # more than there may be of those that are used again
    assert len({inode(each) for each in kept}) == 20
    assert open_files() == before + 20 + len(memfds)
    for each in kept:
        assert each.content() == A
        each.close()
    write(memfds, A).close()
    assert len(memfds) == 0
    assert open_files() == before


def test_where_the_system_refuses_there_is_none(memfds: Memfds, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(24, "too many open files")

    before = open_files()
    monkeypatch.setattr(os, "memfd_create", refuse)
    assert memfds.write([A]) is None
    monkeypatch.undo()
    monkeypatch.setattr(os, "pwritev", refuse)
    assert memfds.write([A]) is None
    assert open_files() == before
    monkeypatch.undo()
    assert write(memfds, A).content() == A


def test_many_parts_and_a_lease_that_is_in_the_way(memfds: Memfds) -> None:
    parts = [bytes([number % 256]) * 100 for number in range(3000)]
    parcel = write(memfds, *parts)
    assert parcel.content() == b"".join(parts)
    assert signal.getsignal(signal.SIGURG) in (signal.SIG_DFL, None)  # which is to ignore it


# ------------------------------------------------------------------------------------------ what is held


def test_a_parcel_equals_what_has_the_same_content(memfds: Memfds) -> None:
    long = b"x" * 300 * KIB
    one, other = write(memfds, long), write(memfds, long[:-1] + b"y")
    assert one == long
    assert one != other
    assert other != long
    assert one != long[:-1]
    assert one != "text"
    assert len(one) == len(long)


def test_it_is_closed_once_and_gives_its_allowance_back() -> None:
    whole = Allowance(3)
    part = Allowance(2, whole)
    before = open_files()
    held = [taken(os.dup(0), 0, part) for _ in range(2)]
    assert all(isinstance(each, Parcel) for each in held)
    assert isinstance(taken(os.open("/dev/null", os.O_RDONLY), 0, part), bytes)  # read, and closed
    assert (part.taken, whole.taken) == (2, 2)
    assert whole.take()
    assert not Allowance(5, whole).take()
    assert isinstance(held[0], Parcel)
    held[0].close()
    held[0].close()
    held.clear()
    assert (part.taken, whole.taken) == (0, 1)
    assert open_files() == before


def test_a_file_that_has_become_shorter_is_made_up_for() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(A)
        file.flush()
        parcel = Parcel(os.dup(file.fileno()), len(A))
        file.truncate(10)
        assert parcel.content() == b"a" * 10 + b"\xc1" * (len(A) - 10)
        assert parcel.read(0, 20) == b"a" * 10
        assert parcel.read_own(5, 20) == b"a" * 5 + bytes(15)
        assert parcel != A


def test_a_file_that_cannot_be_read_is_made_up_for() -> None:
    parcel = Parcel(opened(NEITHER), 1000)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pread(parcel.fd, 1, 0)
    assert parcel.content() == b"\xc1" * 1000
    assert parcel.read(0, 10) == b""
    assert parcel.read_own(0, 10) == bytes(10)
    assert parcel != bytes(1000)
    assert Parcel(opened(os.O_RDONLY), 1000) != parcel
    os.close(parcel.fd)  # as a task may do
    parcel.close()
    allowance = Allowance(0)
    assert taken(opened(NEITHER), 5, allowance) == b"\xc1" * 5


# ------------------------------------------------------------------------------------------ what is taken of peers


def memfd(size: int, seals: int = fcntl.F_SEAL_SHRINK) -> int:
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def opened(flags: int) -> int:
    fd = memfd(1000)
    try:
        return os.open(f"/proc/self/fd/{fd}", flags)
    finally:
        os.close(fd)


def a_file() -> int:
    fd, path = tempfile.mkstemp()
    os.unlink(path)
    os.ftruncate(fd, 1000)
    return fd


WRONG: list[Callable[[], int]] = [
    lambda: os.pipe2(os.O_CLOEXEC)[0],
    lambda: os.open("/", os.O_RDONLY),
    lambda: os.open("/dev/zero", os.O_RDONLY),
    lambda: socket.socket(socket.AF_UNIX).detach(),
    a_file,
    lambda: opened(os.O_WRONLY),
    lambda: opened(NEITHER),
    lambda: opened(os.O_PATH),
    lambda: memfd(1000, fcntl.F_SEAL_GROW),
    lambda: memfd(999),
    lambda: os.pidfd_open(os.getpid()),
]


@pytest.mark.parametrize("make", WRONG)
def test_what_is_no_such_memfd_is_refused(make: Callable[[], int]) -> None:
    fd = make()
    with pytest.raises(BadDescriptor):
        check(fd, 1000, 10, 1000)
    os.close(fd)


@pytest.mark.parametrize("size", [9, 1001, -1, 1 << 70, True, None, 500.0, "500", b"500"])
def test_a_size_is_a_number_within_its_bounds(size: Any) -> None:
    fd = memfd(5000)
    with pytest.raises(BadDescriptor):
        check(fd, size, 10, 1000)
    check(fd, 1000, 10, 1000)
    assert is_memfd(fd)
    os.close(fd)


def test_how_much_a_peer_has_not_read_is_known_well_enough() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert unread(ours) == 0
        for _ in range(5):
            ours.send(b"x")
        assert unread(ours) >= 5
        theirs.recv(100)
        assert unread(ours) == 0
