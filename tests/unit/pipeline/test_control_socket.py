from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import zmq

from tdpipe.core.attempt import FIRST_ATTEMPT
from tdpipe.core.errors import PipelineError
from tdpipe.core.step import StageReport, StepOutput, TokenFeedback
from tdpipe.pipeline.transport.control_socket import ControlServer, StageControl
from tdpipe.pipeline.transport.feedback_socket import FeedbackSocket
from tdpipe.pipeline.transport.secure_sockets import (
    HEARTBEAT_TIMEOUT_MS,
    EpochKeys,
    KeyPair,
    SecureSockets,
)
from tests.support.step_driver import row_step, start_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Sockets = Callable[[EpochKeys], SecureSockets]

HOST = "127.0.0.1"
TIMEOUT = 10.0
SHORT_TIMEOUT = 0.3


@pytest.fixture
def keys() -> EpochKeys:
    return EpochKeys.generate()


@pytest.fixture
def sockets() -> Iterator[Callable[[EpochKeys], SecureSockets]]:
    opened: list[SecureSockets] = []

    def open_sockets(keys: EpochKeys) -> SecureSockets:
        opened.append(SecureSockets(keys))
        return opened[-1]

    yield open_sockets
    for each in opened:
        each.close()


def test_steps_reach_every_stage_and_reports_come_back(keys: EpochKeys, sockets: Sockets) -> None:
    server = ControlServer(sockets(keys), HOST, stages=2)
    stages = [StageControl(sockets(keys), server.address, stage) for stage in range(2)]
    assert server.await_stages(TIMEOUT) == []

    step = row_step(0, [(3, 0, 2, True)], (start_of(3, 1, [8, 9]),), [(3, 17)])
    server.send(step)
    for number, stage in enumerate(stages):
        received = stage.receive()
        assert received is not None
        assert received.starts[0].tokens.tolist() == [8, 9]
        assert received.block_slots.tolist() == [3]
        output = StepOutput(0, np.asarray([5], np.int32)) if number else None
        stage.report(StageReport(FIRST_ATTEMPT, 0, number, 0.25, output))

    reports: list[StageReport] = []
    while len(reports) < 2:
        reports += server.receive(TIMEOUT)
    assert {report.stage: report.busy for report in reports} == {0: 0.25, 1: 0.25}
    server.close()


def test_the_stop_message_ends_the_stages(keys: EpochKeys, sockets: Sockets) -> None:
    server = ControlServer(sockets(keys), HOST, stages=1)
    stage = StageControl(sockets(keys), server.address, 0)
    assert server.await_stages(TIMEOUT) == []
    server.stop_stages()
    assert stage.receive() is None
    server.close()


def test_a_stage_receives_waiting_steps_without_blocking(keys: EpochKeys, sockets: Sockets) -> None:
    server = ControlServer(sockets(keys), HOST, stages=1)
    stage = StageControl(sockets(keys), server.address, 0)
    assert server.await_stages(TIMEOUT) == []
    assert stage.receive_ready() is None
    for number in range(3):
        server.send(row_step(number, [(0, 0, 1, True)]))
    server.stop_stages()
    first = stage.receive()
    assert first is not None
    found = [first.id]
    deadline = time.monotonic() + TIMEOUT
    while len(found) < 3 and time.monotonic() < deadline:
        if (step := stage.receive_ready()) is not None:
            found.append(step.id)
    assert found == [0, 1, 2]
    # Either way of receiving may take the stop message.
    stage.receive_ready()
    assert stage.receive() is None
    server.close()


def test_a_missing_stage_is_named(keys: EpochKeys, sockets: Sockets) -> None:
    server = ControlServer(sockets(keys), HOST, stages=2)
    present = StageControl(sockets(keys), server.address, 0)
    assert server.await_stages(SHORT_TIMEOUT) == [1]
    server.stop_stages()
    assert present.receive() is None
    with pytest.raises(PipelineError, match="stage 1 is not connected"):
        server.send(row_step(0, [(0, 0, 1, True)]))
    server.close()


def receive_until(server: ControlServer, deadline: float) -> None:
    while time.monotonic() < deadline:
        server.receive(SHORT_TIMEOUT)


