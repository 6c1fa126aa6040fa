"""Times at which each stage of a simulated pipeline computes each step.

Stages execute steps one at a time in the order of issue. Stage 0 also waits for the tokens that a step's rows continue
from. Nothing else delays a step: transfers overlap with computing and only add latency.
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
    """Seconds per step that stage 0 spends on scheduling if the same process does both.

    tdpipe's controller is a process of its own. With this, a simulation shows what a pipeline without one loses.
    """

    step: float
    """Seconds per step."""
    row: float = 0.0
    """Additional seconds per row."""
    token: float = 0.0
    """Additional seconds per token of the rows' sequences, for messages that carry whole sequences."""

    def seconds(self, step: Step) -> float:
        """Return the seconds that scheduling the step takes."""
        tokens = float((step.first + step.counts).sum())
        return self.step + self.row * len(step.slots) + self.token * tokens


@dataclass(frozen=True, slots=True)
class Interval:
    """Times of one step on all stages."""

    step: int
    phase: Phase
    tokens: int
    begins: tuple[float, ...]
    """[stages] seconds of the simulated clock at which the stages start the step."""
    ends: tuple[float, ...]
    """[stages] seconds at which they end it."""


@dataclass(slots=True)
class StageTimeline:
    """Places steps on the stages as they are issued.

    Args:
        cost: The cost of steps.
        slots: The number of sequences that may hold KV at once.
        latencies: The latencies of messages.
        keep: Whether to keep the intervals of all steps, for a picture.
        control: The scheduling that stage 0 does before each step; None if it does none.
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
    """[stages] time at which each stage ends its last step."""
    _token_ready: np.ndarray[tuple[int], np.dtype[np.float64]] = field(init=False)
    """[slots] time at which the token that each sequence continues from is known."""

    def __post_init__(self) -> None:
        stages = len(self.cost.stages)
        self.busy = [0.0] * stages
        self._free = [0.0] * stages
        self._token_ready = np.zeros(self.slots)

    def issue(self, step: Step, now: float) -> tuple[float, tuple[float, ...]]:
        """Issue a step at time `now`.

        Returns:
            The time at which its tokens reach the controller, and [stages] seconds of computing.
        """
        latencies = self.latencies
        tokens = step.tokens
        seconds = self.cost.stage_seconds(step)
        for start in step.starts:
            self._token_ready[start.slot] = 0.0
        waits = step.slots[step.first > 0]
        begin = now + latencies.step
        if len(waits):
            begin = max(begin, float(self._token_ready[waits].max()))
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
            begin = end + latencies.activations + latencies.activation_token * tokens
        arrival = ends[-1] + latencies.feedback
        self._token_ready[step.slots[step.sample]] = arrival
        if self.keep:
            self.intervals.append(Interval(step.id, step.phase, tokens, tuple(begins), tuple(ends)))
        return arrival, seconds
