"""The state of each slot's sequence on a stage, as arrays over slots.

Steps are deltas, so every stage keeps block tables, and the first and the last stage keep token ids. Arrays over slots
let a step with any number of rows be looked up in a few numpy calls. A row that reads another sequence's KV would give
wrong text without an error, so impossible steps are refused here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tdpipe.core.errors import PipelineError

if TYPE_CHECKING:
    from tdpipe.core.step import IntArray, Step

_NO_SEQUENCE = -1
"""Sequence number of a slot that no sequence has used yet."""


class SlotTable:
    """Block tables and progress of each slot's sequence.

    Args:
        slots: number of slots.
        max_context: maximum number of tokens in a sequence.
        blocks: number of KV blocks.
        block_size: number of tokens in a block.
    """

    def __init__(self, *, slots: int, max_context: int, blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self.sequences = np.full(slots, _NO_SEQUENCE, np.int32)
        """[slots] int32 number of the sequence in each slot."""
        self.block_tables = np.zeros((slots, -(-max_context // block_size)), np.int32)
        """[slots, max_blocks] int32; entries after a sequence's last block are stale."""
        self.block_counts = np.zeros(slots, np.int32)
        """[slots] int32 number of blocks of each sequence."""
        self.computed = np.zeros(slots, np.int32)
        """[slots] int32 number of tokens whose KV this stage has computed."""
        self._max_context = max_context
        self._blocks = blocks

    def apply(self, step: Step) -> None:
        """Store a step's new sequences, then its new blocks.

        Raises:
            PipelineError: the step is impossible.
        """
        for start in step.starts:
            if not 0 <= start.slot < len(self.sequences):
                problem = f"starts a sequence in slot {start.slot}, which does not exist"
                raise _impossible(step, problem)
            if not 0 < len(start.tokens) <= self._max_context:
                raise _impossible(step, f"starts a sequence of {len(start.tokens)} tokens")
            self.sequences[start.slot] = start.sequence
            self.block_counts[start.slot] = 0
            self.computed[start.slot] = 0
        if len(step.blocks):
            self._append_blocks(step)

    def _append_blocks(self, step: Step) -> None:
        # A slot may get several blocks at once: each is appended after those that the step names first.
        order = np.argsort(step.block_slots, kind="stable")
        slots, blocks = step.block_slots[order], step.blocks[order]
        if slots[0] < 0 or slots[-1] >= len(self.sequences):
            raise _impossible(step, f"gives blocks to slots {slots[0]} to {slots[-1]}")
        if blocks.min() < 0 or blocks.max() >= self._blocks:
            raise _impossible(step, f"names blocks outside the cache of {self._blocks}")
        rank = np.arange(len(slots)) - np.searchsorted(slots, slots)
        columns = self.block_counts[slots] + rank
        if columns.max() >= self.block_tables.shape[1]:
            raise _impossible(step, "gives a sequence more blocks than the context has")
        self.block_tables[slots, columns] = blocks
        np.add.at(self.block_counts, slots, 1)

    def check_rows(self, step: Step) -> None:
        """Refuse rows that would read or write the KV of another sequence.

        Raises:
            PipelineError: the step is impossible.
        """
        slots, ends = step.slots, step.first + step.counts
        if not len(slots) or slots.min() < 0 or slots.max() >= len(self.sequences):
            raise _impossible(step, f"has no rows, or slots outside 0 to {len(self.sequences) - 1}")
        for is_wrong, problem in (
            (self.sequences[slots] == _NO_SEQUENCE, "computes a slot without a sequence"),
            (step.counts < 1, "has an empty row"),
            (step.first < 0, "has a row before its sequence"),
            (ends > self.block_counts[slots] * self.block_size, "has a row without a block"),
            (ends > self._max_context, f"exceeds the context of {self._max_context} tokens"),
            (step.first > self.computed[slots], "skips tokens that were never computed"),
            (np.bincount(slots)[slots] > 1, "has two rows of one slot"),
        ):
            if is_wrong.any():
                slot = int(slots[is_wrong.argmax()])
                raise _impossible(step, f"{problem} (slot {slot})")

    def advance(self, step: Step) -> None:
        """Record that the step's rows have been computed."""
        self.computed[step.slots] = step.first + step.counts


class TokenTable:
    """Token ids of each slot's sequence, which the first and the last stage keep.

    Args:
        slots: number of slots.
        max_context: maximum number of tokens in a sequence.
        vocab_size: number of token ids.
    """

    def __init__(self, *, slots: int, max_context: int, vocab_size: int) -> None:
        # One column more than the context, because a token may be sampled after its last position.
        self.tokens = np.zeros((slots, max_context + 1), np.int32)
        """[slots, max_context + 1] int32 token ids; entries after a sequence's last token are stale."""
        self.token_counts = np.zeros(slots, np.int32)
        """[slots] int32 number of tokens that are stored for each sequence."""
        self.prompt_lengths = np.zeros(slots, np.int32)
        """[slots] int32 number of tokens in each sequence's prompt."""
        self._vocab_size = vocab_size

    def apply(self, step: Step) -> None:
        """Store the tokens of a step's new sequences.

        Raises:
            PipelineError: a token is not in the vocabulary.
        """
        for start in step.starts:
            if start.tokens.min() < 0 or start.tokens.max() >= self._vocab_size:
                raise _impossible(step, f"has tokens outside the vocabulary (slot {start.slot})")
            self.tokens[start.slot, : len(start.tokens)] = start.tokens
            self.token_counts[start.slot] = len(start.tokens)
            self.prompt_lengths[start.slot] = start.prompt_length

    def extend(self, slots: IntArray, positions: IntArray, tokens: IntArray) -> None:
        """Append those tokens that are the next of their sequence; ignore those that are stored already."""
        new = self.token_counts[slots] == positions
        slots = slots[new]
        self.tokens[slots, positions[new]] = tokens[new]
        self.token_counts[slots] += 1

    def lacks_tokens(self, step: Step) -> bool:
        """Return whether a row needs a token that is not stored yet."""
        return bool((step.first + step.counts > self.token_counts[step.slots]).any())


def _impossible(step: Step, problem: str) -> PipelineError:
    return PipelineError(f"step {step.id} {problem}; scheduler and stage disagree, restart tdpipe")
