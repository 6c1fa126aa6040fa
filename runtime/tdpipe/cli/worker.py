"""`tdpipe worker`: hosts stages on this machine for a controller on another one."""

from __future__ import annotations

import logging
import signal
from types import FrameType
from typing import Annotated, Any

from tdpipe.cli.command_settings import ConfigFile, load_command_settings, setting_option
from tdpipe.cli.termination_message import termination_message_on_error

EPILOG = """\b
Examples:
  tdpipe worker --config tdpipe.yaml --address controller:6379 --place 0
  TDPIPE_CLUSTER__PLACE=1 tdpipe worker --config tdpipe.yaml

\b
All machines need the same model directory, settings file and cluster.token_file. A worker may start before the
controller. Probes are at /health/live and /health/ready on cluster.probe_port. SIGTERM stops the worker.
"""


def worker(
    address: Annotated[
        str | None, setting_option("cluster", "address", "--address", metavar="HOST:PORT")
    ] = None,
    place: Annotated[int | None, setting_option("cluster", "place", "--place", metavar="N")] = None,
    epoch: Annotated[int | None, setting_option("cluster", "epoch", "--epoch", metavar="N")] = None,
    config: ConfigFile = None,
) -> None:
    """Host stages on this machine for a controller on another one."""
    flags: dict[str, dict[str, Any]] = {
        "cluster": {"address": address, "place": place, "epoch": epoch}
    }
    with termination_message_on_error() as message:
        settings = load_command_settings(config, flags)
        message.path = settings.process.termination_message_path
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")

        from tdpipe.worker.worker import Worker

        running = Worker(settings)

        def stop(_signal: int, _frame: FrameType | None) -> None:
            running.stop()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        running.run()
