"""Upper bound on the output tokens per second of any scheduler in steady state: a linear programme over micro-batches.

In steady state every output token needs its share of prefill. Resident sequences fill the KV cache and are spread
evenly over the micro-batches in flight, since unequal ones wait for each other. Within these constraints, the best mix
of micro-batch compositions bounds the rate of an ideal pipeline, in which nothing ever waits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linprog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tdpipe.scheduling.cost_model import CostModel
    from tdpipe.simulation.workload import Job

_MAX_PREFILL_TOKENS = 2048
"""Largest number of prefill tokens of a micro-batch that is considered."""
_PREFILL_GRID = 16
"""Batch tokens of the considered micro-batches with prefill are multiples of this."""


@dataclass(frozen=True, slots=True)
class SteadyBound:
    """The best rate and the mix of micro-batches that attains it."""

    tokens_per_second: float
    """Output tokens per second."""
    compositions: tuple[tuple[float, int, int], ...]
    """(share of the micro-batches, decode rows, prefill tokens) of each composition in the mix."""


def resident_tokens(jobs: Sequence[Job]) -> float:
    """Return the mean KV tokens of a resident sequence; long outputs weigh more, as they are resident for longer."""
    prompts = np.array([job.prompt_tokens for job in jobs], dtype=float)
    outputs = np.array([job.output_tokens for job in jobs], dtype=float)
    return float((prompts * outputs + outputs**2 / 2).sum() / outputs.sum())


def steady_bound(
    cost: CostModel, stages: int, kv_tokens: float, jobs: Sequence[Job], *, mixing: bool
) -> SteadyBound:
    """Compute the bound for requests that are like the given jobs on average.

    Args:
        cost: The cost of steps.
        stages: The number of micro-batches in flight.
        kv_tokens: The number of tokens that the KV cache holds.
        jobs: The jobs, of which only the mean lengths matter.
        mixing: Whether a micro-batch may contain both prefill and decode.

    Raises:
        ValueError: The KV cache holds less than one such sequence per stage.
    """
    context = resident_tokens(jobs)
    rows = kv_tokens / context / stages
    if rows < 1.0:
        raise ValueError("the KV cache holds less than one sequence per stage")
    prefill_share = sum(job.prompt_tokens for job in jobs) / sum(job.output_tokens for job in jobs)
    decode, prefill = _grid(math.ceil(rows), mixing=mixing)
    seconds = cost.step_seconds(
        decode + prefill,
        np.asarray(decode * context, dtype=np.float64),
        mixed=(decode > 0) & (prefill > 0),
        sampled=decode,
    )
    # Minimise the time of one output token and its prefill, with no more residents than the KV cache holds.
    solution = linprog(
        seconds,
        A_ub=np.where(decode > 0, decode - rows, 0.0)[None, :],
        b_ub=[0.0],
        A_eq=np.stack([decode, prefill]).astype(float),
        b_eq=[1.0, prefill_share],
        method="highs",
    )
    shares = solution.x / solution.x.sum()
    used = np.flatnonzero(shares > 1e-6)
    return SteadyBound(
        1.0 / float(solution.fun),
        tuple((float(shares[i]), int(decode[i]), int(prefill[i])) for i in used),
    )


def _grid(
    max_rows: int, *, mixing: bool
) -> tuple[np.ndarray[tuple[int], np.dtype[np.int32]], np.ndarray[tuple[int], np.dtype[np.int32]]]:
    """Return decode rows and prefill tokens, [n] each: every number of rows, alone and with prefill up to the grid."""
    decode = np.arange(0, max_rows + 1, dtype=np.int32)
    totals = np.arange(
        _PREFILL_GRID, _MAX_PREFILL_TOKENS + max_rows + 1, _PREFILL_GRID, dtype=np.int32
    )
    rows, batch = (each.ravel() for each in np.meshgrid(decode, totals, indexing="ij"))
    prefill = batch - rows
    kept = (prefill > 0) & (prefill <= _MAX_PREFILL_TOKENS) & ((rows == 0) | mixing)
    return (
        np.concatenate([decode[1:], rows[kept]]),
        np.concatenate([np.zeros(max_rows, dtype=np.int32), prefill[kept]]),
    )
