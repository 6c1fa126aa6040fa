"""`tdpipe serve`: serves one model over OpenAI's HTTP API."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from tdpipe.cli.command_settings import (
    ConfigFile,
    Device,
    ModelPath,
    StageCount,
    load_command_settings,
    refuse_cluster_settings,
    setting_option,
)
from tdpipe.cli.termination_message import termination_message_on_error
from tdpipe.core.errors import SettingsError

EPILOG = """\b
Examples:
  tdpipe serve                                    the demo model on 2 CPU or GPU stages
  tdpipe serve ~/models/Qwen3-32B --stages 4 --host 0.0.0.0
  tdpipe serve --config tdpipe.yaml --port 9000   flags override the environment, which overrides the file

\b
Every setting can be given in the file or the environment:
  pipeline: {stages: 4}  in the file, or  TDPIPE_PIPELINE__STAGES=4

Probes are at /health/live and /health/ready, metrics at /metrics. Ctrl-C or SIGTERM stops the server.
"""


def serve(
    directory: Annotated[
        Path | None,
        typer.Argument(help="The same as --model.", metavar="[DIR]", show_default=False),
    ] = None,
    model: ModelPath = None,
    name: Annotated[str | None, setting_option("model", "name", "--name")] = None,
    stages: StageCount = None,
    policy: Annotated[
        str | None, setting_option("scheduler", "policy", "--policy", metavar="NAME")
    ] = None,
    device: Device = None,
    host: Annotated[str | None, setting_option("server", "host", "--host")] = None,
    port: Annotated[int | None, setting_option("server", "port", "--port", metavar="PORT")] = None,
    config: ConfigFile = None,
) -> None:
    """Serve a model over OpenAI's HTTP API."""
    if directory is not None and model is not None:
        raise SettingsError("--model", f"is given, and so is {directory}", "give one of them")
    flags: dict[str, dict[str, Any]] = {
        "model": {"path": model or directory, "name": name, "device": device},
        "pipeline": {"stages": stages},
        "scheduler": {"policy": policy},
        "server": {"host": host, "port": port},
    }
    with termination_message_on_error() as message:
        settings = load_command_settings(config, flags)
        message.path = settings.process.termination_message_path
        refuse_cluster_settings(settings)
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
        logging.getLogger("uvicorn").setLevel(logging.WARNING)

        from tdpipe.cli.server_run import run_server

        run_server(settings)
