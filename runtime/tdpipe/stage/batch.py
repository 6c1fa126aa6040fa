"""A step's rows as the tensors that a model computes with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tdpipe.model.attention import BatchLayout

if TYPE_CHECKING:
    from torch import Tensor

    from tdpipe.core.step import IntArray, Step
    from tdpipe.stage.slots import SlotTable, TokenTable


@dataclass(frozen=True, slots=True)
class Batch:
    """A step, ragged and unpadded: its rows' T tokens one behind the other."""

    layout: BatchLayout
    positions: Tensor
    """[T] int32 position of each token in its sequence."""
    token_ids: Tensor | None
    """[T] int32 on the first stage, else None."""


def build_batch(
    step: Step, table: SlotTable, tokens: TokenTable | None, device: torch.device
) -> Batch:
    """Look up what the rows of a checked step refer to.

    Args:
        step: whose starts and blocks have been applied.
        table: block tables.
        tokens: token ids, on the first stage; it must have all that the step computes.
        device: of the tensors.
    """

    def upload(array: np.ndarray[Any, Any]) -> Tensor:
        return torch.from_numpy(array).to(device)

    counts, ends = step.counts, step.first + step.counts
    query_start = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=query_start[1:])
    total = int(query_start[-1])
    # A token's position is its place in the batch, shifted by what its row is off by.
    positions = np.arange(total, dtype=np.int32) + np.repeat(step.first - query_start[:-1], counts)
    token_slots = np.repeat(step.slots, counts)

    size = table.block_size
    blocks = table.block_tables[token_slots, positions // size].astype(np.int64)
    longest = int(ends.max())
    layout = BatchLayout(
        query_start=upload(query_start),
        context_len=upload(ends),
        block_tables=upload(table.block_tables[step.slots, : -(-longest // size)]),
        slot_mapping=upload(blocks * size + positions % size),
        block_size=size,
        rows=len(counts),
        tokens=total,
        max_query=int(counts.max()),
        max_context=longest,
    )
    ids = None if tokens is None else upload(tokens.tokens[token_slots, positions])
    return Batch(layout, upload(positions), ids)


def sampled_tokens(step: Step) -> IntArray:
    """Place in the batch of the last token of each row that is sampled."""
    return np.cumsum(step.counts, dtype=np.int32)[step.sample] - 1
