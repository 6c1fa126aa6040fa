"""TD-Pipe's policy: all stages prefill, then all stages decode (arXiv 2506.10470).

Prefill goes on while the forecast KV use fits at every future step. Decode goes on until what its shrinking
micro-batches lose exceeds what a switch would cost over the phase that would follow, both in seconds of the cost model.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from tdpipe.core.step import Phase
from tdpipe.scheduling.policy import NO_ROWS, Plan, max_steps_in_flight, prefill_rows
from tdpipe.scheduling.work_stealing import next_decode_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tdpipe.core.step import FloatArray, IntArray
    from tdpipe.scheduling.forecast import Demand, Demands
    from tdpipe.scheduling.sequence import Sequence
    from tdpipe.scheduling.view import View

_MAX_EVALUATED_REQUESTS = 256
"""Largest number of waiting requests that the switch rule evaluates."""
_SWITCH_REEVALUATION_DIVISOR = 32
"""The switch rule is evaluated again when the number of requests that have ended or arrived exceeds the number of
decoding sequences divided by this."""
_SWITCH_REEVALUATION_GROWTH = 1.5
"""The switch rule is also evaluated again once the decode phase has become this many times as long."""
_MAX_BUBBLE_SHARE = 0.05
"""What fits is admitted once the bubble of a switch is less than this share of the decode phase, so that no request
waits for the longest output of a batch that never shrinks."""
_FORECAST_WINDOW = 16
"""Number of waiting requests that are forecast together."""


@dataclass(slots=True)
class _TemporalState:
    phase: Phase = Phase.PREFILL
    demand: Demand | None = None
    """Forecast of what holds KV, kept up to date during a prefill phase."""
    evaluated_at: int = -1
    """Number of requests added and ended when the switch rule was last evaluated."""
    decode_seconds: float = 0.0
    """Seconds of a stage that this decode phase has taken, by the cost model."""
    evaluated_decode_seconds: float = 0.0
    """These seconds when the switch rule was last evaluated."""


class TemporalPolicy:
    """Greedy prefill, time-balanced decode and the spatial-temporal switch.

    Args:
        token_budget: batch tokens of a prefill micro-batch.
        margin: number of standard deviations of the forecast that stay free.
        hysteresis: share by which the loss must exceed the cost of a switch.
    """

    name = "temporal"

    def __init__(self, token_budget: int, margin: float, hysteresis: float) -> None:
        self._budget = token_budget
        self._margin = margin
        self._hysteresis = hysteresis
        self._state = _TemporalState()

    @property
    def phase(self) -> Phase:
        """Phase that the next step belongs to unless the policy switches."""
        return self._state.phase

    def reset(self) -> None:
        """See `Policy.reset`; the first phase is prefill, because nothing runs yet."""
        self._state = _TemporalState()

    def plan(self, view: View) -> Plan | None:
        """See `Policy.plan`."""
        if view.in_flight >= max_steps_in_flight(view):
            return None
        if self._state.phase is Phase.DECODE:
            if self._worth_switching(view):
                self._state = _TemporalState(Phase.PREFILL)
            elif self._needs_reevaluation(view):
                self._state.evaluated_at = view.changes
                self._state.evaluated_decode_seconds = self._state.decode_seconds
        if self._state.phase is Phase.PREFILL:
            plan = self._prefill(view)
            if plan is not None:
                return plan
            self._state = _TemporalState(Phase.DECODE, evaluated_at=view.changes)
        batch = self._decode_batch(view)
        if not len(batch):
            return None
        seconds = view.cost.step_time(len(batch), float(view.context_of(batch).sum()))
        self._state.decode_seconds += seconds
        return Plan(Phase.DECODE, batch)

    def _admission_order(self, view: View) -> Iterator[Sequence]:
        """Return waiting sequences in the order in which they are admitted, which is that of arrival."""
        return view.waiting()

    def _decode_batch(self, view: View) -> IntArray:
        """Return the slots of the next decode micro-batch."""
        return next_decode_batch(view, on_tile_edge=True)

    def _peaks(self, demands: Demands) -> FloatArray:
        """Return [n] KV blocks that must exist for each of n demands."""
        return demands.peaks(self._margin)

    def _worth_prefilling(self, view: View, fitting: list[Sequence]) -> bool:
        """Return whether the tokens of the sequences that fit would lose more by waiting than a switch costs."""
        fit = len(fitting)
        running, stages = view.decoding, view.stages
        prompts = sum(sequence.length for sequence in fitting)
        # A round gives every running sequence a token and takes a step time per stage.
        step, per_token = _round_seconds(view, running, view.context)
        _, per_token_after = _round_seconds(view, running + fit, view.context + prompts)
        chunk = view.cost.step_time(min(self._budget, prompts), 0.0, sampled=0)
        bubble = 2.0 * (stages - 1) * abs(chunk - step)
        tokens = sum(sequence.expected_left for sequence in fitting)
        loss = (per_token - per_token_after) * tokens
        if loss > (1.0 + self._hysteresis) * bubble:
            return True
        return bubble < _MAX_BUBBLE_SHARE * self._state.decode_seconds

    def _prefill(self, view: View) -> Plan | None:
        demand = self._state.demand
        admission = self._admission(view, view.running_demand() if demand is None else demand)
        rows = tuple(prefill_rows(view, admission.sequences(), self._budget))
        if not rows:
            return None
        self._state.demand = admission.demand_after(rows)
        return Plan(Phase.PREFILL, NO_ROWS, rows)

    def _admission(self, view: View, demand: Demand) -> _Admission:
        return _Admission(view, demand, self._peaks, self._admission_order(view))

    def _needs_reevaluation(self, view: View) -> bool:
        """Return whether it is time to evaluate the switch rule again, which takes a forecast."""
        state = self._state
        if state.decode_seconds > _SWITCH_REEVALUATION_GROWTH * state.evaluated_decode_seconds:
            return True
        changes = view.changes - state.evaluated_at
        return changes > view.decoding // _SWITCH_REEVALUATION_DIVISOR

    def _worth_switching(self, view: View) -> bool:
        if view.partial_prefill() is not None:
            return view.decoding == 0
        if not view.waiting_count or not view.free_slots:
            return False
        if view.decoding == 0:
            return True
        has_idle_stage = view.decoding < view.stages
        if not has_idle_stage and not self._needs_reevaluation(view):
            return False
        head = next(self._admission_order(view), None)
        if head is None or head.length > view.free_blocks * view.block_size:
            return False  # without a forecast, which costs more than all else here
        admission = self._admission(view, view.running_demand())
        limit = min(_MAX_EVALUATED_REQUESTS, view.free_slots)
        fitting = list(islice(admission.sequences(), limit))
        if not fitting or has_idle_stage:
            return bool(fitting)
        return self._worth_prefilling(view, fitting)


def _round_seconds(view: View, running: int, context: int) -> tuple[float, float]:
    """Return the seconds of a decode step and those per token, with `running` sequences in balanced micro-batches."""
    batches = min(view.stages, running)
    step = view.cost.step_time(-(-running // batches), context / batches)
    return step, step * view.stages / running


class _Admission:
    """Admits waiting sequences while the forecast fits; always one if nothing else holds KV.

    Args:
        view: view of the scheduler.
        demand: forecast of the sequences that hold KV.
        peaks: gives the KV blocks that must exist for each of n demands.
        waiting: sequences in the order of admission.
    """

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
        self._demand_after: dict[int, Demand] = {}

    def sequences(self) -> Iterator[Sequence]:
        """Yield the waiting sequences that may be admitted, in order."""
        view, demand = self._view, self._demand
        nothing_holds_kv = view.decoding == 0 and view.partial_prefill() is None
        while window := list(islice(self._waiting, _FORECAST_WINDOW)):
            sums = view.forecast.of_waiting(window).after(demand)
            fits = self._peaks(sums) <= view.capacity
            for row, sequence in enumerate(window):
                if not fits[row] and not nothing_holds_kv:
                    return
                nothing_holds_kv = False
                demand = self._demand_after[sequence.number] = sums.at(row)
                yield sequence

    def demand_after(self, rows: tuple[tuple[Sequence, int], ...]) -> Demand:
        """Return the demand with the sequences that became rows."""
        return self._demand_after.get(rows[-1][0].number, self._demand)
