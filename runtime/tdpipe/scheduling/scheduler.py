"""The deterministic state machine between requests and steps.

Engine, simulator and property tests drive it alike. It alone owns queues, slots, blocks and preemption; the policy only
says which rows run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.core.errors import RequestError
from tdpipe.core.request import FinishReason, Request
from tdpipe.core.step import NO_TOKEN
from tdpipe.scheduling.block_pool import BlockPool
from tdpipe.scheduling.forecast import KVForecast
from tdpipe.scheduling.running_sequences import RunningSequences
from tdpipe.scheduling.sequence import Sequence, outcomes_of
from tdpipe.scheduling.state import SchedulerState
from tdpipe.scheduling.step_issuer import StepIssuer
from tdpipe.scheduling.view import View

if TYPE_CHECKING:
    from tdpipe.core.attempt import Attempt
    from tdpipe.core.capacity import Capacity
    from tdpipe.core.lengths import LengthDistribution
    from tdpipe.core.step import IntArray, Step
    from tdpipe.scheduling.cost_model import CostModel
    from tdpipe.scheduling.policy import Policy


class Wait(Enum):
    """What the scheduler waits for when it has no step to issue."""

    FOR_RESULT = "result"
    """A step's result, a new request or the end of one."""
    FOR_REQUEST = "request"
    """A new request, because all others have ended."""


@dataclass(slots=True)
class Emission:
    """What a result brought: one token per entry, and the requests that ended with it."""

    request_ids: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    """Index of each token in the step's output."""
    finished: dict[str, FinishReason] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    """Requests that have ended because no token could be sampled for them; they have no entry above."""


