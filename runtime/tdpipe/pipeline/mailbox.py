"""Queues that carry the messages between stages in threads of one process, in place of sockets."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from tdpipe.core.step import StageReport, Step

T = TypeVar("T")


class MailboxClosedError(Exception):
    """The pipeline is closed, so no message will come. The waiting thread ends."""


class Mailbox(Generic[T]):
    """A queue that can be closed while a receiver waits. It serves as a `FeedbackChannel`."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[T | None] = queue.SimpleQueue()
        self._closed = False

    def send(self, message: T) -> None:
        """Add a message without blocking."""
        self._queue.put(message)

    def receive(self) -> T:
        """Wait for the next message and return it.

        Raises:
            MailboxClosedError: the mailbox is closed.
        """
        if self._closed:  # `receive_ready` may have taken the message that wakes a receiver
            raise MailboxClosedError
        return self._unwrap(self._queue.get())

    def receive_ready(self) -> T | None:
        """Return the next message, or None if there is none.

        Raises:
            MailboxClosedError: the mailbox is closed.
        """
        try:
            return self._unwrap(self._queue.get_nowait())
        except queue.Empty:
            return None

    def close(self) -> None:
        """Wake the receiver and drop the messages that it has not taken."""
        self._closed = True
        self._queue.put(None)

    def _unwrap(self, message: T | None) -> T:
        if self._closed or message is None:
            raise MailboxClosedError
        return message


class MailboxControl:
    """The `ControlChannel` of a stage that runs in a thread."""

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
    """An `ActivationChannel` that passes tensors by reference."""

    def __init__(self, mailbox: Mailbox[Tensor]) -> None:
        self._mailbox = mailbox

    def send(self, hidden: Tensor) -> None:
        self._mailbox.send(hidden)

    def expect(self, tokens: int) -> None:
        """Do nothing: a tensor is available as soon as it is sent."""

    def receive(self, tokens: int) -> Tensor:
        hidden = self._mailbox.receive()
        if hidden.shape[0] != tokens:
            raise ValueError(f"received activations of {hidden.shape[0]} tokens, expected {tokens}")
        return hidden
