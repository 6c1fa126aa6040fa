"""Runs a serving process: bind the port, answer probes, start the engine, serve, stop.

The engine starts and stops on the main thread. Signals arrive there as exceptions, so that they end a long start at
once.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from tdpipe.cli.command_settings import is_demo
from tdpipe.cli.startup_report import StartupReport
from tdpipe.cli.stop_signals import exit_on_signals, interrupt_on_signals, interrupting_signals
from tdpipe.core.errors import PipelineError, TDPipeError
from tdpipe.core.settings import Settings
from tdpipe.server.app import create_app
from tdpipe.server.engine_port import EnginePort
from tdpipe.server.http_server import HttpServer, listen
from tdpipe.server.served_model import ServedModel, load_served_model
from tdpipe.server.serving import Service, Serving

if TYPE_CHECKING:
    from tdpipe.pipeline.checkpoint_stages import CheckpointStages

_log = logging.getLogger(__name__)
_M_MMAP_THRESHOLD = -3
"""Number of the parameter in glibc's malloc.h."""
_LARGE_BUFFER_BYTES = 2**18
_HEALTH_CHECK_SECONDS = 0.5
"""Time between checks of the engine's health."""


def run_server(settings: Settings) -> None:
    """Serve until Ctrl-C or SIGTERM. A failed engine ends the process, so that a supervisor can start another one.

    Args:
        settings: all settings, with `model.path` and `model.name` set.

    Raises:
        SettingsError: the port is in use, or a setting does not fit the model.
        ModelError: the model cannot be served.
        PipelineError: the engine does not start, or fails while it serves.
    """
    server_settings = settings.server
    _check_model(settings)
    _return_large_buffers()
    report, serving = StartupReport(), Serving()
    listener = listen(server_settings)
    server = HttpServer(create_app(serving, server_settings.cors_origins), listener)

    def progress(message: str) -> None:
        interrupt_on_signals()  # Ray installs a handler of its own while it starts.
        serving.progress(message)
        report.step(message)

    with interrupting_signals():
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
            report.ready(
                server_settings,
                model.name,
                chat=model.tokenizer.has_chat_template,
                demo=is_demo(settings),
            )
            raise _wait_for_failure(engine, server)
        except (KeyboardInterrupt, SystemExit):
            report.step("stopping; press Ctrl-C again to exit at once")
        finally:
            exit_on_signals()
            serving.stop()
            # The engine is closed first: running requests then fail, and the server need not wait for them.
            if engine is not None:
                engine.close()
            server.stop()


def _wait_for_failure(engine: EnginePort, server: HttpServer) -> TDPipeError:
    """Wait until the engine or the HTTP server has failed, and return the reason."""
    while not server.ended.wait(_HEALTH_CHECK_SECONDS):
        if (error := engine.health().error) is not None:
            return error
    return PipelineError("the HTTP server stopped unexpectedly; see the log")


def _return_large_buffers() -> None:
    """Let glibc give the memory of large request bodies back to the system.

    By default it keeps buffers up to the size of the largest one that was ever freed (mallopt(3), M_MMAP_THRESHOLD).
    """
    with contextlib.suppress(OSError, AttributeError):  # other C libraries do without
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BUFFER_BYTES)


def _check_model(settings: Settings) -> None:
    """Refuse what files alone tell to be wrong, before the port is taken and slow libraries are imported."""
    from tdpipe.model.description import check_checkpoint

    assert settings.model.path is not None
    check_checkpoint(settings.model.path, settings.pipeline.stages)


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
        # The terminal shows the error as one line, so a stage's traceback goes to the log.
        if "\n" in str(error):
            _log.error("the pipeline did not start: %s", error)
        raise
