"""A pipeline on a simulated clock, in which steps and messages take the times of a cost model."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.core.attempt import FIRST_ATTEMPT
from tdpipe.core.latencies import Latencies
from tdpipe.core.step import StepOutput
from tdpipe.pipeline.base import StageDevice, StepResult
from tdpipe.simulation.stage_timeline import StageTimeline

if TYPE_CHECKING:
    from tdpipe.core.capacity import Capacity
    from tdpipe.core.step import Step
    from tdpipe.scheduling.cost_model import CostModel


class TimelinePipeline:
    """A pipeline whose clock is `now`. Results come in order, and `poll` advances the clock to the next one."""

    def __init__(
        self,
        cost: CostModel,
        capacity: Capacity,
        latencies: Latencies | None = None,
        noise: float = 0.0,
    ) -> None:
        self.attempt = FIRST_ATTEMPT
        self.stages = len(cost.stages)
        self.capacity = capacity
        self.devices = (StageDevice("a clock", "cpu", "float32"),) * self.stages
        self.now = 0.0
        self.in_flight: deque[tuple[float, StepResult]] = deque()
        self.max_in_flight = 0
        self.steps: list[Step] = []
        self._timeline = StageTimeline(cost, capacity.slots, latencies or Latencies())
        self._random = np.random.default_rng(0)
        self._noise = noise

    def submit(self, step: Step) -> None:
        self.steps.append(step)
        arrival, busy = self._timeline.issue(step, self.now)
        busy = tuple(each * self._random.normal(1.0, self._noise) for each in busy)
        tokens = np.zeros(int(step.sample.sum()), dtype=np.int32)
        self.in_flight.append((arrival, StepResult(StepOutput(step.id, tokens), busy)))
        self.max_in_flight = max(self.max_in_flight, len(self.in_flight))

    def poll(self, timeout: float | None) -> list[StepResult]:
        del timeout
        arrival, result = self.in_flight.popleft()
        self.now = max(self.now, arrival)
        return [result]

    def wake(self) -> None: ...

    def close(self) -> None: ...
