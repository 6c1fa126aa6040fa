"""Runs a serving process: bind the port, answer probes, start the engine, serve, drain, stop.

The engine starts and stops on the main thread. Signals arrive there as exceptions, so that they end a long start at
once.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from tdpipe.cli.command_settings import is_demo
from tdpipe.cli.startup_report import StartupReport
from tdpipe.cli.stop_signals import exit_on_signals, interrupt_on_signals, interrupting_signals
from tdpipe.core.errors import PipelineError, TDPipeError
from tdpipe.core.settings import ServerSettings, Settings
from tdpipe.server.app import create_app
from tdpipe.server.engine_port import EnginePort
from tdpipe.server.http_server import HttpServer, listen
from tdpipe.server.served_model import ServedModel, load_served_model
from tdpipe.server.serving import Service, Serving

if TYPE_CHECKING:
    from tdpipe.pipeline.base import PipelineHost
    from tdpipe.pipeline.checkpoint_stages import CheckpointStages

    StartHost = Callable[[Settings, CheckpointStages, Callable[[str], None]], PipelineHost]

_log = logging.getLogger(__name__)
_M_MMAP_THRESHOLD = -3
"""Number of the parameter in glibc's malloc.h."""
_LARGE_BUFFER_BYTES = 2**18
_HEALTH_CHECK_SECONDS = 1.0
"""Time between checks of the engine's health."""
_DRAIN_CHECK_SECONDS = 0.1


def run_server(settings: Settings, start_host: StartHost | None = None) -> None:
    """Serve until Ctrl-C or SIGTERM. A failed engine ends the process, so that a supervisor can start another one.

    Args:
        settings: all settings, with `model.path` and `model.name` set.
        start_host: starts what hosts the stages. None hosts them on this machine.

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
        if threading.current_thread() is threading.main_thread():
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
            host = None if start_host is None else start_host(settings, stages, progress)
            engine = _start_engine(settings, stages, progress, host)
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
            exit_on_signals()
            if engine is not None:
                _drain(serving, engine, server_settings, report)
            report.step("stopping; press Ctrl-C again to exit at once")
        finally:
            exit_on_signals()  # after an error, too
            serving.stop()
            # The engine is closed first: requests that still run then fail, and the server need not wait for them.
            if engine is not None:
                engine.close()
            server.stop()


def _wait_for_failure(engine: EnginePort, server: HttpServer) -> TDPipeError:
    """Wait until the engine or the HTTP server has failed, and return the reason."""
    while not server.ended.wait(_HEALTH_CHECK_SECONDS):
        interrupt_on_signals()  # A restart of the stages starts Ray again.
        if (error := engine.health().error) is not None:
            return error
    return PipelineError("the HTTP server stopped unexpectedly; see the log")


def _drain(
    serving: Serving, engine: EnginePort, settings: ServerSettings, report: StartupReport
) -> None:
    """Let requests in work finish, up to the limits of the settings. It ends early if the engine fails."""

    def wait(seconds: float, done: Callable[[], bool]) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not done() and engine.health().error is None:
            time.sleep(_DRAIN_CHECK_SECONDS)

    serving.drain()
    if settings.drain_pause:
        report.step(
            f"draining: taking requests for another {settings.drain_pause:g} s; press Ctrl-C again to exit at once"
        )
        wait(settings.drain_pause, lambda: False)
    serving.refuse()
    if count := serving.calls:
        report.step(
            f"finishing {count} requests, up to {settings.drain_timeout:g} s; press Ctrl-C again to exit at once"
        )
        wait(settings.drain_timeout, lambda: serving.calls == 0)


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
    settings: Settings,
    stages: CheckpointStages,
    progress: Callable[[str], None],
    host: PipelineHost | None,
) -> EnginePort:
    from tdpipe.controller.start import start_engine

    try:
        return start_engine(settings, stages, progress, host)
    except PipelineError as error:
        # The terminal shows the error as one line, so a stage's traceback goes to the log.
        if "\n" in str(error):
            _log.error("the pipeline did not start: %s", error)
        raise
