"""How long messages take, from the controller's clock alone.

Stages report durations, never times, so when a stage got its input is not told. But what a step takes beyond the
stages' computing is the sum of its messages' times: of a step alone in the pipeline, those from the controller, between
the stages and back; of steps that each wait for the token of the one before, those between the stages and back to
stage 0. Their difference is one message of the controller's; the rest is between stages. Reports, steps and tokens go
the same way, over ZeroMQ, and are taken to be equally fast.
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

_PASSES = 20
_LEAST = 3
"""Passes that are made even when time is up."""
_CHAIN = 16
"""Steps that wait for each other, at most."""


def measure_latencies(
    steps: SyntheticSteps, stages: int, sizes: Sequence[tuple[Rows, ...]], end: float
) -> Latencies:
    """Measure with nothing else in the pipeline.

    Args:
        steps: of a pipeline without steps in flight.
        stages: of the pipeline.
        sizes: steps of new sequences, of ascending tokens from 1.
        end: when no further pass begins.

    Raises:
        PipelineError: the pipeline failed.
    """
    alone: dict[int, list[float]] = {}
    chained: list[float] = []
    for number in range(_PASSES):
        if number >= _LEAST and time.monotonic() > end:
            break
        for rows in sizes:
            each = steps.run(*rows)
            beyond = each.done - each.submitted - sum(each.busy)
            alone.setdefault(each.step.tokens, []).append(beyond)
        chained += _chained(steps)
    return latencies_of(stages, {size: statistics.median(s) for size, s in alone.items()}, chained)


def latencies_of(stages: int, alone: dict[int, float], chained: list[float]) -> Latencies:
    """Take messages apart.

    Args:
        stages: of the pipeline.
        alone: by tokens, seconds beyond computing of a step alone.
        chained: the same of steps that wait for each other, of one token each.
    """
    smallest = alone[min(alone)]
    if stages == 1:
        return Latencies(step=max(smallest / 2, 0.0), feedback=max(smallest / 2, 0.0))
    loop = statistics.median(chained) if chained else smallest / 2
    message = min(max(smallest - loop, 0.0), smallest / 2)
    hop = max((smallest - 2 * message) / (stages - 1), 0.0)
    sizes = np.array(sorted(alone), dtype=np.float64)
    slope = 0.0
    if len(sizes) > 1:
        seconds = np.array([alone[int(size)] for size in sizes])
        slope = max(float(np.polyfit(sizes, seconds, 1)[0]) / (stages - 1), 0.0)
    return Latencies(
        step=max(message, 0.0), activations=hop, activation_token=slope, feedback=max(message, 0.0)
    )


def _chained(steps: SyntheticSteps) -> list[float]:
    """Seconds beyond computing of decode steps that each need the token of the one before."""
    longest = min(_CHAIN, steps.capacity.longest_sequence, steps.capacity.kv_tokens)

    def chain() -> Iterator[tuple[Rows, ...]]:
        yield (steps.prefill(range(1), 1, max_length=longest, known_tokens=1),)
        for position in range(1, longest):
            yield (Rows(range(1), position, 1),)

    done: list[ExecutedStep] = list(steps.stream(chain(), ahead=longest))
    # The first goes ahead with nothing to wait for.
    return [after.done - before.done - sum(after.busy) for before, after in pairwise(done[1:])]
