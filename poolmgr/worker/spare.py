"""A spare: a process that was forked from the template ahead of time, and waits to be told which worker it is.

Two forks, one behind the other, are half of what a new worker takes. So once nothing has been asked of it for a moment,
the template forks one more; the next worker is that one, and the template makes another when things are quiet again.
The daemon knows of it, so that it is not taken for something that a task has left behind.
"""

from __future__ import annotations

import os
import signal
import socket
from array import array
from select import poll

import msgpack

from poolmgr.worker.channels import Channels, Wanted
from poolmgr.worker.warden import stat

_PACKET_BYTES = 4096
_DESCRIPTORS = socket.CMSG_SPACE(4 * len(Channels._fields))


class Spare:
    """The template's end of one, and, in its process, the other."""

    def __init__(self) -> None:
        """Raises ``OSError`` where no more files may be opened."""
        self.pid = -1
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def forked(self, pid: int) -> None:
        """In the template: this is it."""
        self.pid = pid
        self._theirs.close()

    def become(self, wanted: Wanted) -> bool:
        """In the template: have it be that worker. False: it cannot, as it has ended, or was stopped. Either way it is
        used up."""
        ended = poll()
        ended.register(self._ours, 0)  # asks for POLLHUP alone: as long as there is none, the number is its own
        if not ended.poll(0) and stat(self.pid)[:1] in (["T"], ["t"]):
            os.kill(self.pid, signal.SIGKILL)
            self._ours.close()
            return False
        told = msgpack.packb((wanted.spawn, wanted.worker, wanted.incarnation, wanted.group))
        try:
            socket.send_fds(self._ours, [told], wanted.channels)
        except OSError:
            return False
        finally:
            self._ours.close()
        return True

    def disown(self) -> None:
        """In a process that the template has forked for something else, or in the template where there was no fork: a
        socket with a second holder does not come to its end with the first."""
        self._ours.close()
        self._theirs.close()

    def wait(self) -> Wanted | None:
        """In its own process: the worker that it is to be. None: the template is gone."""
        self._ours.close()
        data, fds, _, _ = self._theirs.recvmsg(_PACKET_BYTES, _DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
        self._theirs.close()
        if not data:
            return None
        spawn, worker, incarnation, group = msgpack.unpackb(data)
        return Wanted(spawn, worker, incarnation, group, None, Channels(*array("i", fds[0][2])))
