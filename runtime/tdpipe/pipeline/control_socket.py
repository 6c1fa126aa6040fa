"""Steps to the stages and reports back, over ZeroMQ.

One ROUTER at the controller serves all stages: one address and one socket to poll, whatever the
number of stages, and it says at once if a stage is not there. Besides steps and reports there is
one message, the empty one: from a stage it says hello, from the controller goodbye.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import zmq

from tdpipe.core.errors import PipelineError
from tdpipe.core.step import StageReport, Step
from tdpipe.core.wire import decode, encode
from tdpipe.pipeline.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tdpipe.pipeline.secure_sockets import SecureSockets

HELLO = GOODBYE = b""


class ControlServer:
    """The controller's end."""

    def __init__(self, sockets: SecureSockets, host: str, stages: int) -> None:
        self._stages = [_routing_id(stage) for stage in range(stages)]
        self._socket, self.address = sockets.bind(zmq.ROUTER, host)
        # A message to a stage that is not connected is an error, not silence.
        self._socket.router_mandatory = True
        self._wakeup = Wakeup()
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._wakeup.fileno(), zmq.POLLIN)

    def await_stages(self, timeout: float) -> list[int]:
        """Wait up to `timeout` seconds for every stage's hello; returns those that are missing."""
        missing = set(self._stages)
        deadline = time.monotonic() + timeout
        while missing and self._socket.poll(_milliseconds(deadline - time.monotonic())):
            missing.discard(self._socket.recv_multipart()[0])
        return sorted(int(stage) for stage in missing)

    def send(self, step: Step) -> None:
        """Pass a step to every stage; never blocks.

        Raises:
            PipelineError: a stage's connection is gone.
        """
        message = encode(step)
        for stage in self._stages:
            self._send(stage, message)

    def say_goodbye(self) -> None:
        """Tell every stage that can still be reached to end its loop."""
        for stage in self._stages:
            try:
                self._send(stage, GOODBYE)
            except PipelineError:
                continue

    def receive(self, timeout: float | None) -> Sequence[StageReport]:
        """Reports that are there; waits for one or for `interrupt`, but `timeout` seconds at most.

        A timeout of None is for ever.
        """
        self._poller.poll(None if timeout is None else _milliseconds(timeout))
        self._wakeup.clear()
        reports = []
        try:
            while True:
                _, message = self._socket.recv_multipart(zmq.NOBLOCK)
                reports.append(decode(message, StageReport))
        except zmq.Again:
            return reports

    def interrupt(self) -> None:
        """Make a blocked or the next `receive` return; callable from any thread."""
        self._wakeup.wake()

    def close(self) -> None:
        self._socket.close(linger=0)
        self._wakeup.close()

    def _send(self, stage: bytes, message: bytes) -> None:
        try:
            self._socket.send_multipart([stage, message], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            raise PipelineError(f"stage {int(stage)} is not connected any more") from error


class StageControl:
    """A stage's end: its `ControlChannel`."""

    def __init__(self, sockets: SecureSockets, address: str, stage: int) -> None:
        self._socket = sockets.connect(zmq.DEALER, address, _routing_id(stage))
        self._socket.send(HELLO)
        self._dismissed = False

    def receive(self) -> Step | None:
        return None if self._dismissed else self._step(self._socket.recv())

    def receive_ready(self) -> Step | None:
        try:
            return self._step(self._socket.recv(zmq.NOBLOCK))
        except zmq.Again:
            return None

    def _step(self, message: bytes) -> Step | None:
        self._dismissed = message == GOODBYE
        return None if self._dismissed else decode(message, Step)

    def report(self, report: StageReport) -> None:
        self._socket.send(encode(report), zmq.NOBLOCK)


def _milliseconds(seconds: float) -> int:
    # Rounded up: a wait of less than a millisecond must not become a busy loop.
    return max(0, math.ceil(seconds * 1000))


def _routing_id(stage: int) -> bytes:
    return str(stage).encode()
