"""A step's rows as the tensors that a model computes with.

Steps name slots; this module looks up what lies in them in a few numpy calls, whatever the number of rows.
"""

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
    """A ragged, unpadded batch: the T tokens of a step's rows, one row after the other."""

    layout: BatchLayout
    positions: Tensor
    """[T] int32 position of each token in its sequence."""
    token_ids: Tensor | None
    """[T] int32 on the first stage, else None."""


def build_batch(
    step: Step, table: SlotTable, tokens: TokenTable | None, device: torch.device
) -> Batch:
    """Build the batch of a step whose rows have been checked.

    Args:
        step: a step whose starts and blocks have been applied.
        table: block tables of the stage.
        tokens: token ids on the first stage, with all tokens that the step computes; None elsewhere.
        device: device that the tensors are put on.
    """

    def upload(array: np.ndarray[Any, Any]) -> Tensor:
        return torch.from_numpy(array).to(device)

    counts, ends = step.counts, step.first + step.counts
    query_start = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=query_start[1:])
    total = int(query_start[-1])
    # A token's position is its index in the batch plus an offset that is the same for the whole row.
    positions = np.arange(total, dtype=np.int32) + np.repeat(step.first - query_start[:-1], counts)
    token_slots = np.repeat(step.slots, counts)

    size = table.block_size
    blocks = table.block_tables[token_slots, positions // size].astype(np.int64)
    max_context = int(ends.max())
    layout = BatchLayout(
        query_start=upload(query_start),
        context_len=upload(ends),
        block_tables=upload(table.block_tables[step.slots, : -(-max_context // size)]),
        slot_mapping=upload(blocks * size + positions % size),
        block_size=size,
        rows=len(counts),
        tokens=total,
        max_query=int(counts.max()),
        max_context=max_context,
    )
    ids = None if tokens is None else upload(tokens.tokens[token_slots, positions])
    return Batch(layout, upload(positions), ids)


def sampled_tokens(step: Step) -> IntArray:
    """Return the batch index of the last token of each row that is sampled."""
    return np.cumsum(step.counts, dtype=np.int32)[step.sample] - 1