def stay_connected(keys: EpochKeys, address: str) -> None:
    StageControl(SecureSockets(keys), address, 0).receive()


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_a_stage_that_stands_still_or_dies_loses_its_connection(
    keys: EpochKeys, sockets: Sockets, number: signal.Signals
) -> None:
    server = ControlServer(sockets(keys), HOST, stages=1)
    context = multiprocessing.get_context("spawn")
    stage = context.Process(target=stay_connected, args=(keys, server.address))
    stage.start()
    assert server.await_stages(60.0) == []
    assert server.receive(0.5) == []
    assert stage.pid is not None
    os.kill(stage.pid, number)
    deadline = time.monotonic() + 3 * HEARTBEAT_TIMEOUT_MS / 1000
    try:
        with pytest.raises(PipelineError, match="stage 0 is not connected") as caught:
            receive_until(server, deadline)
        assert caught.value.stage == 0
    finally:
        stage.kill()
        server.close()


def test_strangers_that_come_and_go_are_no_failure(keys: EpochKeys, sockets: Sockets) -> None:
    server = ControlServer(sockets(keys), HOST, stages=1)
    stage = StageControl(sockets(keys), server.address, 0)
    assert server.await_stages(TIMEOUT) == []
    port = int(server.address.rpartition(":")[2])
    for _ in range(3):
        socket.create_connection((HOST, port)).close()
        assert server.receive(SHORT_TIMEOUT) == []
    server.send(row_step(0, [(0, 0, 1, True)]))
    step = stage.receive()
    assert step is not None
    server.stop_stages()
    assert stage.receive() is None
    server.close()


def test_a_stage_that_connects_a_second_time_may_have_lost_messages(
    keys: EpochKeys, sockets: Sockets
) -> None:
    server = ControlServer(sockets(keys), HOST, stages=1)
    first = StageControl(sockets(keys), server.address, 0)
    assert server.await_stages(TIMEOUT) == []
    assert server.receive(SHORT_TIMEOUT) == []
    del first
    second = StageControl(sockets(keys), server.address, 0)
    deadline = time.monotonic() + TIMEOUT
    with pytest.raises(PipelineError, match=r"messages may be lost|not connected"):
        receive_until(server, deadline)
    del second
    server.close()


def test_interrupt_ends_a_blocked_receive(keys: EpochKeys, sockets: Sockets) -> None:
    server = ControlServer(sockets(keys), HOST, stages=1)
    threading.Timer(0.05, server.interrupt).start()
    assert server.receive(None) == []
    server.close()


def test_a_peer_with_another_client_key_is_rejected(keys: EpochKeys, sockets: Sockets) -> None:
    server = ControlServer(sockets(keys), HOST, stages=1)
    foreign_keys = EpochKeys(server=keys.server, client=KeyPair.generate())
    rejected = StageControl(sockets(foreign_keys), server.address, 0)
    assert server.await_stages(SHORT_TIMEOUT) == [0]
    del rejected
    # The server still admits a stage that has the key.
    stage = StageControl(sockets(keys), server.address, 0)
    assert server.await_stages(TIMEOUT) == []
    server.stop_stages()
    assert stage.receive() is None
    server.close()


def test_a_peer_without_keys_is_rejected(keys: EpochKeys, sockets: Sockets) -> None:
    server = ControlServer(sockets(keys), HOST, stages=1)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    plain = context.socket(zmq.DEALER)
    plain.routing_id = b"0"
    plain.connect(server.address)
    plain.send(b"")
    assert server.await_stages(SHORT_TIMEOUT) == [0]
    assert plain.poll(0) == 0
    context.destroy(linger=0)
    server.close()


def test_a_stage_rejects_a_controller_with_another_key(keys: EpochKeys, sockets: Sockets) -> None:
    foreign_keys = EpochKeys(server=KeyPair.generate(), client=keys.client)
    server = ControlServer(sockets(foreign_keys), HOST, stages=1)
    stage = StageControl(sockets(keys), server.address, 0)
    assert server.await_stages(SHORT_TIMEOUT) == [0]
    del stage
    server.close()


def test_feedback_travels_from_the_last_stage_to_the_first(
    keys: EpochKeys, sockets: Sockets
) -> None:
    first = FeedbackSocket.listen(sockets(keys), HOST)
    assert first.receive_ready() is None
    last = FeedbackSocket.connect(sockets(keys), first.address)
    for step in range(3):
        last.send(TokenFeedback(step, *[np.asarray([step], np.int32)] * 4))
    assert [first.receive().step for _ in range(3)] == [0, 1, 2]
    assert first.receive_ready() is None


def test_the_repr_of_keys_hides_the_secrets(keys: EpochKeys) -> None:
    assert keys.server.secret.decode() not in repr(keys)
