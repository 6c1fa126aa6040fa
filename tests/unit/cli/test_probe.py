"""`tdpipe probe` against real ports."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from tdpipe.cli.app import app
from tdpipe.worker.probes import ProbeServer
from tests.support.endpoint import free_port, scripted_engine, serve


def run(name: str, **environment: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["probe", name], env=environment)
    return result.exit_code, result.output.strip()


@pytest.mark.parametrize(
    ("name", "reason", "expected"),
    [
        ("worker-live", None, (0, "live")),
        ("worker-ready", None, (0, "ready")),
        ("worker-ready", "stage 1 is loading", (1, "stage 1 is loading")),
    ],
)
def test_a_workers_probe_passes_or_tells_the_reason(
    name: str, reason: str | None, expected: tuple[int, str]
) -> None:
    path = f"/health/{name.removeprefix('worker-')}"
    server = ProbeServer("127.0.0.1", 0, {path: lambda: reason})
    server.start()
    try:
        assert run(name, TDPIPE_CLUSTER__PROBE_PORT=str(server.port)) == expected
    finally:
        server.stop()


def test_the_endpoints_probe_passes_or_tells_the_reason() -> None:
    engine = scripted_engine()
    with serve(engine) as endpoint:
        port = endpoint.url.rpartition(":")[2]
        assert run("ready", TDPIPE_SERVER__PORT=port) == (0, "ready")
        assert run("live", TDPIPE_SERVER__PORT=port) == (0, "live")
        engine.alive = False
        assert run("live", TDPIPE_SERVER__PORT=port) == (1, "the engine's loop stands still")
        engine.reason = "recovering"
        assert run("ready", TDPIPE_SERVER__PORT=port) == (1, "recovering")
        endpoint.serving.drain()
        assert run("ready", TDPIPE_SERVER__PORT=port) == (1, "draining")


def test_nobody_who_answers_fails_the_probe() -> None:
    code, output = run("ready", TDPIPE_SERVER__PORT=str(free_port()))
    assert code == 1
    assert "no answer from http://127.0.0.1:" in output
