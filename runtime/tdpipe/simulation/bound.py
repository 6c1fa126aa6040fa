"""How many output tokens a second any scheduler could make in steady state: a linear programme over micro-batches.

In steady state every output token needs its share of prefill, residents hold the KV cache, and are dealt out evenly to
the micro-batches in flight, since unequal ones wait for each other. Within these, the best mix of micro-batch
compositions bounds the rate of an ideal pipeline, in which nothing ever waits.
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

_MOST_PREFILL = 2048
"""Prefill tokens of a micro-batch that are tried."""


@dataclass(frozen=True, slots=True)
class SteadyBound:
    """The best rate and what attains it."""

    tokens_per_second: float
    """Output tokens."""
    compositions: tuple[tuple[float, int, int], ...]
    """(share of the micro-batches, decode rows, prefill tokens) of each composition in the mix."""


def resident_tokens(jobs: Sequence[Job]) -> float:
    """KV tokens that a resident sequence holds on average: long outputs are resident for longer."""
    prompts = np.array([job.prompt_tokens for job in jobs], dtype=float)
    outputs = np.array([job.output_tokens for job in jobs], dtype=float)
    return float((prompts * outputs + outputs**2 / 2).sum() / outputs.sum())


def steady_bound(
    cost: CostModel, stages: int, kv_tokens: float, jobs: Sequence[Job], *, mixing: bool
) -> SteadyBound:
    """The bound for jobs like these.

    Args:
        cost: of a step.
        stages: micro-batches in flight.
        kv_tokens: that the KV cache holds.
        jobs: their means count.
        mixing: whether a micro-batch may hold prefill and decode.

    Raises:
        ValueError: the KV cache holds not even one such sequence per stage.
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
    # Least time for one output token: share by share, with its prefill, and no more residents than there is KV for.
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
    most: int, *, mixing: bool
) -> tuple[np.ndarray[tuple[int], np.dtype[np.int32]], np.ndarray[tuple[int], np.dtype[np.int32]]]:
    """Every number of decode rows, alone and with the prefill that fills to each multiple of 16."""
    decode = np.arange(0, most + 1, dtype=np.int32)
    edges = np.arange(16, _MOST_PREFILL + most + 1, 16, dtype=np.int32)
    rows, filled = (each.ravel() for each in np.meshgrid(decode, edges, indexing="ij"))
    prefill = filled - rows
    kept = (prefill > 0) & (prefill <= _MOST_PREFILL) & ((rows == 0) | mixing)
    return (
        np.concatenate([decode[1:], rows[kept]]),
        np.concatenate([np.zeros(most, dtype=np.int32), prefill[kept]]),
    )
