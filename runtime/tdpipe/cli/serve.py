"""`tdpipe serve`: the OpenAI-compatible endpoint of one model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from tdpipe.cli.setting_option import only_given, setting_option
from tdpipe.core.settings import load_settings

EPILOG = """\b
Examples:
  tdpipe serve                                    the demo model on 2 CPU or GPU stages
  tdpipe serve --model ~/models/Qwen3-32B --stages 4 --host 0.0.0.0
  tdpipe serve --config tdpipe.yaml --port 9000   flags win over the environment, that over the file

\b
Every setting can be given in the file or the environment:
  pipeline: {stages: 4}  in the file, or  TDPIPE_PIPELINE__STAGES=4

Probes are /health/live and /health/ready, metrics are at /metrics. Ctrl-C or SIGTERM ends all.
"""


def serve(
    model: Annotated[Path | None, setting_option("model", "path", "--model", metavar="DIR")] = None,
    name: Annotated[str | None, setting_option("model", "name", "--name")] = None,
    stages: Annotated[
        int | None, setting_option("pipeline", "stages", "--stages", metavar="N")
    ] = None,
    policy: Annotated[
        str | None, setting_option("scheduler", "policy", "--policy", metavar="NAME")
    ] = None,
    device: Annotated[
        str | None, setting_option("model", "device", "--device", metavar="auto|cpu|cuda")
    ] = None,
    host: Annotated[str | None, setting_option("server", "host", "--host")] = None,
    port: Annotated[int | None, setting_option("server", "port", "--port", metavar="PORT")] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="YAML file of settings.", show_default=False, metavar="FILE"),
    ] = None,
) -> None:
    """Serve a model over HTTP, as OpenAI's API does."""
    flags: dict[str, dict[str, Any]] = {
        "model": {"path": model, "name": name, "device": device},
        "pipeline": {"stages": stages},
        "scheduler": {"policy": policy},
        "server": {"host": host, "port": port},
    }
    settings = load_settings(config, only_given(flags))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)

    from tdpipe.cli.server_run import run_server

    run_server(settings)
