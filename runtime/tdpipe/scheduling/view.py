"""The scheduler's state as a policy sees it: figures to read, nothing to change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdpipe.core.step import FloatArray, IntArray
    from tdpipe.scheduling.cost_model import CostModel
    from tdpipe.scheduling.forecast import Demand, KVForecast
    from tdpipe.scheduling.sequence import Sequence
    from tdpipe.scheduling.state import SchedulerState
    from tdpipe.scheduling.waiting_queue import Load


class View:
    """What a policy may look at.

    Args:
        state: state that is looked at.
        stages: number of pipeline stages.
        cost: what steps cost.
        forecast: forecasts the KV that sequences will need.
    """

    def __init__(
        self, state: SchedulerState, stages: int, cost: CostModel, forecast: KVForecast
    ) -> None:
        self._state = state
        self.stages = stages
        self.capacity = state.pool.blocks
        """Number of KV blocks."""
        self.block_size = state.pool.block_size
        self.cost = cost
        self.forecast = forecast
        self.renew(0.0)

    def renew(self, now: float) -> None:
        """Look at the state again.

        Policies ask several times per step for what has to be counted, so `decoding`, `context`, `running_left` and
        `partial_prefill` stay as they are until the next call.
        """
        self.now = now
        """Time of this call in seconds of the caller's clock."""
        self.decoding = int(np.count_nonzero(self._state.slots.decoding))
        """Number of sequences past their prefill, whether a step in flight has them or not."""
        self._context = -1
        self._running_left = -1.0
        self._partial_prefill: Sequence | None = None
        self._knows_partial_prefill = False

    @property
    def free_blocks(self) -> int:
        """Number of KV blocks that can be allocated."""
        return self._state.pool.available

    @property
    def free_slots(self) -> int:
        """Number of sequences that may be admitted."""
        return len(self._state.slots.free)

    @property
    def in_flight(self) -> int:
        """Number of steps without a result."""
        return len(self._state.in_flight)

    @property
    def changes(self) -> int:
        """Number of requests added plus number of requests ended since the start."""
        return self._state.added + self._state.finished

    @property
    def waiting_count(self) -> int:
        """Number of sequences that wait for KV."""
        return len(self._state.waiting)

    @property
    def load(self) -> Load:
        """Sums over the sequences that wait."""
        return self._state.waiting.load

    @property
    def last_arrival(self) -> float:
        """Time at which the latest request was added, in seconds of the caller's clock."""
        return self._state.last_arrival

    @property
    def running_left(self) -> float:
        """Expected number of output tokens to come of all sequences that hold KV."""
        if self._running_left < 0.0:
            self._running_left = float(np.maximum(self.running_lengths()[1], 1.0).sum())
        return self._running_left

    def running_lengths(self) -> tuple[IntArray, FloatArray]:
        """Return [n] tokens and [n] expected output tokens to come of the sequences that hold KV.

        A sequence that has outlived its prediction has 0 tokens to come.
        """
        slots = self._state.slots
        occupied = slots.occupied
        length, prompt = slots.length[occupied], slots.prompt[occupied]
        left = slots.outcomes[occupied] - (length - prompt)[:, None]
        counts = np.count_nonzero(left > 0, axis=1)
        return length, np.maximum(left, 0).sum(axis=1) / np.maximum(counts, 1)

    @property
    def context(self) -> int:
        """Number of KV tokens of all decoding sequences."""
        if self._context < 0:
            slots = self._state.slots
            self._context = int(slots.scheduled[slots.decoding].sum())
        return self._context

    @property
    def ready(self) -> IntArray:
        """Slots that can decode now; those that have waited longest come first."""
        slots, in_flight = self._state.slots, self._state.in_flight
        # With a step per stage in flight, the oldest one's tokens reach stage 0 before it gets to this step.
        oldest = next(iter(in_flight)) if len(in_flight) >= self.stages else -1
        mask = (slots.pending == 0) | ((slots.pending == 1) & (slots.last_step == oldest))
        mask &= slots.decoding
        mask &= slots.length < slots.limit
        found: IntArray = mask.nonzero()[0].astype(np.int32)
        by_turn: IntArray = found[slots.turn[found].argsort()]
        return by_turn

    def by_arrival(self, slots: IntArray) -> IntArray:
        """Return the same slots in the order in which their sequences arrived."""
        return slots[np.argsort(self._state.slots.number[slots])]

    def context_of(self, slots: IntArray) -> IntArray:
        """Return the number of KV tokens of each slot."""
        return self._state.slots.scheduled[slots]

    def partial_prefill(self) -> Sequence | None:
        """Return the sequence of whose prompt a part is prefilled, if there is one."""
        slots = self._state.slots
        if (
            not self._knows_partial_prefill
            and len(slots.sequences) - len(slots.free) > self.decoding
        ):
            partial = (slots.number >= 0) & ~slots.decoding
            self._partial_prefill = slots.sequences[int(partial.argmax())]
        self._knows_partial_prefill = True
        return self._partial_prefill

    def unscheduled(self, sequence: Sequence) -> int:
        """Return the number of tokens of a running sequence that are still to be prefilled."""
        slots = self._state.slots
        return int(slots.length[sequence.slot] - slots.scheduled[sequence.slot])

    def waiting(self) -> Iterator[Sequence]:
        """Return the sequences that may be admitted now, in the order of the queue."""
        # A sequence that was preempted with a token in flight must know that token before it starts again.
        late_tokens = self._state.late_tokens
        return (each for each in self._state.waiting if each.number not in late_tokens)

    def longest_waiting(self) -> Iterator[Sequence]:
        """Return the sequences of `waiting`, the longest expected output first."""
        late_tokens = self._state.late_tokens
        return (e for e in self._state.waiting.longest_first() if e.number not in late_tokens)

    def running_demand(self) -> Demand:
        """Return the forecast of all sequences that hold KV."""
        slots = self._state.slots
        occupied = slots.occupied
        prompt, length = slots.prompt[occupied], slots.length[occupied]
        # A partial prefill is counted as if it had ended: it samples its first token then.
        length = length + ~slots.decoding[occupied]
        return self.forecast.of_running(
            length, length - prompt, slots.limit[occupied] - prompt, slots.outcomes[occupied]
        )
