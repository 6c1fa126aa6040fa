"""The slots of sequences that hold KV.

What changes every step is kept per slot in arrays, so that a step over a thousand rows costs a few vector operations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tdpipe.core.lengths import OUTCOMES

if TYPE_CHECKING:
    from tdpipe.core.step import IntArray
    from tdpipe.scheduling.sequence import Sequence


class SlotTable:
    """What the scheduler knows of each slot. A slot is free where `sequence` is None.

    Args:
        slots: sequences that may hold KV at once.
        max_blocks: blocks of the longest sequence.
    """

    def __init__(self, slots: int, max_blocks: int) -> None:
        self.sequences: list[Sequence | None] = [None] * slots
        self.free: list[int] = list(range(slots - 1, -1, -1))
        self.number = np.full(slots, -1, dtype=np.int32)
        self.prompt = np.zeros(slots, dtype=np.int32)
        self.limit = np.zeros(slots, dtype=np.int32)
        """Tokens of prompt and output at most."""
        self.length = np.zeros(slots, dtype=np.int32)
        """Tokens known or being sampled by a step in flight."""
        self.scheduled = np.zeros(slots, dtype=np.int32)
        """Tokens whose KV is computed or being computed."""
        self.pending = np.zeros(slots, dtype=np.int32)
        """Tokens being sampled by steps in flight."""
        self.last_step = np.full(slots, -1, dtype=np.int64)
        self.turn = np.zeros(slots, dtype=np.int64)
        """Ascends in the order in which slots were last rows of a step, within a step, too."""
        self.decoding = np.zeros(slots, dtype=np.bool_)
        """The whole prompt is scheduled."""
        self.held = np.zeros(slots, dtype=np.int32)
        """Blocks in the table."""
        self.table = np.zeros((slots, max_blocks), dtype=np.int32)
        self.outcomes = np.ones((slots, OUTCOMES), dtype=np.int32)

    def take(self, sequence: Sequence) -> int:
        """Give the sequence a slot."""
        slot = self.free.pop()
        self.sequences[slot] = sequence
        sequence.slot = slot
        self.number[slot] = sequence.number
        self.prompt[slot] = len(sequence.request.prompt)
        self.limit[slot] = len(sequence.request.prompt) + sequence.request.max_tokens
        self.length[slot] = sequence.length
        self.scheduled[slot] = self.pending[slot] = self.held[slot] = 0
        self.last_step[slot] = -1
        self.decoding[slot] = False
        self.outcomes[slot] = sequence.outcomes
        return slot

    def leave(self, slot: int) -> IntArray:
        """Free the slot; returns the blocks that it held."""
        sequence = self.sequences[slot]
        assert sequence is not None
        sequence.slot = -1
        self.sequences[slot] = None
        self.number[slot] = -1
        self.decoding[slot] = False
        self.free.append(slot)
        return self.table[slot, : self.held[slot]].copy()

    def append_blocks(self, slot: int, blocks: IntArray) -> None:
        """Add blocks to the end of a slot's table."""
        held = int(self.held[slot])
        self.table[slot, held : held + len(blocks)] = blocks
        self.held[slot] = held + len(blocks)

    @property
    def occupied(self) -> IntArray:
        """Slots in use."""
        return np.flatnonzero(self.number >= 0).astype(np.int32)
