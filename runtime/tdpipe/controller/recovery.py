"""The replacement of a failed pipeline by a new one, in a thread of its own.

A start takes seconds to many minutes, in which the engine goes on to accept and abort requests.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from tdpipe.core.errors import (
    PipelineError,
    RecoveryBudgetError,
    StageMemoryError,
    TDPipeError,
    WorkersChangedError,
    WorkersMissingError,
    one_line,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdpipe.controller.pipeline_starter import PipelineStarter, StartedPipeline
    from tdpipe.controller.restart_budget import RestartBudget
    from tdpipe.pipeline.base import Pipeline

_log = logging.getLogger(__name__)
_PAUSE_SECONDS = 1.0
"""Time between a failed start and the next one."""


class Recovery:
    """Starts a new pipeline after each failure of the one before.

    Args:
        starter: Starts pipelines.
        budget: The limit on starts.
        progress: Called with a line of text for each step of a start.
    """

    def __init__(
        self,
        starter: PipelineStarter,
        budget: RestartBudget,
        progress: Callable[[str], None],
    ) -> None:
        self._starter = starter
        self._budget = budget
        self._progress = progress
        self._cancelled = threading.Event()
        self._thread: threading.Thread | None = None
        self._outcome: StartedPipeline | TDPipeError | None = None
        self.step = ""
        """The step that the start under way is at."""

    def begin(self, failed: Pipeline, error: TDPipeError, on_end: Callable[[], None]) -> None:
        """Close the failed pipeline and start another one.

        Args:
            failed: The pipeline that failed.
            error: Its error.
            on_end: Called in the recovery's thread when `take_outcome` has something to return.
        """
        self._outcome = None
        self.step = "stopping the stages"

        def run() -> None:
            try:
                failed.close()
                self._outcome = self._replace(error)
            except TDPipeError as failure:
                self._outcome = failure
            except Exception as failure:  # a bug must not leave the engine waiting
                _log.exception("the recovery failed")
                self._outcome = PipelineError(f"the recovery failed: {failure!r}")
            on_end()

        self._thread = threading.Thread(target=run, name="recovery", daemon=True)
        self._thread.start()

    def take_outcome(self) -> StartedPipeline | None:
        """Return the new pipeline, or None while it starts.

        Raises:
            TDPipeError: There will be no new pipeline.
        """
        outcome, self._outcome = self._outcome, None
        if isinstance(outcome, TDPipeError):
            raise outcome
        return outcome

    def served(self) -> None:
        """Note that a token was served."""
        self._budget.served()

    def close(self, timeout: float) -> None:
        """Cancel a start under way, wait for it up to `timeout` seconds, and close the pipeline that it has started."""
        self._cancelled.set()
        self._starter.cancel()
        if self._thread is not None:
            self._thread.join(timeout)
        if self._outcome is not None and not isinstance(self._outcome, TDPipeError):
            self._outcome.pipeline.close()
        self._starter.close()

    def failure(self) -> TDPipeError | None:
        """Return why no further pipeline can be started, or None."""
        return self._starter.failure()

    def _replace(self, error: TDPipeError) -> StartedPipeline:
        while True:
            self._check(error)
            _log.warning("restarting all stages: %s", one_line(error))
            try:
                return self._starter.start(self._report)
            except PipelineError as failure:
                # These two took their time already, or would come again.
                if isinstance(failure, StageMemoryError | WorkersMissingError):
                    raise
                error = failure
            self._cancelled.wait(_PAUSE_SECONDS)

    def _check(self, error: TDPipeError) -> None:
        """Raise an error if the pipeline that failed with `error` must not be replaced."""
        final = not isinstance(error, PipelineError) or not self._starter.restartable
        if final or self._budget.none or self._cancelled.is_set():
            raise error
        if (failure := self._starter.failure()) is not None:
            _log.error("no restart: %s", failure)
            raise error
        if isinstance(error, WorkersChangedError):  # whoever manages the workers counts these
            return
        refusal = self._budget.spend(time.monotonic())
        if refusal is None:
            return
        _log.error("no restart: %s", refusal)
        if isinstance(error, StageMemoryError):
            raise error
        reason = f"the stages failed too often: {refusal}; the last failure: {one_line(error)}"
        raise RecoveryBudgetError(reason).in_stage_of(error) from error

    def _report(self, step: str) -> None:
        self.step = step
        self._progress(step)
