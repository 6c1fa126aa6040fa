"""Waking a thread that waits on sockets, from another thread."""

from __future__ import annotations

import contextlib
import socket


class Wakeup:
    """A descriptor to poll beside ZeroMQ sockets, which no second thread may touch."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def fileno(self) -> int:
        return self._reader.fileno()

    def wake(self) -> None:
        """Make the descriptor readable; callable from any thread and after `close`."""
        # A full buffer means that it is readable already.
        with contextlib.suppress(BlockingIOError, OSError):
            self._writer.send(b"\0")

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass

    def close(self) -> None:
        self._reader.close()
        self._writer.close()
