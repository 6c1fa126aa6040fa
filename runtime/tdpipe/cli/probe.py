"""`tdpipe probe`: asks a controller or a worker on this machine for its health, as a shell or a supervisor needs it."""

from __future__ import annotations

import http.client
import json
from enum import StrEnum
from typing import Annotated

import typer

from tdpipe.cli.command_settings import ConfigFile
from tdpipe.core.settings import Settings, load_settings

EPILOG = """\b
Examples:
  tdpipe probe ready                 the endpoint of `tdpipe serve` or `tdpipe controller`
  tdpipe probe worker-live

\b
It exits with 0 if the probe passes and with 1 if not, and prints the reason. The addresses are those of the
settings: server.host and server.port, or cluster.probe_host and cluster.probe_port.
"""

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_TIMEOUT_SECONDS = 5.0


class Probe(StrEnum):
    """The probes that there are."""

    LIVE = "live"
    READY = "ready"
    WORKER_LIVE = "worker-live"
    WORKER_READY = "worker-ready"


def probe(
    name: Annotated[Probe, typer.Argument(help="Which probe to run.", show_default=False)],
    config: ConfigFile = None,
) -> None:
    """Run a health probe of a process on this machine."""
    host, port = _address(name, load_settings(config))
    path = f"/health/{name.removeprefix('worker-')}"
    try:
        connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_SECONDS)
        connection.request("GET", path)
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        typer.echo(f"no answer from http://{host}:{port}{path}: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(answer.get("reason") or answer.get("status"))
    if response.status != http.client.OK:
        raise typer.Exit(1)


def _address(name: Probe, settings: Settings) -> tuple[str, int]:
    if name in (Probe.WORKER_LIVE, Probe.WORKER_READY):
        host, port = settings.cluster.probe_host, settings.cluster.probe_port
    else:
        host, port = settings.server.host, settings.server.port
    return _ANY_ADDRESS.get(host, host), port
