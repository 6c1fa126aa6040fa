"""Latencies of messages, measured with the controller's clock only.

Stages report durations but no times. What a step takes in addition to computing is the sum of its messages' latencies.
For a single step these are the messages from the controller, between the stages, and back. For a chain of steps that
each wait for the previous token, they are those between the stages and back to stage 0. The difference is one message
of the controller. All messages of controller and tokens use ZeroMQ and are assumed to be equally fast.
"""

from __future__ import annotations

import statistics
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.controller.synthetic_steps import Rows
from tdpipe.core.latencies import Latencies

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tdpipe.controller.synthetic_steps import ExecutedStep, SyntheticSteps

_MAX_PASSES = 20
_MIN_PASSES = 3
"""Number of passes that are made even if time is up."""
_MAX_CHAIN_STEPS = 16
"""Largest number of steps of a chain, each of which waits for the previous one."""


def measure_latencies(
    steps: SyntheticSteps, stages: int, sizes: Sequence[tuple[Rows, ...]], end: float
) -> Latencies:
    """Measure the latencies while nothing else is in the pipeline.

    Args:
        steps: The steps of a pipeline without steps in flight.
        stages: The number of stages.
        sizes: The rows of prefill steps, with ascending numbers of tokens from 1 on.
        end: The time of the monotonic clock at which no further pass starts.

    Raises:
        PipelineError: The pipeline failed.
    """
    single: dict[int, list[float]] = {}
    chained: list[float] = []
    for number in range(_MAX_PASSES):
        if number >= _MIN_PASSES and time.monotonic() > end:
            break
        for rows in sizes:
            executed = steps.run(*rows)
            message_seconds = executed.done - executed.submitted - sum(executed.busy)
            single.setdefault(executed.step.tokens, []).append(message_seconds)
        chained += _chained(steps)
    return latencies_of(
        stages, {tokens: statistics.median(each) for tokens, each in single.items()}, chained
    )


def latencies_of(stages: int, single: dict[int, float], chained: list[float]) -> Latencies:
    """Derive the latency of each kind of message.

    Args:
        stages: The number of stages.
        single: Seconds that a single step takes in addition to computing, by its number of tokens.
        chained: Seconds that each step of a chain takes in addition to computing; the steps have one token each.
    """
    smallest = single[min(single)]
    if stages == 1:
        return Latencies(step=max(smallest / 2, 0.0), feedback=max(smallest / 2, 0.0))
    loop = statistics.median(chained) if chained else smallest / 2
    message = min(max(smallest - loop, 0.0), smallest / 2)
    hop = max((smallest - 2 * message) / (stages - 1), 0.0)
    tokens = np.array(sorted(single), dtype=np.float64)
    slope = 0.0
    if len(tokens) > 1:
        seconds = np.array([single[int(each)] for each in tokens])
        slope = max(float(np.polyfit(tokens, seconds, 1)[0]) / (stages - 1), 0.0)
    return Latencies(
        step=max(message, 0.0), activations=hop, activation_token=slope, feedback=max(message, 0.0)
    )


def _chained(steps: SyntheticSteps) -> list[float]:
    """Return the seconds in addition to computing of decode steps that each need the previous token."""
    longest = min(_MAX_CHAIN_STEPS, steps.capacity.longest_sequence, steps.capacity.kv_tokens)

    def chain() -> Iterator[tuple[Rows, ...]]:
        yield (steps.prefill(range(1), 1, max_length=longest, known_tokens=1),)
        for position in range(1, longest):
            yield (Rows(range(1), position, 1),)

    done: list[ExecutedStep] = list(steps.stream(chain(), ahead=longest))
    # The first step waits for no token.
    return [after.done - before.done - sum(after.busy) for before, after in pairwise(done[1:])]
