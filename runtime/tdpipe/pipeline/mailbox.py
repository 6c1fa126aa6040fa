"""Messages between threads of one process, in place of sockets."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from tdpipe.core.step import StageReport, Step

T = TypeVar("T")


class MailboxClosedError(Exception):
    """Ends a thread that waits for a message of a closed pipeline."""


class Mailbox(Generic[T]):
    """A queue whose receivers can be sent home; as it is, a `FeedbackChannel`."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[T | None] = queue.SimpleQueue()
        self._closed = False

    def send(self, message: T) -> None:
        """Never blocks."""
        self._queue.put(message)

    def receive(self) -> T:
        """The next message; blocks.

        Raises:
            MailboxClosedError: there is none and will be none.
        """
        if self._closed:  # `receive_ready` may have taken what wakes a receiver
            raise MailboxClosedError
        return self._open(self._queue.get())

    def receive_ready(self) -> T | None:
        """The next message if one is there."""
        try:
            return self._open(self._queue.get_nowait())
        except queue.Empty:
            return None

    def close(self) -> None:
        """Wake the receiver; what it has not taken yet is dropped."""
        self._closed = True
        self._queue.put(None)

    def _open(self, message: T | None) -> T:
        if self._closed or message is None:
            raise MailboxClosedError
        return message


class MailboxControl:
    """`ControlChannel` of a stage in a thread."""

    def __init__(self, steps: Mailbox[Step], report: Callable[[StageReport], None]) -> None:
        self._steps = steps
        self._report = report

    def receive(self) -> Step | None:
        try:
            return self._steps.receive()
        except MailboxClosedError:
            return None

    def receive_ready(self) -> Step | None:
        try:
            return self._steps.receive_ready()
        except MailboxClosedError:
            return None

    def report(self, report: StageReport) -> None:
        self._report(report)


class MailboxActivations:
    """`ActivationChannel` that hands tensors over by reference."""

    def __init__(self, mailbox: Mailbox[Tensor]) -> None:
        self._mailbox = mailbox

    def send(self, hidden: Tensor) -> None:
        self._mailbox.send(hidden)

    def expect(self, tokens: int) -> None:
        """Whatever was sent is here at once."""

    def receive(self, tokens: int) -> Tensor:
        hidden = self._mailbox.receive()
        if hidden.shape[0] != tokens:
            raise ValueError(f"received activations of {hidden.shape[0]} tokens, expected {tokens}")
        return hidden
