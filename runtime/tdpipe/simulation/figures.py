"""The figures of a simulated run by which policies are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tdpipe.simulation.record import SimulationRecord

_STEADY_RANGE = (0.25, 0.6)
"""Shares of all output tokens between which a run counts as steady: after the ramp, and before the last requests are
admitted in an order of their own."""
_FILLED_KV_SHARE = 0.9
"""Share of the KV cache in use at which it counts as filled; a run with more requests than fit reaches it."""
_PERCENTILES = (50, 90, 99)


@dataclass(frozen=True, slots=True)
class Part:
    """Length and throughput of one part of a run."""

    seconds: float
    tokens_per_second: float
    """Output tokens per second."""


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one run, a row of a table. Times are in seconds."""

    policy: str
    output_tokens_per_second: float
    """Output tokens per second of the whole run."""
    steady_tokens_per_second: float
    """Output tokens per second between a quarter and three fifths of all output tokens."""
    ramp: Part
    """The part until KV use first reached its mean in steady state."""
    drain: Part
    """The part after the last request's first token: no request is left to admit, and batches shrink."""
    seconds: float
    bubble_free_seconds: float
    """Computing time of the busiest stage, which would be the run's length if that stage never waited."""
    utilisation: tuple[float, ...]
    """[stages] share of the run in which each stage computed."""
    bubble: tuple[float, ...]
    """[stages] share of the run in which each stage waited while steps were in flight. In the rest of the run there was
    no request."""
    phase_switches: int
    preemptions: int
    kv_peak: float
    """Largest share of the KV cache that was in use."""
    kv_mean: float
    """Mean share of the KV cache in use in steady state."""
    ttft: tuple[float, ...]
    """Time to first token: 50th, 90th and 99th percentile."""
    tpot: tuple[float, ...]
    """Time per output token after the first: 50th, 90th and 99th percentile; empty if no request has a second token."""

    @property
    def filled(self) -> bool:
        """Whether the requests filled the KV cache at any time."""
        return self.kv_peak >= _FILLED_KV_SHARE


def figures_of(policy: str, record: SimulationRecord) -> Figures:
    """Compute the figures of one run.

    Args:
        policy: The name of the policy.
        record: The record of the run.
    """
    times = np.array([sample.time for sample in record.kv])
    tokens = np.cumsum([sample.tokens for sample in record.kv])
    used = np.array([sample.used for sample in record.kv]) / record.kv_blocks
    first, last = np.searchsorted(tokens, np.array(_STEADY_RANGE) * tokens[-1])
    steady = (tokens[last] - tokens[first]) / max(times[last] - times[first], 1e-12)
    kv_mean = float(used[first : last + 1].mean())
    filled = int(np.argmax(used >= kv_mean))
    admitted = int(np.searchsorted(times, max(each.first for each in record.requests)))
    utilisation = tuple(busy / record.seconds for busy in record.stage_busy)
    return Figures(
        policy=policy,
        output_tokens_per_second=record.output_tokens_per_second,
        steady_tokens_per_second=float(steady),
        ramp=_part(float(times[filled]), float(tokens[filled])),
        drain=_part(float(times[-1] - times[admitted]), float(tokens[-1] - tokens[admitted])),
        seconds=record.seconds,
        bubble_free_seconds=max(record.stage_busy),
        utilisation=utilisation,
        bubble=tuple(1.0 - record.idle / record.seconds - each for each in utilisation),
        phase_switches=record.phase_switches,
        preemptions=record.preemptions,
        kv_peak=float(used.max()),
        kv_mean=kv_mean,
        ttft=percentiles([each.first - each.arrival for each in record.requests]),
        tpot=percentiles(
            [
                (each.end - each.first) / (each.output_tokens - 1)
                for each in record.requests
                if each.output_tokens > 1
            ]
        ),
    )


def percentiles(values: Sequence[float]) -> tuple[float, ...]:
    """Return the 50th, 90th and 99th percentile; an empty tuple if there are no values."""
    if not values:
        return ()
    return tuple(float(each) for each in np.percentile(values, _PERCENTILES))


def _part(seconds: float, tokens: float) -> Part:
    return Part(seconds, tokens / seconds if seconds else 0.0)
