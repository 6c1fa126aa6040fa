"""Records the steps that an engine issues and their times, as a wrapper around its pipeline."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from tdpipe.controller.synthetic_steps import ExecutedStep

if TYPE_CHECKING:
    from tdpipe.core.capacity import Capacity
    from tdpipe.core.step import Step
    from tdpipe.pipeline.base import Pipeline, StageDevice, StepResult


class StepWatch:
    """A pipeline that passes everything on to another pipeline and records each step.

    Args:
        pipeline: The other pipeline, without steps in flight.
    """

    def __init__(self, pipeline: Pipeline) -> None:
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
