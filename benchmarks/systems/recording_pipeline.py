"""A pipeline that records the steps it executes.

The pipeline is the only place that sees both a step and the time that it took.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from tdpipe.controller.synthetic_steps import ExecutedStep

if TYPE_CHECKING:
    from tdpipe.core.attempt import Attempt
    from tdpipe.core.capacity import Capacity
    from tdpipe.core.step import Step
    from tdpipe.pipeline.base import Pipeline, StageDevice, StepResult


class RecordingPipeline:
    """Forwards every call to another pipeline, and records each step with its times.

    Args:
        pipeline: Pipeline without steps in flight.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.attempt: Attempt = pipeline.attempt
        self.stages: int = pipeline.stages
        self.capacity: Capacity = pipeline.capacity
        self.devices: tuple[StageDevice, ...] = pipeline.devices
        self.executed: list[ExecutedStep] = []
        """Completed steps in the order of issue."""
        self._in_flight: deque[tuple[Step, float]] = deque()
        self._pipeline = pipeline

    def submit(self, step: Step) -> None:
        self._in_flight.append((step, time.monotonic()))
        self._pipeline.submit(step)

    def poll(self, timeout: float | None) -> list[StepResult]:
        results = self._pipeline.poll(timeout)
        now = time.monotonic()
        for result in results:
            step, submitted = self._in_flight.popleft()
            self.executed.append(ExecutedStep(step, result.busy, submitted, now))
        return results

    def wake(self) -> None:
        self._pipeline.wake()

    def close(self) -> None:
        self._pipeline.close()
