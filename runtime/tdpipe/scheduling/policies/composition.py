"""Which micro-batches make a token cheapest, from the cost model and the waiting requests.

In steady state each output token needs its share of prefill, and resident sequences fill the KV cache. Under these two
constraints, micro-batches with the same decode and prefill rows have no bubbles and pay the step of a tile once. Where
mixing costs more than the bubbles of switching, phases are cheaper.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tdpipe.core.step import FloatArray, IntArray
    from tdpipe.scheduling.cost_model import CostModel
    from tdpipe.scheduling.waiting_queue import Load

_BUBBLE_SHARE_OF_WAIT = 0.6
"""Share of a round's wait for its longest micro-batch that becomes a bubble; the spare step in flight hides the rest.
In simulations it was between 0.5 and 0.7."""
_EQUAL_RATE_SHARE = 0.98
"""Share of the best rate above which budgets count as equally good."""


@dataclass(frozen=True, slots=True)
class Mix:
    """Mean properties of the requests to come."""

    prefill_per_output: float
    """Number of tokens to prefill for each output token."""
    resident: float
    """Mean number of KV tokens of a resident sequence, to which long outputs contribute for longer."""
    output: float
    """Number of output tokens of a sequence."""
    chunk_start: float = 0.0
    """Mean number of KV tokens of its own prompt that precede a prompt token."""

    @classmethod
    def of(cls, load: Load, running_left: float) -> Mix | None:
        """Return the means over the requests to come, or None if nothing waits.

        Args:
            load: sums over the waiting sequences.
            running_left: number of output tokens to come of the running ones.
        """
        if not load.sequences or load.output <= 0.0:
            return None
        resident = (load.tokens_output + load.output_squared / 2.0) / load.output
        output = load.output / load.sequences
        start = load.tokens_squared / (2.0 * load.tokens)
        return cls(load.tokens / (load.output + running_left), resident, output, start)

    def chunk_reads(self, prefill: FloatArray, chunk_tile: int) -> FloatArray:
        """Return [n] KV tokens of their own prompts that n micro-batches of `prefill` tokens read."""
        return self.chunk_start * np.ceil(prefill / chunk_tile)


@dataclass(frozen=True, slots=True)
class Composition:
    """A way to fill micro-batches."""

    budget: int
    """Number of batch tokens of a micro-batch."""
    rate: float
    """Predicted output tokens per second of the pipeline."""


def candidate_budgets(max_budget: int) -> IntArray:
    """Return token counts worth trying, ascending: a grid that holds the usual tile edges, and `max_budget`."""
    grid = [*range(16, 256, 16), *range(256, 1024, 64), *range(1024, 4097, 256)]
    return np.array([*(each for each in grid if each < max_budget), max_budget], dtype=np.int32)


def best_mixed(
    cost: CostModel,
    stages: int,
    kv_tokens: float,
    max_resident: int,
    mix: Mix,
    budgets: IntArray,
    *,
    eager: bool = True,
) -> Composition:
    """Return the budget at which mixed micro-batches give the most output tokens per second.

    Args:
        cost: cost of a step.
        stages: number of micro-batches in flight.
        kv_tokens: number of KV tokens that resident sequences may hold in all.
        max_resident: number of sequences that may be resident.
        mix: properties of the requests to come.
        budgets: budgets to choose from, ascending.
        eager: whether to take the largest of nearly equal budgets, which fills KV soonest but makes rounds longer.
    """
    max_decode = min(kv_tokens / mix.resident, max_resident) / stages
    # Long prompts with short outputs make less than one output token in each micro-batch.
    outputs = np.minimum(max_decode, budgets / (1.0 + mix.prefill_per_output))
    decode: FloatArray = np.maximum(outputs, 1.0)
    share = np.clip(outputs * mix.prefill_per_output / np.maximum(budgets - decode, 1e-9), 0.0, 1.0)
    context = decode * mix.resident
    reads = mix.chunk_reads(np.asarray(budgets - decode, dtype=np.float64), cost.chunk_tile)
    mixed = np.ones(len(budgets), dtype=np.bool_)
    with_prefill = cost.step_seconds(budgets, context + reads, mixed, decode)
    without = cost.step_seconds(np.ceil(decode).astype(np.int32), context)
    # Every micro-batch of a round waits for the longest one, which has prefill unless none of them has.
    waiting = 1.0 - (1.0 - share) ** stages - share
    bubble = _BUBBLE_SHARE_OF_WAIT * waiting * (with_prefill - without)
    seconds: FloatArray = share * with_prefill + (1.0 - share) * without + np.maximum(bubble, 0.0)
    rate = outputs / seconds
    best = int(np.flatnonzero(rate >= (_EQUAL_RATE_SHARE if eager else 1.0) * rate.max())[-1])
    return Composition(int(budgets[best]), float(rate[best]))


def phased_rate(
    cost: CostModel, stages: int, kv_tokens: float, max_resident: int, mix: Mix, budget: int
) -> float:
    """Return the output tokens per second when prefill and decode alternate in phases of the best length.

    Short phases pay the bubbles of many switches, long phases pay small batches. With a fixed cost f of a step, bubbles
    B per cycle and d decode rows in each micro-batch, a token costs sqrt(2 B f / (d * tokens in flight)) more. Decode
    batches end where a row is cheapest, on a tile edge.

    Args:
        cost: cost of a step.
        stages: number of micro-batches in flight.
        kv_tokens: number of KV tokens that resident sequences may hold in all.
        max_resident: number of sequences that may be resident.
        mix: properties of the requests to come.
        budget: batch tokens of a prefill micro-batch.
    """
    max_decode = min(kv_tokens / mix.resident, max_resident) / stages
    decode = max(1.0, max_decode)
    step = cost.step_time(math.ceil(decode), decode * mix.resident)
    reads = mix.chunk_reads(np.array([float(budget)]), cost.chunk_tile)
    chunk = cost.step_time(budget, float(reads[0]), sampled=0)
    bubbles = 2.0 * (stages - 1) * abs(chunk - step)
    fixed = cost.step_time(1, 0.0)
    switching = math.sqrt(2.0 * bubbles * fixed / (decode * decode * stages * mix.output))
    rows = np.arange(1, math.ceil(decode) + 1, dtype=np.int32)
    context = rows.astype(np.float64) * mix.resident
    row = float((cost.step_seconds(rows, context) / rows).min())
    return 1.0 / (row / min(1.0, max_decode) + mix.prefill_per_output * chunk / budget + switching)
