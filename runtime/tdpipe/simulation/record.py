"""The record of a simulated run, from which all figures are computed."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(slots=True)
class RequestTimes:
    """Arrival, first token and end of a request, in seconds of the run's clock."""

    arrival: float
    output_tokens: int
    first: float = math.inf
    end: float = math.inf


@dataclass(frozen=True, slots=True)
class KVSample:
    """Use of the KV cache at the moment when a step's tokens reached the controller."""

    time: float
    """Seconds of the run's clock."""
    used: int
    """Number of blocks in use."""
    tokens: int
    """Number of output tokens of the step."""
    forecast_peak: float | None = None
    """Expected peak of the blocks that the running sequences need; None for steps at which no forecast was taken."""


@dataclass(frozen=True, slots=True)
class SimulationRecord:
    """Everything that is recorded of one run."""

    seconds: float
    """Seconds from the start to the last token."""
    requests: tuple[RequestTimes, ...]
    output_tokens: int
    prompt_tokens: int
    stage_busy: tuple[float, ...]
    """[stages] seconds of computing."""
    phase_switches: int
    preemptions: int
    kv: tuple[KVSample, ...]
    """Samples in the order of time, one for each step."""
    kv_blocks: int
    """Number of blocks of the KV cache."""
    idle: float = 0.0
    """Seconds in which no step was in flight because there was no request."""

    @property
    def output_tokens_per_second(self) -> float:
        """Output tokens per second of the whole run, including ramp and drain."""
        return self.output_tokens / self.seconds
