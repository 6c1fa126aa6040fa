"""The ZeroMQ socket that carries sampled tokens from the last stage straight to stage 0.

Stage 0 publishes its address at the rendezvous, and the last stage connects to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import zmq

from tdpipe.core.step import TokenFeedback
from tdpipe.core.wire import decode, encode

if TYPE_CHECKING:
    from tdpipe.pipeline.transport.secure_sockets import SecureSockets


class FeedbackSocket:
    """A `FeedbackChannel`. Stage 0 only receives from it, and the last stage only sends to it."""

    def __init__(self, socket: zmq.Socket[bytes], address: str) -> None:
        self._socket = socket
        self.address = address

    @classmethod
    def listen(cls, sockets: SecureSockets, host: str) -> FeedbackSocket:
        """Open stage 0's end on a free port of `host`."""
        return cls(*sockets.bind(zmq.PULL, host))

    @classmethod
    def connect(cls, sockets: SecureSockets, address: str) -> FeedbackSocket:
        """Open the last stage's end."""
        return cls(sockets.connect(zmq.PUSH, address), address)

    def send(self, feedback: TokenFeedback) -> None:
        self._socket.send(encode(feedback), zmq.NOBLOCK)

    def receive(self) -> TokenFeedback:
        return decode(self._socket.recv(), TokenFeedback)

    def receive_ready(self) -> TokenFeedback | None:
        try:
            return decode(self._socket.recv(zmq.NOBLOCK), TokenFeedback)
        except zmq.Again:
            return None
