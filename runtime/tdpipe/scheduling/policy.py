"""The interface between what a policy decides and what the scheduler alone does.

A policy names the rows of the next step, from a read-only view and its own small state. The scheduler owns queues,
blocks, chunks and preemption, once for all policies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from tdpipe.core.step import Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdpipe.core.step import IntArray
    from tdpipe.scheduling.sequence import Sequence
    from tdpipe.scheduling.view import View

_RESERVED_BLOCKS_PER_SEQUENCE = 0.5
"""Number of blocks per decoding sequence that stay free at admission, because decoding takes them until the next
sequences end. Without them a preempted sequence is admitted again at once and is preempted again by the next block that
decoding needs: with a full cache that doubled the tokens that were prefilled."""
_RESERVED_KV_DEVIATIONS = 0.35
"""KV that stays free at admission for the fluctuation of what n decoding sequences hold, in units of the mean KV of a
sequence times the square root of n. A hundred sequences need a larger part of the cache free than a thousand."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The rows of a step."""

    phase: Phase
    decode: IntArray
    """[rows] slots that decode one token each."""
    prefill: tuple[tuple[Sequence, int], ...] = ()
    """Sequences to prefill, each with the number of tokens; waiting ones are admitted."""

    @classmethod
    def of(cls, decode: IntArray, prefill: tuple[tuple[Sequence, int], ...]) -> Plan | None:
        """Return the plan of these rows, with the phase that they make, or None if there are no rows."""
        if not prefill:
            return cls(Phase.DECODE, decode) if len(decode) else None
        return cls(Phase.MIXED if len(decode) else Phase.PREFILL, decode, prefill)


NO_ROWS: IntArray = np.zeros(0, dtype=np.int32)
"""No slots."""


class Policy(Protocol):
    """Decides what runs next. It is deterministic, and its own state is all that it changes."""

    name: str

    def plan(self, view: View) -> Plan | None:
        """Return the rows of the next step, or None to wait for a result or a request."""

    def reset(self) -> None:
        """Return to the state before the first step, because a new pipeline has no KV of any sequence."""


def max_steps_in_flight(view: View) -> int:
    """Return how many steps may be in flight: one per stage, and one that waits at stage 0 so that it is never idle."""
    return view.stages + 1


def has_kv_reserve(view: View) -> bool:
    """Return whether blocks are free beyond those that decoding takes until the next sequences end."""
    free, decoding = view.free_blocks, view.decoding
    if free < _RESERVED_BLOCKS_PER_SEQUENCE * decoding:
        return False
    reserved_tokens = _RESERVED_KV_DEVIATIONS * view.context / math.sqrt(max(decoding, 1))
    return free * view.block_size >= reserved_tokens


def prefill_rows(
    view: View, sequences: Iterator[Sequence], budget: int
) -> Iterator[tuple[Sequence, int]]:
    """Yield chunks of the partial prefill and then of `sequences` within `budget` tokens, free blocks and free slots.

    Only the last chunk may leave a partial prefill, so that there is at most one at any time.
    """
    free = view.free_blocks
    partial = view.partial_prefill()
    if partial is not None:
        want = view.unscheduled(partial)
        held = -(-(partial.length - want) // view.block_size)
        count = min(want, budget, (held + free) * view.block_size - (partial.length - want))
        if count <= 0:
            return
        yield partial, count
        if count < want:
            return
        budget -= count
        free -= -(-partial.length // view.block_size) - held
    slots = view.free_slots
    for sequence in sequences:
        count = min(sequence.length, budget, free * view.block_size)
        if count <= 0 or slots <= 0:
            return
        yield sequence, count
        if count < sequence.length:
            return
        budget -= count
        slots -= 1
        free -= -(-count // view.block_size)
