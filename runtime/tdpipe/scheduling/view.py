"""The scheduler's state as a policy sees it: figures, not handles."""

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


class StateView:
    """A `policy.View` over the scheduler's state."""

    def __init__(
        self, state: SchedulerState, stages: int, cost: CostModel, forecast: KVForecast
    ) -> None:
        self._state = state
        self.stages = stages
        self.capacity = state.pool.blocks
        self.block_size = state.pool.block_size
        self.cost = cost
        self.forecast = forecast
        self.renew(0.0)

    def renew(self, now: float) -> None:
        """Look at the state again.

        Policies ask several times a step for what is counted: `decoding`, `context`, `running_left` and `partial` stay
        as they are until the next call.
        """
        self.now = now
        self.decoding = int(np.count_nonzero(self._state.slots.decoding))
        self._context = -1
        self._running_left = -1.0
        self._partial: Sequence | None = None
        self._partial_sought = False

    @property
    def free_blocks(self) -> int:
        return self._state.pool.available

    @property
    def free_slots(self) -> int:
        return len(self._state.slots.free)

    @property
    def in_flight(self) -> int:
        return len(self._state.in_flight)

    @property
    def changes(self) -> int:
        return self._state.added + self._state.finished

    @property
    def waiting_count(self) -> int:
        return len(self._state.waiting)

    @property
    def load(self) -> Load:
        return self._state.waiting.load

    @property
    def last_arrival(self) -> float:
        return self._state.last_arrival

    @property
    def running_left(self) -> float:
        if self._running_left < 0.0:
            self._running_left = float(np.maximum(self.running_lengths()[1], 1.0).sum())
        return self._running_left

    def running_lengths(self) -> tuple[IntArray, FloatArray]:
        slots = self._state.slots
        held = slots.occupied
        length, prompt = slots.length[held], slots.prompt[held]
        left = slots.outcomes[held] - (length - prompt)[:, None]
        counts = np.count_nonzero(left > 0, axis=1)
        return length, np.maximum(left, 0).sum(axis=1) / np.maximum(counts, 1)

    @property
    def context(self) -> int:
        if self._context < 0:
            slots = self._state.slots
            self._context = int(slots.scheduled[slots.decoding].sum())
        return self._context

    @property
    def ready(self) -> IntArray:
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
        return slots[np.argsort(self._state.slots.number[slots])]

    def context_of(self, slots: IntArray) -> IntArray:
        return self._state.slots.scheduled[slots]

    def partial(self) -> Sequence | None:
        slots = self._state.slots
        if not self._partial_sought and len(slots.sequences) - len(slots.free) > self.decoding:
            begun = (slots.number >= 0) & ~slots.decoding
            self._partial = slots.sequences[int(begun.argmax())]
        self._partial_sought = True
        return self._partial

    def unscheduled(self, sequence: Sequence) -> int:
        slots = self._state.slots
        return int(slots.length[sequence.slot] - slots.scheduled[sequence.slot])

    def waiting(self) -> Iterator[Sequence]:
        # One that was preempted with a token in flight must know that token before it starts again.
        flying = self._state.flying
        return (each for each in self._state.waiting if each.number not in flying)

    def longest_waiting(self) -> Iterator[Sequence]:
        flying = self._state.flying
        return (e for e in self._state.waiting.longest_first() if e.number not in flying)

    def running_demand(self) -> Demand:
        slots = self._state.slots
        held = slots.occupied
        prompt, length = slots.prompt[held], slots.length[held]
        # A begun prefill is counted as if it had ended: it samples its first token then.
        length = length + ~slots.decoding[held]
        return self.forecast.of_running(
            length, length - prompt, slots.limit[held] - prompt, slots.outcomes[held]
        )
