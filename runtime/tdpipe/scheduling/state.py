"""What the scheduler owns: queue, slots, blocks and steps in flight."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tdpipe.core.step import Phase
from tdpipe.scheduling.waiting_queue import WaitingQueue

if TYPE_CHECKING:
    from tdpipe.core.step import IntArray
    from tdpipe.scheduling.block_pool import BlockPool
    from tdpipe.scheduling.sequence import Sequence
    from tdpipe.scheduling.slot_table import SlotTable


@dataclass(frozen=True, slots=True)
class Flight:
    """A step whose result is awaited: the sampled rows, as they were when it was issued."""

    slots: IntArray
    numbers: IntArray


@dataclass(slots=True)
class SchedulerState:
    """Mutable state, changed by the scheduler and its issuer alone."""

    pool: BlockPool
    slots: SlotTable
    waiting: WaitingQueue = field(default_factory=WaitingQueue)
    sequences: dict[str, Sequence] = field(default_factory=dict)
    """Every request that has not ended."""
    in_flight: dict[int, Flight] = field(default_factory=dict)
    """In the order of issue."""
    flying: dict[int, int] = field(default_factory=dict)
    """Sequences without a slot that have tokens in flight: number → how many."""
    epoch: int = 0
    """Of the pipeline that executes the steps."""
    added: int = 0
    """Requests since the start; also the next one's number."""
    last_arrival: float = 0.0
    """Seconds of the caller's clock."""
    finished: int = 0
    preemptions: int = 0
    phase_switches: int = 0
    """Times that prefill and decode took turns; mixed steps are neither."""
    pure_phase: Phase | None = None
    """Of the last step that was not mixed."""

    def enter(self, phase: Phase) -> None:
        """A step of this phase is issued."""
        if phase is Phase.MIXED:
            return
        self.phase_switches += self.pure_phase not in (None, phase)
        self.pure_phase = phase

    def preempt(self, slot: int) -> None:
        """Take a sequence's KV; it waits for its turn with the tokens that it has."""
        sequence = self.slots.sequences[slot]
        assert sequence is not None
        pending = int(self.slots.pending[slot])
        self.pool.release(self.slots.leave(slot))
        self.waiting.put_back(sequence)
        self.preemptions += 1
        if pending:
            self.flying[sequence.number] = pending

    def end(self, sequence: Sequence) -> None:
        """Forget a sequence and free what it holds."""
        if sequence.slot >= 0:
            self.pool.release(self.slots.leave(sequence.slot))
        else:
            self.waiting.remove(sequence)
            self.flying.pop(sequence.number, None)
        del self.sequences[sequence.request.id]
        self.finished += 1