class Scheduler:
    """Decides on steps and books their results. All times are seconds of one clock, the caller's.

    Args:
        policy: decides which rows run; it belongs to this scheduler.
        capacity: what the pipeline holds.
        cost: what steps cost on each stage, for the policy.
        first_step: number of the first step, where a warm-up has used some.
    """

    def __init__(
        self, policy: Policy, capacity: Capacity, cost: CostModel, first_step: int = 0
    ) -> None:
        self._state = SchedulerState(*_empty(capacity))
        self._policy = policy
        self._begin(capacity, cost, first_step)

    def _begin(self, capacity: Capacity, cost: CostModel, first_step: int) -> None:
        """Schedule for a pipeline that holds no KV yet."""
        self.capacity = capacity
        forecast = KVForecast(capacity.max_context, capacity.block_size)
        self._view = View(self._state, len(cost.stages), cost, forecast)
        self._issuer = StepIssuer(self._state, first_step)

    @property
    def state(self) -> SchedulerState:
        """State, which callers such as metrics and tests may only read."""
        return self._state

    def forecast_peak(self) -> float:
        """Return the largest expected number of KV blocks that the sequences which hold KV will need."""
        return float(self._view.running_demand().mean.max())

    def add(self, request: Request, now: float) -> None:
        """Queue a request.

        Raises:
            RequestError: it could not run even alone, or its id is in use.
        """
        self.capacity.check(len(request.prompt), request.max_tokens)
        if request.id in self._state.sequences:
            raise RequestError(f"request id {request.id} is in use; choose another")
        sequence = Sequence(
            self._state.added,
            request,
            outcomes=outcomes_of(request.lengths, request.max_tokens),
            arrival=now,
        )
        self._state.added += 1
        self._state.last_arrival = now
        self._state.sequences[request.id] = sequence
        self._state.waiting.append(sequence)

    def revise(self, request_id: str, lengths: LengthDistribution) -> None:
        """Replace a request's predicted length when a predictor has learned more. Unknown ids are ignored."""
        sequence = self._state.sequences.get(request_id)
        if sequence is None:
            return
        sequence.outcomes = outcomes_of(lengths, sequence.request.max_tokens)
        if sequence.slot >= 0:
            self._state.slots.outcomes[sequence.slot] = sequence.outcomes
        else:
            self._state.waiting.update(sequence)

    def abort(self, request_id: str) -> bool:
        """End a request that nobody wants any more; return False if it has already ended."""
        return self.finish(request_id, 0)

    def finish(self, request_id: str, length: int) -> bool:
        """End a request whose first `length` output tokens complete it; return False if it has already ended.

        A stop string is found after the engine has gone on, so the surplus tokens are dropped.
        """
        sequence = self._state.sequences.get(request_id)
        if sequence is None:
            return False
        del sequence.generated[length:]
        self._state.end(sequence)
        return True

    def requeue_all(
        self, attempt: Attempt, capacity: Capacity, cost: CostModel, first_step: int = 0
    ) -> list[str]:
        """Queue every sequence again with the tokens that it has, because a new pipeline has no KV of the old one.

        Results of earlier attempts must not be booked any more.

        Args:
            attempt: the start of the new pipeline.
            capacity: what the new pipeline holds, which may be less than before.
            cost: what steps cost on the new pipeline.
            first_step: number of the next step.

        Returns:
            Ids of the requests that have ended because the new pipeline could not run them even alone.

        Raises:
            ValueError: the attempt is not later than the one before.
        """
        state = self._state
        if state.attempt is not None and attempt <= state.attempt:
            raise ValueError(f"attempt {attempt} does not follow {state.attempt}")
        state.attempt = attempt
        for slot in state.slots.occupied:
            state.requeue(int(slot))
        state.in_flight.clear()
        state.late_tokens.clear()
        oversized = [each for each in state.sequences.values() if not _fits(each.request, capacity)]
        for sequence in oversized:
            state.end(sequence)
        state.pool, state.slots = _empty(capacity)
        self._policy.reset()
        self._begin(capacity, cost, first_step)
        return [sequence.request.id for sequence in oversized]

    def next_step(self, now: float) -> Step | Wait:
        """Return the next step to issue, in order, or what to wait for."""
        while True:
            self._view.renew(now)
            plan = self._policy.plan(self._view)
            if plan is None:
                return Wait.FOR_RESULT if self._state.sequences else Wait.FOR_REQUEST
            preempted = self._state.preemptions
            step = self._issuer.issue(plan)
            if step is not None:
                return step
            if self._state.preemptions == preempted:
                raise RuntimeError(
                    f"policy {self._policy.name} planned rows that cannot run: {plan}"
                )
            # All planned rows were preempted; others may run with the blocks that this has freed.

    def on_result(self, step_id: int, tokens: IntArray) -> Emission:
        """Book the tokens that a step sampled; tokens of sequences that have ended since are dropped.

        Args:
            step_id: number of the step, which is in flight.
            tokens: [sampled rows] token ids.
        """
        state, slots = self._state, self._state.slots
        step = state.in_flight.pop(step_id)
        # A sequence that lost its slot is not admitted again before its late tokens are booked, so a slot with its
        # number is still the one that the step was issued for.
        stays = slots.number[step.slots] == step.numbers
        running = step.slots[stays]
        slots.pending[running] -= 1
        found = [slots.sequences[slot] for slot in step.slots.tolist()]
        late_rows = [] if stays.all() else np.flatnonzero(~stays).tolist()
        for row in late_rows:
            found[row] = self._take_late_token(int(step.numbers[row]))
        failed = self._end_failed(tokens, found)
        rows = [row for row, sequence in enumerate(found) if sequence is not None]
        sequences = [sequence for sequence in found if sequence is not None]
        values = (tokens if len(rows) == len(tokens) else tokens[rows]).tolist()
        names = [sequence.request.id for sequence in sequences]
        emission = Emission(names, values, rows, failed=failed)
        for sequence, value in zip(sequences, values, strict=True):
            request, generated = sequence.request, sequence.generated
            generated.append(value)
            stops = value in request.stop_token_ids
            if stops or len(generated) >= request.max_tokens:
                reason = FinishReason.STOP if stops else FinishReason.LENGTH
                emission.finished[request.id] = reason
                state.end(sequence)
        for row in late_rows:
            if (waiting := found[row]) is not None:
                state.waiting.update(waiting)
        return emission

    def _end_failed(self, tokens: IntArray, found: list[Sequence | None]) -> list[str]:
        """End the sequences for which no token could be sampled, and take them out of `found`."""
        if not len(tokens) or tokens.min() != NO_TOKEN:
            return []
        failed = []
        for row in np.flatnonzero(tokens == NO_TOKEN).tolist():
            if (sequence := found[row]) is not None:
                failed.append(sequence.request.id)
                self._state.end(sequence)
                found[row] = None
        return failed

    def _take_late_token(self, number: int) -> Sequence | None:
        """Return the waiting sequence whose token was in flight when it lost its slot; None if it has ended."""
        late_tokens = self._state.late_tokens
        if number not in late_tokens:
            return None
        late_tokens[number] -= 1
        if late_tokens[number] == 0:
            del late_tokens[number]
        return self._state.waiting.find(number)


def _empty(capacity: Capacity) -> tuple[BlockPool, RunningSequences]:
    pool = BlockPool(capacity.blocks, capacity.block_size)
    return pool, RunningSequences(capacity.slots, pool.blocks_for(capacity.max_context))


def _fits(request: Request, capacity: Capacity) -> bool:
    try:
        capacity.check(len(request.prompt), request.max_tokens)
    except RequestError:
        return False
    return True
