"""Which micro-batches make tokens cheapest, from the cost model and what is waiting.

In steady state each output token needs its share of prefill, and resident sequences hold as much KV as there is. Under
these two constraints a micro-batch of equal decode and prefill rows each time has no bubbles and pays a tile step once;
where mixing costs more than the bubbles of switching, phases are cheaper.
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

_UNEVEN = 0.6
"""Part of a round's wait for its longest micro-batch that becomes a bubble; the spare step in flight hides the rest.
Taken from simulations, where it was 0.5 to 0.7."""
_NEARLY = 0.98
"""Of the best rate: budgets above this count as equal."""


@dataclass(frozen=True, slots=True)
class Mix:
    """What the requests to come are like, in the mean."""

    prefill_per_output: float
    """Tokens to prefill for each output token."""
    resident: float
    """KV tokens that a sequence holds, averaged over its decode: long outputs are resident for longer."""
    output: float
    """Output tokens of a sequence."""
    chunk_start: float = 0.0
    """KV tokens that a prompt's token finds of its own prompt, on average."""

    @classmethod
    def of(cls, load: Load, running_left: float) -> Mix | None:
        """The mean of what is to come; None when nothing waits.

        Args:
            load: of the waiting.
            running_left: output tokens to come of the others.
        """
        if not load.sequences or load.output <= 0.0:
            return None
        resident = (load.tokens_output + load.output_squared / 2.0) / load.output
        output = load.output / load.sequences
        start = load.tokens_squared / (2.0 * load.tokens)
        return cls(load.tokens / (load.output + running_left), resident, output, start)

    def chunk_reads(self, prefill: FloatArray, chunk_tile: int) -> FloatArray:
        """[n] KV tokens of their own prompts that [n] micro-batches of `prefill` tokens read."""
        return self.chunk_start * np.ceil(prefill / chunk_tile)


@dataclass(frozen=True, slots=True)
class Composition:
    """How micro-batches are to be filled."""

    budget: int
    """Batch tokens of a micro-batch."""
    rate: float
    """Output tokens per second of the pipeline that it promises."""


def candidate_budgets(most: int) -> IntArray:
    """Token counts worth trying: a grid that holds the usual tile edges, and `most`."""
    grid = [*range(16, 256, 16), *range(256, 1024, 64), *range(1024, 4097, 256)]
    return np.array([*(each for each in grid if each < most), most], dtype=np.int32)


def best_mixed(
    cost: CostModel,
    stages: int,
    kv_tokens: float,
    rows: int,
    mix: Mix,
    budgets: IntArray,
    *,
    eager: bool = True,
) -> Composition:
    """The budget at which mixed micro-batches give most output tokens.

    Args:
        cost: of a step.
        stages: micro-batches in flight.
        kv_tokens: that resident sequences may hold in all.
        rows: sequences that may be resident.
        mix: of the requests to come.
        budgets: to choose from.
        eager: of nearly equal budgets take the largest, which fills KV soonest, though its rounds are longer.
    """
    # Long prompts with short outputs make less than a token in each micro-batch.
    most = min(kv_tokens / mix.resident, rows) / stages
    made = np.minimum(most, budgets / (1.0 + mix.prefill_per_output))
    decode: FloatArray = np.maximum(made, 1.0)
    share = np.clip(made * mix.prefill_per_output / np.maximum(budgets - decode, 1e-9), 0.0, 1.0)
    context = decode * mix.resident
    reads = mix.chunk_reads(np.asarray(budgets - decode, dtype=np.float64), cost.chunk_tile)
    mixed = np.ones(len(budgets), dtype=np.bool_)
    with_prefill = cost.step_seconds(budgets, context + reads, mixed, decode)
    without = cost.step_seconds(np.ceil(decode).astype(np.int32), context)
    # Every micro-batch of a round waits for the longest, which has prefill unless none of them has.
    waits = 1.0 - (1.0 - share) ** stages - share
    uneven = _UNEVEN * waits * (with_prefill - without)
    seconds: FloatArray = share * with_prefill + (1.0 - share) * without + np.maximum(uneven, 0.0)
    rate = made / seconds
    best = int(np.flatnonzero(rate >= (_NEARLY if eager else 1.0) * rate.max())[-1])
    return Composition(int(budgets[best]), float(rate[best]))


def phased_rate(
    cost: CostModel, stages: int, kv_tokens: float, rows: int, mix: Mix, budget: int
) -> float:
    """Output tokens per second when prefill and decode alternate in phases of the best length.

    Short phases pay the bubbles of many switches, long ones thin batches: with a fixed cost f of a step, bubbles B a
    cycle and d decode rows in each of the micro-batches, a token costs sqrt(2 B f / (d * tokens in flight)) more.
    Decode batches end where a row is cheapest, on a tile edge.

    Args:
        cost: of a step.
        stages: micro-batches in flight.
        kv_tokens: that resident sequences may hold in all.
        rows: sequences that may be resident.
        mix: of the requests to come.
        budget: batch tokens of a prefill micro-batch.
    """
    most = min(kv_tokens / mix.resident, rows) / stages
    decode = max(1.0, most)
    step = cost.step_time(math.ceil(decode), decode * mix.resident)
    reads = mix.chunk_reads(np.array([float(budget)]), cost.chunk_tile)
    chunk = cost.step_time(budget, float(reads[0]), sampled=0)
    bubbles = 2.0 * (stages - 1) * abs(chunk - step)
    fixed = cost.step_time(1, 0.0)
    switching = math.sqrt(2.0 * bubbles * fixed / (decode * decode * stages * mix.output))
    rows_up_to = np.arange(1, math.ceil(decode) + 1, dtype=np.int32)
    context = rows_up_to.astype(np.float64) * mix.resident
    row = float((cost.step_seconds(rows_up_to, context) / rows_up_to).min())
    return 1.0 / (row / min(1.0, most) + mix.prefill_per_output * chunk / budget + switching)
