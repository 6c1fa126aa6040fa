"""When each stage of a pipeline would compute each step.

Stages execute steps in the order of issue, one at a time; stage 0 also waits for the tokens that a step's rows continue
from. Nothing else holds a step up: transfers overlap with computing and only add latency.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.core.latencies import Latencies

if TYPE_CHECKING:
    from tdpipe.core.step import Phase, Step
    from tdpipe.scheduling.cost_model import CostModel


@dataclass(frozen=True, slots=True)
class ControlOnStage:
    """Seconds of each step that scheduling takes from stage 0, where one process does both.

    tdpipe's controller is a process of its own, so this is what a pipeline without one would lose.
    """

    step: float
    row: float = 0.0
    """More, for each row."""
    token: float = 0.0
    """More, for each token that the rows' sequences have by then: messages that carry whole sequences."""

    def seconds(self, step: Step) -> float:
        """What the step takes."""
        known = float((step.first + step.counts).sum())
        return self.step + self.row * len(step.slots) + self.token * known


@dataclass(frozen=True, slots=True)
class Interval:
    """A step on all stages."""

    step: int
    phase: Phase
    tokens: int
    begins: tuple[float, ...]
    """[stages] seconds of the simulated clock."""
    ends: tuple[float, ...]


@dataclass(slots=True)
class StageTimeline:
    """Books steps on stages as they are issued.

    Args:
        cost: what a step takes.
        slots: sequences that may hold KV at once.
        latencies: of messages.
        keep: whether `intervals` are kept, for a picture.
        control: what stage 0 does beside computing, before each step; None is nothing.
    """

    cost: CostModel
    slots: int
    latencies: Latencies = field(default_factory=Latencies)
    keep: bool = False
    control: ControlOnStage | None = None
    intervals: list[Interval] = field(default_factory=list)
    busy: list[float] = field(init=False)
    """[stages] seconds of computing so far."""
    _free: list[float] = field(init=False)
    _token: np.ndarray[tuple[int], np.dtype[np.float64]] = field(init=False)

    def __post_init__(self) -> None:
        stages = len(self.cost.stages)
        self.busy = [0.0] * stages
        self._free = [0.0] * stages
        self._token = np.zeros(self.slots)

    def issue(self, step: Step, now: float) -> tuple[float, tuple[float, ...]]:
        """When the step's tokens reach the controller, and its seconds on each stage."""
        late = self.latencies
        tokens = step.tokens
        seconds = self.cost.stage_seconds(step)
        for start in step.starts:
            self._token[start.slot] = 0.0
        waits = step.slots[step.first > 0]
        begin = now + late.step
        if len(waits):
            begin = max(begin, float(self._token[waits].max()))
        begins, ends = [], []
        for stage, duration in enumerate(seconds):
            begin = max(begin, self._free[stage])
            if stage == 0 and self.control is not None:
                begin += self.control.seconds(step)
            end = begin + duration
            self._free[stage] = end
            self.busy[stage] += duration
            begins.append(begin)
            ends.append(end)
            begin = end + late.activations + late.activation_token * tokens
        arrival = ends[-1] + late.feedback
        self._token[step.slots[step.sample]] = arrival
        if self.keep:
            self.intervals.append(Interval(step.id, step.phase, tokens, tuple(begins), tuple(ends)))
        return arrival, seconds
