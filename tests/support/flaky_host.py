"""A host whose pipelines fail as scripted: threads over fake stages, one script for each start."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import torch

from tdpipe.core.attempt import Attempt
from tdpipe.core.errors import PipelineError
from tdpipe.core.settings import PipelineSettings
from tdpipe.pipeline.in_process import start_in_process

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tdpipe.core.errors import TDPipeError
    from tdpipe.pipeline.stage_group import StagePipeline
    from tests.support.fake_executor import FakeStages


class FlakyHost:
    """A `PipelineHost` that goes through `scripts`, and repeats the last one.

    Args:
        scripts: What each start makes, or the error that it raises.
        hold: Starts after the first one wait until this event is set, or until they are cancelled.
    """

    restartable = True

    def __init__(
        self, scripts: Sequence[FakeStages | TDPipeError], hold: threading.Event | None = None
    ) -> None:
        self._scripts = list(scripts)
        self._hold = hold
        self._cancelled = threading.Event()
        self.starts = 0
        self.closed = False

    def start(self, progress: Callable[[str], None]) -> StagePipeline:
        script = self._scripts[min(self.starts, len(self._scripts) - 1)]
        self.starts += 1
        if self._hold is not None and self.starts > 1:
            progress("held")
            while not self._hold.wait(0.01):
                if self._cancelled.is_set():
                    raise PipelineError("the start was cancelled")
        if isinstance(script, Exception):
            raise script
        settings = PipelineSettings(stages=script.stages)
        pipeline = start_in_process(settings, script, torch.device("cpu"), progress)
        pipeline.attempt = Attempt(1, self.starts)
        return pipeline

    def cancel(self) -> None:
        self._cancelled.set()

    def failure(self) -> None:
        return None

    def close(self) -> None:
        self.closed = True
