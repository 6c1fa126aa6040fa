"""The sequences that hold KV, by slot.

What changes at every step is kept per slot in arrays, so that a step over a thousand rows costs a few vector
operations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tdpipe.core.lengths import OUTCOMES

if TYPE_CHECKING:
    from tdpipe.core.step import IntArray
    from tdpipe.scheduling.sequence import Sequence


class RunningSequences:
    """Arrays over slots with the progress of the sequence in each. A slot is free where `sequences` has None.

    Args:
        slots: number of sequences that may hold KV at once.
        max_blocks: number of blocks of the longest sequence.
    """

    def __init__(self, slots: int, max_blocks: int) -> None:
        self.sequences: list[Sequence | None] = [None] * slots
        self.free: list[int] = list(range(slots - 1, -1, -1))
        self.number = np.full(slots, -1, dtype=np.int32)
        self.prompt = np.zeros(slots, dtype=np.int32)
        """[slots] number of prompt tokens."""
        self.limit = np.zeros(slots, dtype=np.int32)
        """[slots] largest number of tokens of prompt and output."""
        self.length = np.zeros(slots, dtype=np.int32)
        """[slots] number of tokens that are known or are being sampled by a step in flight."""
        self.scheduled = np.zeros(slots, dtype=np.int32)
        """[slots] number of tokens whose KV is computed or is being computed."""
        self.pending = np.zeros(slots, dtype=np.int32)
        """[slots] number of tokens that steps in flight are sampling."""
        self.last_step = np.full(slots, -1, dtype=np.int64)
        self.turn = np.zeros(slots, dtype=np.int64)
        """[slots] number that ascends in the order in which slots were last rows of a step, also within a step."""
        self.decoding = np.zeros(slots, dtype=np.bool_)
        """[slots] whether the whole prompt is scheduled."""
        self.block_count = np.zeros(slots, dtype=np.int32)
        """[slots] number of blocks in the block table."""
        self.block_table = np.zeros((slots, max_blocks), dtype=np.int32)
        self.outcomes = np.ones((slots, OUTCOMES), dtype=np.int32)
        """[slots, OUTCOMES] possible output lengths."""

    def add(self, sequence: Sequence) -> int:
        """Give the sequence a free slot and return it."""
        slot = self.free.pop()
        self.sequences[slot] = sequence
        sequence.slot = slot
        self.number[slot] = sequence.number
        self.prompt[slot] = len(sequence.request.prompt)
        self.limit[slot] = len(sequence.request.prompt) + sequence.request.max_tokens
        self.length[slot] = sequence.length
        self.scheduled[slot] = self.pending[slot] = self.block_count[slot] = 0
        self.last_step[slot] = -1
        self.decoding[slot] = False
        self.outcomes[slot] = sequence.outcomes
        return slot

    def remove(self, slot: int) -> IntArray:
        """Free the slot and return the blocks that it held."""
        sequence = self.sequences[slot]
        assert sequence is not None
        sequence.slot = -1
        self.sequences[slot] = None
        self.number[slot] = -1
        self.decoding[slot] = False
        self.free.append(slot)
        return self.block_table[slot, : self.block_count[slot]].copy()

    def append_blocks(self, slot: int, blocks: IntArray) -> None:
        """Add blocks to the end of a slot's block table."""
        count = int(self.block_count[slot])
        self.block_table[slot, count : count + len(blocks)] = blocks
        self.block_count[slot] = count + len(blocks)

    @property
    def occupied(self) -> IntArray:
        """Slots in use, ascending."""
        return np.flatnonzero(self.number >= 0).astype(np.int32)
