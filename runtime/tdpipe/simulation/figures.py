"""What a run says, in the figures that people compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tdpipe.simulation.record import SimulationRecord

_STEADY = (0.25, 0.6)
"""Of all output tokens, those between which a run counts as steady: behind the ramp, before the end's order."""
_FULL = 0.9
"""Of the KV cache: what a run reaches that has more requests than fit."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a run."""

    seconds: float
    tokens_per_second: float
    """Output tokens."""


@dataclass(frozen=True, slots=True)
class Figures:
    """A run's row in a table. Times are in seconds."""

    policy: str
    output_tokens_per_second: float
    """Over the whole run."""
    steady_tokens_per_second: float
    """While between a quarter and three fifths of all output tokens were made."""
    ramp: Part
    """Until KV use first reached its mean in steady state."""
    drain: Part
    """From the last request's first token: nothing was left to admit, and batches thinned."""
    seconds: float
    bubble_free_seconds: float
    """What the busiest stage computed: the run's length, had it never waited."""
    utilisation: tuple[float, ...]
    """[stages] part of the run in which each stage computed."""
    bubble: tuple[float, ...]
    """[stages] part of the run in which each waited while steps were in flight; the rest, no request was there."""
    phase_switches: int
    preemptions: int
    kv_peak: float
    """Of the KV cache."""
    kv_mean: float
    """Of the KV cache, while steady."""
    ttft: tuple[float, ...]
    """Time to first token: 50th, 90th and 99th percentile."""
    tpot: tuple[float, ...]
    """Time per output token after the first: the same percentiles; empty where no request has more than one."""

    @property
    def filled(self) -> bool:
        """Whether the requests filled the KV cache at any time."""
        return self.kv_peak >= _FULL


def figures_of(policy: str, record: SimulationRecord) -> Figures:
    """The figures of one run."""
    times = np.array([sample.time for sample in record.kv])
    tokens = np.cumsum([sample.tokens for sample in record.kv])
    used = np.array([sample.used for sample in record.kv]) / record.kv_blocks
    first, last = np.searchsorted(tokens, np.array(_STEADY) * tokens[-1])
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
    """The 50th, 90th and 99th; empty where there is no value."""
    if not values:
        return ()
    return tuple(float(each) for each in np.percentile(values, (50, 90, 99)))


def _part(seconds: float, tokens: float) -> Part:
    return Part(seconds, tokens / seconds if seconds else 0.0)
