"""What the engine issues and what it costs, seen at the only place that both pass: the pipeline."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from tdpipe.controller.synthetic_steps import Executed

if TYPE_CHECKING:
    from tdpipe.core.capacity import Capacity
    from tdpipe.core.step import Step
    from tdpipe.pipeline.base import Pipeline, StageDevice, StepResult


class StepWatch:
    """Once put around a pipeline, it is that pipeline, and keeps each step with its times."""

    stages: int
    capacity: Capacity
    devices: tuple[StageDevice, ...]

    def __init__(self) -> None:
        self.executed: list[Executed] = []
        """In the order of issue; of one that is in flight nothing is known yet."""
        self._flying: deque[tuple[Step, float]] = deque()

    def around(self, pipeline: Pipeline) -> Pipeline:
        """Watch this pipeline, which has no steps in flight, and stand in its place."""
        self._pipeline = pipeline
        self.stages = pipeline.stages
        self.capacity = pipeline.capacity
        self.devices = pipeline.devices
        return self

    def submit(self, step: Step) -> None:
        self._flying.append((step, time.monotonic()))
        self._pipeline.submit(step)

    def poll(self, timeout: float | None) -> list[StepResult]:
        results = self._pipeline.poll(timeout)
        now = time.monotonic()
        for result in results:
            step, submitted = self._flying.popleft()
            self.executed.append(Executed(step, result.busy, submitted, now))
        return results

    def wake(self) -> None:
        self._pipeline.wake()

    def close(self) -> None:
        self._pipeline.close()
