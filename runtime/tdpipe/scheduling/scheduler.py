"""The deterministic state machine between requests and steps.

Engine, simulator and property tests drive it alike. It alone owns queues, slots, blocks and preemption; which rows run
is the policy's to say. Blocks and slots are free for reuse the moment their sequence ends or is preempted, even with
steps in flight, because every stage executes steps in the order of issue.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Generic

import numpy as np

from tdpipe.core.errors import RequestError
from tdpipe.core.request import FinishReason, Request
from tdpipe.scheduling.answers import Emission, Idle, WaitUntil
from tdpipe.scheduling.block_pool import BlockPool
from tdpipe.scheduling.forecast import KVForecast
from tdpipe.scheduling.policy import Policy, StateT
from tdpipe.scheduling.sequence import Sequence, outcomes_of
from tdpipe.scheduling.slot_table import SlotTable
from tdpipe.scheduling.state import SchedulerState
from tdpipe.scheduling.step_issuer import StepIssuer
from tdpipe.scheduling.view import StateView

if TYPE_CHECKING:
    from tdpipe.core.capacity import Capacity
    from tdpipe.core.lengths import LengthDistribution
    from tdpipe.core.step import IntArray, Step
    from tdpipe.scheduling.cost_model import CostModel


class Scheduler(Generic[StateT]):
    """See the module. Times are seconds of one clock, the caller's.

    Args:
        policy: decides which rows run.
        capacity: what the pipeline holds.
        cost: what steps cost on each stage, for the policy.
        first_step: number of the first step, where a warm-up has used some.
    """

    def __init__(
        self, policy: Policy[StateT], capacity: Capacity, cost: CostModel, first_step: int = 0
    ) -> None:
        self.capacity = capacity
        pool = BlockPool(capacity.blocks, capacity.block_size)
        longest = pool.blocks_for(capacity.max_context)
        self._state = SchedulerState(pool, SlotTable(capacity.slots, longest))
        self._policy = policy
        self._policy_state = policy.initial()
        forecast = KVForecast(capacity.max_context, capacity.block_size)
        self._view = StateView(self._state, len(cost.stages), cost, forecast)
        self._issuer = StepIssuer(self._state, first_step)

    @property
    def state(self) -> SchedulerState:
        """For reading: metrics, tests."""
        return self._state

    def forecast_peak(self) -> float:
        """KV blocks that the sequences which hold KV will need at most, in expectation."""
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
        """Replace a request's predicted length, when a predictor has learned more. Unknown ids are ignored."""
        sequence = self._state.sequences.get(request_id)
        if sequence is None:
            return
        sequence.outcomes = outcomes_of(lengths, sequence.request.max_tokens)
        if sequence.slot >= 0:
            self._state.slots.outcomes[sequence.slot] = sequence.outcomes
        else:
            self._state.waiting.revised(sequence)

    def abort(self, request_id: str, now: float) -> bool:
        """End a request in whatever state, because nobody wants it any more; False if it has ended."""
        return self.finish(request_id, 0, now)

    def finish(self, request_id: str, length: int, now: float) -> bool:  # noqa: ARG002 - as in `add`
        """End a request whose first `length` output tokens complete it; False if it has ended.

        A stop string is found after the engine has gone on: the surplus tokens are dropped.
        """
        sequence = self._state.sequences.get(request_id)
        if sequence is None:
            return False
        del sequence.generated[length:]
        self._state.end(sequence)
        return True

    def requeue_all(self, epoch: int, now: float, first_step: int = 0) -> None:  # noqa: ARG002
        """A new pipeline has nothing of the old one: every sequence starts again with the tokens it has.

        Results of earlier epochs must not be booked any more; steps count from `first_step` again.

        Raises:
            ValueError: the epoch is not later than the one before.
        """
        if epoch <= self._state.epoch:
            raise ValueError(f"epoch {epoch} does not follow {self._state.epoch}")
        self._state.epoch = epoch
        for slot in self._state.slots.occupied:
            self._state.preempt(int(slot))
        self._state.in_flight.clear()
        self._state.flying.clear()
        self._issuer = StepIssuer(self._state, first_step)
        self._policy_state = self._policy.initial()

    def next_step(self, now: float) -> Step | WaitUntil | Idle:
        """The next step to issue, in order, or what to wait for."""
        while True:
            self._view.renew(now)
            plan, self._policy_state = self._policy.plan(self._view, self._policy_state)
            if plan is None:
                return WaitUntil(math.inf) if self._state.sequences else Idle()
            preempted = self._state.preemptions
            step = self._issuer.issue(plan)
            if step is not None:
                return step
            if self._state.preemptions == preempted:
                raise RuntimeError(
                    f"policy {self._policy.name} planned rows that cannot run: {plan}"
                )
            # The rows lost their own blocks; what that leaves may run now.

    def on_result(
        self,
        step_id: int,
        tokens: IntArray,
        stage_durations: tuple[float, ...],  # noqa: ARG002 - cost models that learn will read them
        now: float,  # noqa: ARG002
    ) -> Emission:
        """Book a step's sampled tokens; tokens of sequences that have ended since are dropped."""
        state, slots = self._state, self._state.slots
        flight = state.in_flight.pop(step_id)
        stays = slots.number[flight.slots] == flight.numbers
        stays &= slots.pending[flight.slots] > 0
        held = flight.slots[stays]
        slots.pending[held] -= 1
        found = [slots.sequences[slot] for slot in flight.slots.tolist()]
        late = [] if stays.all() else np.flatnonzero(~stays).tolist()
        for row in late:
            found[row] = self._landed(int(flight.numbers[row]))
        rows = [row for row, sequence in enumerate(found) if sequence is not None]
        sequences = [sequence for sequence in found if sequence is not None]
        values = (tokens[rows] if late else tokens).tolist()
        emission = Emission([sequence.request.id for sequence in sequences], values, rows)
        for sequence, value in zip(sequences, values, strict=True):
            request, generated = sequence.request, sequence.generated
            generated.append(value)
            stops = value in request.stop_token_ids
            if stops or len(generated) >= request.max_tokens:
                reason = FinishReason.STOP if stops else FinishReason.LENGTH
                emission.finished[request.id] = reason
                state.end(sequence)
        for row in late:
            if (landed := found[row]) is not None:
                state.waiting.revised(landed)
        return emission

    def _landed(self, number: int) -> Sequence | None:
        """The sequence of a token that was in flight when its sequence lost its slot."""
        flying = self._state.flying
        if number not in flying:
            return None
        flying[number] -= 1
        if flying[number] == 0:
            del flying[number]
        return self._state.waiting.find(number)
