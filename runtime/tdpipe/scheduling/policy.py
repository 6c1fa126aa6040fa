"""The seam between what a policy decides and what the scheduler alone does.

A policy is a pure function of a read-only view and its own small state. It names rows; the scheduler owns queues,
blocks, chunks and preemption, once for all policies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from tdpipe.core.step import Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdpipe.core.step import FloatArray, IntArray
    from tdpipe.scheduling.cost_model import CostModel
    from tdpipe.scheduling.forecast import Demand, KVForecast
    from tdpipe.scheduling.sequence import Sequence
    from tdpipe.scheduling.waiting_queue import Load

_RESERVE = 0.5
"""Blocks per decoding sequence that stay free at admission: what decoding takes until the next sequences end. Without
them a preempted sequence comes back at once and is preempted again by the next block that decoding needs: with a full
cache that doubled the tokens that were prefilled."""
_SPREAD = 0.35
"""Of the KV of n sequences stays free by how much it comes and goes, in units of their mean times the root of n. A
hundred sequences need a larger part of the cache free than a thousand."""


class View(Protocol):
    """What a policy may look at."""

    stages: int
    capacity: int
    """KV blocks."""
    block_size: int
    cost: CostModel
    forecast: KVForecast
    now: float
    """Seconds of the caller's clock."""

    @property
    def free_blocks(self) -> int: ...

    @property
    def free_slots(self) -> int: ...

    @property
    def in_flight(self) -> int:
        """Steps without a result."""

    @property
    def changes(self) -> int:
        """Requests that were added or ended since the start."""

    @property
    def waiting_count(self) -> int: ...

    @property
    def load(self) -> Load:
        """Sums over the waiting."""

    @property
    def last_arrival(self) -> float:
        """When the latest request was added, in seconds of the caller's clock."""

    @property
    def running_left(self) -> float:
        """Expected output tokens to come of all sequences that hold KV."""

    def running_lengths(self) -> tuple[IntArray, FloatArray]:
        """[n] tokens and [n] expected output tokens to come (0 where outlived) of sequences that hold KV."""

    @property
    def decoding(self) -> int:
        """Sequences past their prefill, in flight or not."""

    @property
    def context(self) -> int:
        """KV tokens of all decoding sequences."""

    @property
    def ready(self) -> IntArray:
        """Slots that can decode now, those that waited longest first."""

    def by_arrival(self, slots: IntArray) -> IntArray:
        """The same slots, their sequences in the order of arrival."""

    def context_of(self, slots: IntArray) -> IntArray:
        """KV tokens of each slot."""

    def partial(self) -> Sequence | None:
        """The sequence whose prefill has begun and not ended."""

    def unscheduled(self, sequence: Sequence) -> int:
        """Tokens of the sequence that are still to be prefilled."""

    def waiting(self) -> Iterator[Sequence]:
        """Sequences that may be admitted now, in order."""

    def longest_waiting(self) -> Iterator[Sequence]:
        """Those of `waiting`, the longest expected output first."""

    def running_demand(self) -> Demand:
        """The forecast of all sequences that hold KV."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The rows of a step."""

    phase: Phase
    decode: IntArray
    """Slots that decode one token each."""
    prefill: tuple[tuple[Sequence, int], ...] = ()
    """Sequences to prefill by so many tokens; waiting ones are admitted."""

    @classmethod
    def of(cls, decode: IntArray, prefill: tuple[tuple[Sequence, int], ...]) -> Plan | None:
        """The plan of these rows, with the phase that they make; None where there are none."""
        if not prefill:
            return cls(Phase.DECODE, decode) if len(decode) else None
        return cls(Phase.MIXED if len(decode) else Phase.PREFILL, decode, prefill)


NO_ROWS: IntArray = np.zeros(0, dtype=np.int32)
"""No slots."""

StateT = TypeVar("StateT")


class Policy(Protocol[StateT]):
    """Decides what runs next."""

    name: str

    def initial(self) -> StateT:
        """The state before the first step."""

    def plan(self, view: View, state: StateT) -> tuple[Plan | None, StateT]:
        """The next step's rows, or None to wait for a result or a request; and the state after it."""


def steps_ahead(view: View) -> int:
    """Steps that may be in flight: one per stage, and one more that waits at stage 0 so that it never does."""
    return view.stages + 1


def keeps_reserve(view: View) -> bool:
    """Whether blocks are free beyond those that decoding takes until the next sequences end."""
    free, decoding = view.free_blocks, view.decoding
    if free < _RESERVE * decoding:
        return False
    return free * view.block_size >= _SPREAD * view.context / math.sqrt(max(decoding, 1))


def prefill_rows(
    view: View, sequences: Iterator[Sequence], budget: int
) -> Iterator[tuple[Sequence, int]]:
    """Chunks of the begun prefill and then of `sequences` within `budget` tokens, free blocks and free slots.

    Only the last may be left partial, so that at most one sequence is at any time.
    """
    free = view.free_blocks
    partial = view.partial()
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
