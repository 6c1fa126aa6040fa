"""`tdpipe controller`: serves one model whose stages are on workers."""

from __future__ import annotations

import logging
from typing import Annotated, Any

from tdpipe.cli.command_settings import (
    ConfigFile,
    Device,
    ModelPath,
    StageCount,
    load_command_settings,
    setting_option,
)
from tdpipe.cli.termination_message import termination_message_on_error

EPILOG = """\b
Examples:
  tdpipe controller --config tdpipe.yaml
  tdpipe controller --model /models/Qwen3-32B --stages 4 --device cuda --token-file /etc/tdpipe/token

\b
It starts the head of Ray on cluster.ray_port and waits for as many workers as the stages need, which
`tdpipe worker` starts on other machines. Probes are at /health/live and /health/ready, metrics at /metrics.
SIGTERM lets running requests finish for up to server.drain_timeout seconds.
"""


def controller(
    model: ModelPath = None,
    name: Annotated[str | None, setting_option("model", "name", "--name")] = None,
    stages: StageCount = None,
    device: Device = None,
    token_file: Annotated[
        str | None, setting_option("cluster", "token_file", "--token-file", metavar="FILE")
    ] = None,
    host: Annotated[str | None, setting_option("server", "host", "--host")] = None,
    port: Annotated[int | None, setting_option("server", "port", "--port", metavar="PORT")] = None,
    config: ConfigFile = None,
) -> None:
    """Serve a model whose stages are on workers."""
    flags: dict[str, dict[str, Any]] = {
        "model": {"path": model, "name": name, "device": device},
        "pipeline": {"stages": stages},
        "cluster": {"token_file": token_file},
        "server": {"host": host, "port": port},
    }
    with termination_message_on_error() as message:
        settings = load_command_settings(config, flags)
        message.path = settings.process.termination_message_path
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
        logging.getLogger("uvicorn").setLevel(logging.WARNING)

        from tdpipe.cli.server_run import run_server
        from tdpipe.pipeline.ray.controller_host import check_controller, start_controller_host

        check_controller(settings)
        run_server(settings, start_controller_host)
