"""Steady window of a run: a period in which about as many requests end as begin, and its figures.

A paced run and a simulation of the same jobs are compared over the same output tokens rather than the same seconds;
phases of many seconds would otherwise be cut at different points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.core.errors import SettingsError
from tdpipe.simulation.figures import percentiles

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tdpipe.simulation.record import RequestTimes, SimulationRecord
    from tdpipe.simulation.stage_timeline import Interval


@dataclass(frozen=True, slots=True)
class StageShares:
    """Shares of a stage's time; the three sum to 1."""

    busy: float
    """Computing."""
    bubble: float
    """Waiting while steps were in flight."""
    idle: float
    """Waiting while no step was in flight."""


@dataclass(frozen=True, slots=True)
class SteadyWindow:
    """The figures of one window."""

    begin: float
    """Seconds from the start of the run to the start of the window."""
    seconds: float
    tokens_before: int
    """Output tokens before the window."""
    tokens: int
    """Output tokens in the window."""
    stages: tuple[StageShares, ...]
    ttft: tuple[float, ...]
    """Seconds to the first tokens that came in the window: 50th, 90th and 99th percentile; empty if there are none."""
    tpot: tuple[float, ...]
    """Seconds per output token after the first, of requests that ended in the window; the same percentiles."""

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds


def window_of(
    begin: float,
    end: float,
    tokens: tuple[int, int],
    stages: Sequence[StageShares],
    requests: Iterable[RequestTimes],
) -> SteadyWindow:
    """Compute the window between two times of a run.

    Args:
        begin: Seconds from the start of the run to the start of the window.
        end: Seconds from the start of the run to the end of the window.
        tokens: The output tokens up to these two times.
        stages: The shares of each stage's time between them.
        requests: The times of all requests of the run.
    """
    first, per_token = [], []
    for each in requests:
        if begin <= each.first < end:
            first.append(each.first - each.arrival)
        if begin <= each.end < end and each.output_tokens > 1:
            per_token.append((each.end - each.first) / (each.output_tokens - 1))
    return SteadyWindow(
        begin,
        end - begin,
        tokens[0],
        tokens[1] - tokens[0],
        tuple(stages),
        percentiles(first),
        percentiles(per_token),
    )


def simulated_window(
    record: SimulationRecord, intervals: Sequence[Interval], tokens: tuple[int, int]
) -> SteadyWindow:
    """Compute the window of a simulation between two numbers of output tokens.

    Args:
        record: The record of the run.
        intervals: The intervals of all its steps.
        tokens: The output tokens up to the window's start and end, at most those of the whole run.

    Raises:
        SettingsError: No step ended between them.
    """
    times = [sample.time for sample in record.kv]
    sums = np.cumsum([sample.tokens for sample in record.kv])
    at = np.minimum(np.searchsorted(sums, tokens), len(sums) - 1)
    begin, end = times[at[0]], times[at[1]]
    if begin == end:
        problem = f"only {tokens[1] - tokens[0]} output tokens came in the window"
        raise SettingsError("--seconds", problem, "ask for more, or for a longer --ramp")
    stages = []
    for stage in range(len(record.stage_busy)):
        busy = sum(
            max(0.0, min(each.ends[stage], end) - max(each.begins[stage], begin))
            for each in intervals
        ) / (end - begin)
        stages.append(StageShares(busy, 1.0 - busy, 0.0))
    return window_of(begin, end, (int(sums[at[0]]), int(sums[at[1]])), stages, record.requests)
