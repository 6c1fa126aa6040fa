"""What a simulation leaves behind, from which every figure is taken."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(slots=True)
class RequestTimes:
    """When a request arrived, got its first token and ended, in seconds of the simulated clock."""

    arrival: float
    output_tokens: int
    first: float = math.inf
    end: float = math.inf


@dataclass(frozen=True, slots=True)
class KVSample:
    """KV use when a step's tokens came."""

    time: float
    """Seconds."""
    used: int
    """Blocks."""
    tokens: int
    """Output tokens that came with the step."""
    forecast_peak: float | None = None
    """Blocks that the sequences at hand will need at most, in expectation; told only now and then."""


@dataclass(frozen=True, slots=True)
class SimulationRecord:
    """One run."""

    seconds: float
    """From the start to the last token."""
    requests: tuple[RequestTimes, ...]
    output_tokens: int
    prompt_tokens: int
    stage_busy: tuple[float, ...]
    """[stages] seconds of computing."""
    phase_switches: int
    preemptions: int
    kv: tuple[KVSample, ...]
    """In the order of time."""
    kv_blocks: int
    """Blocks that there are."""
    idle: float = 0.0
    """Seconds in which no step was in flight: no request was there."""

    @property
    def output_tokens_per_second(self) -> float:
        """Over the whole run, ramp and drain included."""
        return self.output_tokens / self.seconds
