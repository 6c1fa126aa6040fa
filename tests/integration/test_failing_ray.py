"""Whatever keeps Ray from starting is told in one line that names the variable at fault, and nothing is left behind.

Each start is a process of its own, since it is about the environment of one, and about what it leaves.
"""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.endpoint import free_port
from tests.support.served_demo import END_SECONDS, started_demo, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

START_TIMEOUT = 20.0
SIGNAL_SECONDS = 20.0
"""Limit of an end by a signal, which is shorter than Ray's own waits."""


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port where somebody listens who says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connections = []

        def accept() -> None:
            while True:
                try:
                    connections.append(listener.accept())
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("environment", "status", "problem", "remedy"),
    [
        ({"TMPDIR": "/tmp/" + "x" * 98}, 2, "error: TMPDIR: ", "set a folder of at most"),
        (
            {"RAY_ADDRESS": "ray://127.0.0.1:10001"},
            2,
            "error: RAY_ADDRESS: ray://",
            "10.0.0.1:6379",
        ),
        ({"RAY_ADDRESS": "nowhere"}, 2, "error: RAY_ADDRESS: 'nowhere'", "10.0.0.1:6379"),
        ({"RAY_ADDRESS": "127.0.0.1:1"}, 1, "error: RAY_ADDRESS=127.0.0.1:1: ", "ray start --head"),
    ],
    ids=str,
)
def test_a_ray_that_cannot_be_had_is_told_in_one_line(
    environment: dict[str, str], status: int, problem: str, remedy: str
) -> None:
    if "TMPDIR" in environment:
        Path(environment["TMPDIR"]).mkdir(exist_ok=True)
    with started_demo(**environment) as server:
        assert server.await_end() == status, server.stderr()
        text = server.stderr()
        assert "Traceback" not in text
        assert text.splitlines()[-1].startswith(problem)
        assert remedy in text.splitlines()[-1]
        assert server.left_behind() == set()


def test_somebody_else_at_the_address_of_ray_is_not_waited_for_beyond_the_limit(
    silent_port: int,
) -> None:
    address = f"127.0.0.1:{silent_port}"
    limit = {"TDPIPE_PIPELINE__START_TIMEOUT": str(START_TIMEOUT)}
    with started_demo(RAY_ADDRESS=address, **limit) as server:
        assert server.await_end() == 1, server.stderr()
        assert f"error: RAY_ADDRESS={address}: " in server.stderr().splitlines()[-1]
        assert server.left_behind() == set()


def test_a_start_that_waits_for_ray_ends_at_a_signal(silent_port: int) -> None:
    with started_demo(RAY_ADDRESS=f"127.0.0.1:{silent_port}") as server:
        assert wait_until(lambda: "joining Ray" in server.stderr(), END_SECONDS)
        time.sleep(1)
        assert server.signal(signal.SIGTERM) == 0, server.stderr()
        assert server.left_behind() == set()


def test_a_signal_ends_the_wait_for_a_ray_where_nobody_listens() -> None:
    with started_demo(RAY_ADDRESS=f"127.0.0.1:{free_port()}") as server:
        assert wait_until(lambda: "joining Ray" in server.stderr(), END_SECONDS)
        time.sleep(1)
        server.descendants()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(SIGNAL_SECONDS) == 0, server.stderr()
        assert server.left_behind() == set()


@pytest.mark.parametrize("moment", ["placing 2 stages", "loading the weights", "connecting"])
def test_a_signal_to_the_whole_group_ends_a_start_at_any_moment(moment: str) -> None:
    with started_demo() as server:
        assert wait_until(lambda: moment in server.stderr(), END_SECONDS), server.stderr()
        server.descendants()
        os.killpg(server.process.pid, signal.SIGTERM)
        server.process.wait(END_SECONDS)
        assert "Traceback" not in server.stderr()
        assert server.left_behind() == set()


def test_a_server_leaves_no_folder_of_ray_s() -> None:
    # A short path, as Ray's sockets need.
    with (
        tempfile.TemporaryDirectory(prefix="t") as folder,
        started_demo(TMPDIR=folder) as server,
    ):
        server.await_ready()
        assert list(Path(folder).glob("ray-*"))
        assert server.signal(signal.SIGTERM) == 0
        assert not list(Path(folder).glob("ray*"))
