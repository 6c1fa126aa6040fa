"""What the scheduler owns: queue, slots, blocks and steps in flight."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tdpipe.scheduling.waiting_queue import WaitingQueue

if TYPE_CHECKING:
    from tdpipe.core.step import IntArray
    from tdpipe.scheduling.block_pool import BlockPool
    from tdpipe.scheduling.sequence import Sequence, SlotTable


@dataclass(frozen=True, slots=True)
class Flight:
    """A step whose result is awaited: the sampled rows, as they were when it was issued."""

    slots: IntArray
    numbers: IntArray


@dataclass(slots=True)
class SchedulerState:
    """Mutable state, changed by the scheduler alone."""

    pool: BlockPool
    slots: SlotTable
    waiting: WaitingQueue = field(default_factory=WaitingQueue)
    sequences: dict[str, Sequence] = field(default_factory=dict)
    """Every request that has not ended."""
    in_flight: dict[int, Flight] = field(default_factory=dict)
    """In the order of issue."""
    flying: dict[int, int] = field(default_factory=dict)
    """Sequences without a slot that have tokens in flight: number → how many."""
    finished: int = 0
    preemptions: int = 0
