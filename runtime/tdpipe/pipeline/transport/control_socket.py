"""The ZeroMQ sockets that carry steps to the stages and reports back.

One ROUTER socket at the controller serves all stages, so there is one address and one socket to poll for any number of
stages, and sending to a stage that is not connected fails at once. The only other messages are an empty one, which a
stage sends as hello when it connects and the controller sends to stop the stage, and one that asks for nothing, by
which the controller finds out which stage has lost its connection.
"""

from __future__ import annotations

import contextlib
import math
import socket
import time
from typing import TYPE_CHECKING

import zmq
from zmq.utils.monitor import recv_monitor_message

from tdpipe.core.errors import PipelineError
from tdpipe.core.step import StageReport, Step
from tdpipe.core.wire import decode, encode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tdpipe.pipeline.transport.secure_sockets import SecureSockets

_HELLO = _STOP = b""
_PROBE = b"\0"
_SUSPICION_SECONDS = 2.0
"""Time after the end of a connection in which stages are probed, because ZeroMQ still accepts messages for the peer at
first. The connection may have been a stranger's."""
_PROBE_SECONDS = 0.1


class ControlServer:
    """The controller's end of the connections to all stages."""

    def __init__(self, sockets: SecureSockets, host: str, stages: int) -> None:
        self._stages = [_routing_id(stage) for stage in range(stages)]
        self._socket, self.address = sockets.bind(zmq.ROUTER, host)
        # Without this option, ZeroMQ silently drops a message to a stage that is not connected.
        self._socket.router_mandatory = True
        self._wakeup = _Wakeup()
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._wakeup.fileno(), zmq.POLLIN)
        self._connections = _Connections(self._socket)
        self._poller.register(self._connections.monitor, zmq.POLLIN)
        self._authenticated = 0
        """Number of connections that peers with the attempt's key have made. Each stage makes one."""
        self._suspicious_until = 0.0
        self._lost: PipelineError | None = None

    def await_stages(self, timeout: float) -> list[int]:
        """Wait up to `timeout` seconds until every stage has connected, and return the missing stages."""
        missing = set(self._stages)
        deadline = time.monotonic() + timeout
        while missing and self._socket.poll(_milliseconds(deadline - time.monotonic())):
            missing.discard(self._socket.recv_multipart()[0])
        return sorted(int(stage) for stage in missing)

    def send(self, step: Step) -> None:
        """Send a step to every stage without blocking.

        Raises:
            PipelineError: a stage is no longer connected.
        """
        message = encode(step)
        for stage in self._stages:
            self._send(stage, message)

    def stop_stages(self) -> None:
        """Ask every stage that is still connected to end its loop."""
        for stage in self._stages:
            try:
                self._send(stage, _STOP)
            except PipelineError:
                continue

    def receive(self, timeout: float | None) -> Sequence[StageReport]:
        """Return the reports that have arrived.

        If there are none, the call waits for one or for `interrupt`, up to `timeout` seconds. None is no limit.

        Raises:
            PipelineError: a stage has lost its connection, and there are no reports.
        """
        if time.monotonic() < self._suspicious_until:
            timeout = _PROBE_SECONDS if timeout is None else min(timeout, _PROBE_SECONDS)
        self._poller.poll(None if timeout is None else _milliseconds(timeout))
        self._wakeup.clear()
        self._check_connections()
        reports = self._received()
        if not reports and self._lost is not None:
            raise self._lost
        return reports

    def _received(self) -> list[StageReport]:
        reports = []
        try:
            while True:
                _, message = self._socket.recv_multipart(zmq.NOBLOCK)
                reports.append(decode(message, StageReport))
        except zmq.Again:
            return reports

    def interrupt(self) -> None:
        """Make the blocked `receive`, or else the next one, return. Any thread may call this."""
        self._wakeup.wake()

    def close(self) -> None:
        self._connections.close()
        self._socket.close(linger=0)
        self._wakeup.close()

    def _check_connections(self) -> None:
        authenticated, ended = self._connections.changes()
        self._authenticated += authenticated
        if self._authenticated > len(self._stages):
            self._lost = PipelineError(
                "a stage was disconnected for a while, and messages may be lost"
            )
        now = time.monotonic()
        if ended:
            self._suspicious_until = now + _SUSPICION_SECONDS
        if now < self._suspicious_until:
            self._find_lost()

    def _find_lost(self) -> None:
        for stage in self._stages:
            try:
                self._send(stage, _PROBE)
            except PipelineError as error:
                self._lost = error

    def _send(self, stage: bytes, message: bytes) -> None:
        try:
            self._socket.send_multipart([stage, message], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            number = int(stage)
            raise PipelineError(
                f"stage {number} is not connected; its process or its machine does not answer"
            ).in_stage(number) from error


class StageControl:
    """A stage's end of its connection to the controller: a `ControlChannel`."""

    def __init__(self, sockets: SecureSockets, address: str, stage: int) -> None:
        self._socket = sockets.connect(zmq.DEALER, address, _routing_id(stage))
        self._socket.send(_HELLO)
        self._stopped = False

    def receive(self) -> Step | None:
        return None if self._stopped else self._next_step(0)

    def receive_ready(self) -> Step | None:
        try:
            return self._next_step(zmq.NOBLOCK)
        except zmq.Again:
            return None

    def _next_step(self, flags: int) -> Step | None:
        while (message := self._socket.recv(flags)) == _PROBE:
            pass
        self._stopped = message == _STOP
        return None if self._stopped else decode(message, Step)

    def report(self, report: StageReport) -> None:
        self._socket.send(encode(report), zmq.NOBLOCK)


class _Connections:
    """What happens to the connections of a socket, which ZeroMQ only tells by events."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        events = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        self.monitor = socket.get_monitor_socket(events)

    def changes(self) -> tuple[int, int]:
        """Return how many peers have authenticated, and how many connections have ended, since the last call.

        Connections that end need not be those of stages, because anybody can connect before authentication.
        """
        authenticated = ended = 0
        while self.monitor.poll(0):
            event = recv_monitor_message(self.monitor)["event"]
            authenticated += event == zmq.EVENT_HANDSHAKE_SUCCEEDED
            ended += event == zmq.EVENT_DISCONNECTED
        return authenticated, ended

    def close(self) -> None:
        self._socket.disable_monitor()


class _Wakeup:
    """A file descriptor that is polled together with ZeroMQ sockets, which only one thread may use."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def fileno(self) -> int:
        return self._reader.fileno()

    def wake(self) -> None:
        """Make the descriptor readable. Any thread may call this, even after `close`."""
        # If the buffer is full, the descriptor is already readable.
        with contextlib.suppress(BlockingIOError, OSError):
            self._writer.send(b"\0")

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass

    def close(self) -> None:
        self._reader.close()
        self._writer.close()


def _milliseconds(seconds: float) -> int:
    # Rounding up keeps a wait of less than a millisecond from becoming a busy loop.
    return max(0, math.ceil(seconds * 1000))


def _routing_id(stage: int) -> bytes:
    return str(stage).encode()
