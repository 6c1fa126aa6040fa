"""The options and the environment of Ray's processes, and the check whether a raylet answers."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tdpipe.core.errors import SettingsError
from tdpipe.core.settings import ClusterSettings
from tdpipe.pipeline.ray.node import NodePorts, head_options, ray_environment, worker_options
from tdpipe.pipeline.ray.raylet_probe import raylet_answers

if TYPE_CHECKING:
    from collections.abc import Callable

SETTINGS = b"\0\0\0\4\0\0\0\0\0"
FOLDER = Path("/tmp/folder")


def test_ports_lie_in_the_range_of_the_settings_and_differ() -> None:
    options = dict(option.split("=") for option in NodePorts(7000).options())
    low, high = int(options.pop("--min-worker-port")), int(options.pop("--max-worker-port"))
    ports = sorted(map(int, options.values()))
    assert ports == list(range(7000, 7000 + len(ports)))
    assert ports[-1] < low < high == 7099


def test_the_head_takes_no_work_and_opens_no_dashboard() -> None:
    options = head_options(ClusterSettings(ray_port=7001), "10.0.0.1", FOLDER)
    for option in ("--num-cpus=0", "--num-gpus=0", "--include-dashboard=false", "--port=7001"):
        assert option in options


@pytest.mark.parametrize("gpus", [None, 0])
def test_a_worker_offers_its_cpus_and_its_place(gpus: int | None) -> None:
    options = worker_options(
        ClusterSettings(),
        "c:6379",
        "10.0.0.2",
        FOLDER,
        cpus=3,
        gpus=gpus,
        resources={"tdpipe_1_0": 2.0},
    )
    assert "--address=c:6379" in options
    assert "--num-cpus=3" in options
    assert '--resources={"tdpipe_1_0": 2.0}' in options
    assert ("--num-gpus=0" in options) == (gpus == 0)


def test_the_secret_is_taken_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("secret")
    environment = ray_environment(ClusterSettings(token_file=file))
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_AUTH_TOKEN_PATH"] == str(file)


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", "missing"])
def test_a_secret_that_cannot_be_used_is_refused(tmp_path: Path, content: object) -> None:
    file = tmp_path / "token"
    if isinstance(content, bytes):
        file.write_bytes(content)
    settings = ClusterSettings(token_file=None if content is None else file)
    with pytest.raises(SettingsError, match=r"^cluster\.token_file: "):
        ray_environment(settings)


def answer(reply: Callable[[socket.socket], object]) -> bool:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                reply(connection)

        threading.Thread(target=serve, daemon=True).start()
        return raylet_answers("127.0.0.1", listener.getsockname()[1], timeout=0.5)


def test_only_a_greeting_of_http2_is_an_answer() -> None:
    assert answer(lambda connection: connection.sendall(SETTINGS))
    assert not answer(lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n"))
    assert not answer(lambda connection: connection.close())
    assert not answer(lambda connection: connection.recv(1))


def test_a_closed_port_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert not raylet_answers("127.0.0.1", port)
