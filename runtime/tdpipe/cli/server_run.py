"""The life of a serving process: bind, answer probes, start the engine, serve, stop.

The engine starts and stops on the main thread, where signals arrive as exceptions and so end a long
load at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from tdpipe.cli.demo import with_model
from tdpipe.cli.startup_report import StartupReport
from tdpipe.cli.stop_signals import exit_on_signals, interrupt_on_signals, own_signals
from tdpipe.core.errors import PipelineError
from tdpipe.core.settings import Settings
from tdpipe.server.app import create_app
from tdpipe.server.engine_port import EnginePort
from tdpipe.server.http_server import HttpServer, listen
from tdpipe.server.served_model import ServedModel, load_served_model
from tdpipe.server.serving import Service, Serving

if TYPE_CHECKING:
    from tdpipe.pipeline.checkpoint_stages import CheckpointStages

_log = logging.getLogger(__name__)
_CHECK_SECONDS = 0.5
"""Between looks at the engine's health."""


def run_server(settings: Settings) -> None:
    """Serve until Ctrl-C or SIGTERM. A failed engine ends the process, so that a supervisor starts another.

    Raises:
        SettingsError: the port is taken, or a setting does not fit the model.
        ModelError: the model cannot be served.
        PipelineError: the engine does not start, or fails while it serves.
    """
    settings = with_model(settings)
    server_settings = settings.server
    report, serving = StartupReport(), Serving()
    listener = listen(server_settings)
    server = HttpServer(create_app(serving), listener)

    def progress(message: str) -> None:
        interrupt_on_signals()  # while it starts, Ray puts a handler of its own in place
        serving.progress(message)
        report.step(message)

    with own_signals():
        engine: EnginePort | None = None
        try:
            server.start()
            progress(f"listening on {server_settings.host}:{server_settings.port}")
            from tdpipe.controller.start import plan_stages

            stages = plan_stages(settings)
            model = _load_model(settings, stages)
            engine = _start_engine(settings, stages, progress)
            interrupt_on_signals()
            serving.ready(Service(engine, model))
            report.ready(server_settings, model.name, chat=model.tokenizer.has_chat_template)
            raise PipelineError(_reason_to_end(engine, server))
        except (KeyboardInterrupt, SystemExit):
            report.step("stopping; Ctrl-C again forces")
        finally:
            exit_on_signals()
            serving.stop()
            # Closing the engine first fails the running requests, so that their responses end and
            # the server can stop.
            if engine is not None:
                engine.close()
            server.stop()


def _reason_to_end(engine: EnginePort, server: HttpServer) -> str:
    """Waits until the engine or the server has failed: either is of no use alone."""
    while not server.ended.wait(_CHECK_SECONDS):
        if (error := engine.health().error) is not None:
            return error
    return "the HTTP server ended by itself; the log says why"


def _load_model(settings: Settings, stages: CheckpointStages) -> ServedModel:
    description, name = stages.description, settings.model.name
    assert name is not None
    return load_served_model(description.path, name, description.eos_token_ids)


def _start_engine(
    settings: Settings, stages: CheckpointStages, progress: Callable[[str], None]
) -> EnginePort:
    from tdpipe.controller.start import start_engine

    try:
        return start_engine(settings, stages, progress)
    except PipelineError as error:
        # The error's line on the terminal has no room for a stage's own traceback.
        if "\n" in str(error):
            _log.error("the pipeline did not start: %s", error)
        raise
