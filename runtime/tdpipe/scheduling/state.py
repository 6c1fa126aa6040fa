"""What the scheduler owns: queue, slots, blocks and steps in flight."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tdpipe.core.step import Phase
from tdpipe.scheduling.waiting_queue import WaitingQueue

if TYPE_CHECKING:
    from tdpipe.core.attempt import Attempt
    from tdpipe.core.step import IntArray
    from tdpipe.scheduling.block_pool import BlockPool
    from tdpipe.scheduling.running_sequences import RunningSequences
    from tdpipe.scheduling.sequence import Sequence


@dataclass(frozen=True, slots=True)
class InFlightStep:
    """The sampled rows of a step whose result is awaited, as they were when it was issued."""

    slots: IntArray
    numbers: IntArray
    """[rows] numbers of the sequences that held the slots."""


@dataclass(slots=True)
class SchedulerState:
    """Mutable state, changed by the scheduler and its issuer alone."""

    pool: BlockPool
    slots: RunningSequences
    waiting: WaitingQueue = field(default_factory=WaitingQueue)
    sequences: dict[str, Sequence] = field(default_factory=dict)
    """Sequences of all requests that have not ended, by request id."""
    in_flight: dict[int, InFlightStep] = field(default_factory=dict)
    """Steps in flight by number, in the order of issue."""
    late_tokens: dict[int, int] = field(default_factory=dict)
    """Number of tokens in flight of each sequence that has lost its slot, by sequence number."""
    attempt: Attempt | None = None
    """Start of the pipeline that executes the steps; None until a start replaces the first one."""
    added: int = 0
    """Number of requests since the start, which is also the number of the next one."""
    last_arrival: float = 0.0
    """Time of the latest arrival in seconds of the caller's clock."""
    finished: int = 0
    preemptions: int = 0
    phase_switches: int = 0
    """Number of changes between prefill and decode; mixed steps do not count."""
    pure_phase: Phase | None = None
    """Phase of the latest step that was not mixed."""

    def enter_phase(self, phase: Phase) -> None:
        """Count a change of phase if a step of this phase makes one."""
        if phase is Phase.MIXED:
            return
        self.phase_switches += self.pure_phase not in (None, phase)
        self.pure_phase = phase

    def preempt(self, slot: int) -> None:
        """Take a sequence's KV for others, and queue the sequence again with the tokens that it has."""
        pending = int(self.slots.pending[slot])
        sequence = self.requeue(slot)
        self.preemptions += 1
        if pending:
            self.late_tokens[sequence.number] = pending

    def requeue(self, slot: int) -> Sequence:
        """Free a slot and its blocks, and queue its sequence before the new ones."""
        sequence = self.slots.sequences[slot]
        assert sequence is not None
        self.pool.release(self.slots.remove(slot))
        self.waiting.put_back(sequence)
        return sequence

    def end(self, sequence: Sequence) -> None:
        """Forget a sequence and free what it holds."""
        if sequence.slot >= 0:
            self.pool.release(self.slots.remove(sequence.slot))
        else:
            self.waiting.remove(sequence)
            self.late_tokens.pop(sequence.number, None)
        del self.sequences[sequence.request.id]
        self.finished += 1
