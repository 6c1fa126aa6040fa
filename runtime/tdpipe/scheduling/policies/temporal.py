"""TD-Pipe's policy: all stages prefill, then all stages decode.

Prefill goes on while the forecast KV use fits at every future step; decode goes on until what its thinning batches
lose exceeds what switching would cost over the phase that would follow, both in seconds from the cost model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from tdpipe.core.step import Phase
from tdpipe.scheduling.balance import next_decode_batch
from tdpipe.scheduling.forecast import Demands
from tdpipe.scheduling.policy import NO_ROWS, Plan, prefill_rows, steps_ahead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tdpipe.core.step import FloatArray
    from tdpipe.scheduling.balance import DecodeBatch
    from tdpipe.scheduling.forecast import Demand
    from tdpipe.scheduling.policy import View
    from tdpipe.scheduling.sequence import Sequence

_LOOK_AHEAD = 256
"""Waiting requests that the switch rule looks at."""
_NEWS = 32
"""The switch rule is evaluated again once this part of the decoding sequences has ended or arrived."""
_LONGER = 1.5
"""So is it when the decode phase has become this many times as long."""
_PATIENCE = 0.05
"""What fits is let in once the bubble that it costs is this share of the decode phase. So nothing waits for the longest
output of a batch that never thins."""
_WINDOW = 16
"""Waiting requests whose forecast is made at once."""


@dataclass(frozen=True, slots=True)
class TemporalState:
    """The phase, and what it was judged by."""

    phase: Phase = Phase.PREFILL
    demand: Demand | None = None
    """Forecast of what holds KV, kept up to date during a prefill phase."""
    judged_at: int = -1
    """Requests added and ended when the switch rule was last evaluated."""
    decoded: float = 0.0
    """Seconds of a stage that this decode phase has taken, by the cost model."""
    decoded_when_judged: float = 0.0


class TemporalPolicy:
    """Greedy prefill, time-balanced decode, spatial-temporal switch.

    Args:
        token_budget: batch tokens of a prefill micro-batch.
        margin: standard deviations of the forecast that stay free.
        hysteresis: by which share the loss must exceed the cost of a switch.
        order: in which waiting sequences are admitted; by arrival unless told otherwise.
        decode_batch: levels the decode micro-batches.
        peaks: [n] KV blocks that must be there for each of [n] demands; what is forecast, and the margin, unless told
            otherwise.
        switch: whether to prefill, given the waiting sequences that fit, one at least, and the seconds that the decode
            phase has taken; by comparing losses unless told otherwise.
    """

    name = "temporal"

    def __init__(
        self,
        token_budget: int,
        margin: float,
        hysteresis: float,
        order: Callable[[View], Iterator[Sequence]] | None = None,
        *,
        decode_batch: DecodeBatch = next_decode_batch,
        peaks: Callable[[Demands], FloatArray] | None = None,
        switch: Callable[[View, list[Sequence], float], bool] | None = None,
    ) -> None:
        self._budget = token_budget
        self._hysteresis = hysteresis
        self._order = order or by_arrival
        self._decode_batch = decode_batch
        self._peaks = peaks or partial(Demands.peaks, margin=margin)
        self._switch = switch or self._thins_too_much

    def initial(self) -> TemporalState:
        """Prefill, since nothing runs yet."""
        return TemporalState()

    def plan(self, view: View, state: TemporalState) -> tuple[Plan | None, TemporalState]:
        """See `Policy.plan`."""
        if view.in_flight >= steps_ahead(view):
            return None, state
        if state.phase is Phase.DECODE and self._worth_switching(view, state):
            state = TemporalState(Phase.PREFILL)
        elif state.phase is Phase.DECODE and self._much_has_changed(view, state):
            state = replace(state, judged_at=view.changes, decoded_when_judged=state.decoded)
        if state.phase is Phase.PREFILL:
            plan, state = self._prefill(view, state)
            if plan is not None:
                return plan, state
            state = TemporalState(Phase.DECODE, judged_at=view.changes)
        batch = self._decode_batch(view, on_edge=True)
        if not len(batch):
            return None, state
        seconds = view.cost.step_time(len(batch), float(view.context_of(batch).sum()))
        return Plan(Phase.DECODE, batch), replace(state, decoded=state.decoded + seconds)

    def _prefill(self, view: View, state: TemporalState) -> tuple[Plan | None, TemporalState]:
        demand = state.demand if state.demand is not None else view.running_demand()
        admitted = self._admission(view, demand)
        rows = tuple(prefill_rows(view, admitted.sequences(), self._budget))
        if not rows:
            return None, state
        return Plan(Phase.PREFILL, NO_ROWS, rows), TemporalState(
            Phase.PREFILL, admitted.accepted(rows)
        )

    def _admission(self, view: View, demand: Demand) -> _Admission:
        return _Admission(view, demand, self._peaks, self._order(view))

    @staticmethod
    def _much_has_changed(view: View, state: TemporalState) -> bool:
        """Whether it is time to evaluate the rule again, which takes a forecast."""
        if state.decoded > _LONGER * state.decoded_when_judged:
            return True
        return view.changes - state.judged_at > view.decoding // _NEWS

    def _worth_switching(self, view: View, state: TemporalState) -> bool:
        if view.partial() is not None:
            return view.decoding == 0
        if not view.waiting_count or not view.free_slots:
            return False
        if view.decoding == 0:
            return True
        thin = view.decoding < view.stages
        if not thin and not self._much_has_changed(view, state):
            return False
        head = next(self._order(view), None)
        if head is None or head.length > view.free_blocks * view.block_size:
            return False  # without a forecast, which costs more than all else here
        admission = self._admission(view, view.running_demand())
        fitting = list(islice(admission.sequences(), min(_LOOK_AHEAD, view.free_slots)))
        if not fitting or thin:
            return bool(fitting)
        return self._switch(view, fitting, state.decoded)

    def _thins_too_much(self, view: View, fitting: list[Sequence], decoded: float) -> bool:
        """Whether the tokens of those that fit, if they waited, would lose more than the bubbles of a switch."""
        fit = len(fitting)
        running, stages = view.decoding, view.stages
        prompts = sum(sequence.length for sequence in fitting)
        # A round gives every running sequence a token and takes a step time per stage.
        now, per_token = _round(view, running, view.context)
        _, per_token_then = _round(view, running + fit, view.context + prompts)
        chunk = view.cost.step_time(min(self._budget, prompts), 0.0, sampled=0)
        bubble = 2.0 * (stages - 1) * abs(chunk - now)
        tokens = sum(sequence.expected_left for sequence in fitting)
        loss = (per_token - per_token_then) * tokens
        return loss > (1.0 + self._hysteresis) * bubble or bubble < _PATIENCE * decoded


def by_arrival(view: View) -> Iterator[Sequence]:
    """Waiting sequences in their turn."""
    return view.waiting()


def _round(view: View, running: int, context: int) -> tuple[float, float]:
    """Seconds of a decode step and per token, with so many sequences in balanced micro-batches."""
    batches = min(view.stages, running)
    step = view.cost.step_time(-(-running // batches), context / batches)
    return step, step * view.stages / running


class _Admission:
    """Admits waiting sequences while the forecast fits; one always when nothing else holds KV."""

    def __init__(
        self,
        view: View,
        demand: Demand,
        peaks: Callable[[Demands], FloatArray],
        waiting: Iterator[Sequence],
    ) -> None:
        self._view = view
        self._demand = demand
        self._peaks = peaks
        self._waiting = waiting
        self._after: dict[int, Demand] = {}

    def sequences(self) -> Iterator[Sequence]:
        """Waiting sequences that may be admitted, in order."""
        view, demand = self._view, self._demand
        alone = view.decoding == 0 and view.partial() is None
        while window := list(islice(self._waiting, _WINDOW)):
            sums = view.forecast.of_waiting(window).after(demand)
            fits = self._peaks(sums) <= view.capacity
            for row, sequence in enumerate(window):
                if not fits[row] and not alone:
                    return
                alone = False
                demand = self._after[sequence.number] = sums.at(row)
                yield sequence

    def accepted(self, rows: tuple[tuple[Sequence, int], ...]) -> Demand:
        """The demand with those sequences that became rows."""
        return self._after.get(rows[-1][0].number, self._demand)
