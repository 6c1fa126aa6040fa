"""tdpipe's own policy: it fills each micro-batch as the cost model says, and keeps the end of finite work short.

Decode rows of equal predicted time are topped up with prefill to the budget at which a token is cheapest for the
requests at hand: a tile edge of the cost model, under which consecutive micro-batches cost the same and KV is full.
Where mixing costs more than it saves, prefill and decode alternate in phases, as in `temporal`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

from tdpipe.scheduling.policies.composition import (
    Mix,
    best_mixed,
    candidate_budgets,
    phased_rate,
)
from tdpipe.scheduling.policies.latency_targets import LatencyTargets
from tdpipe.scheduling.policies.tail import admission_order, requests_keep_coming
from tdpipe.scheduling.policies.temporal import TemporalPolicy
from tdpipe.scheduling.policy import Plan, has_kv_reserve, max_steps_in_flight, prefill_rows
from tdpipe.scheduling.work_stealing import next_decode_batch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdpipe.core.step import IntArray
    from tdpipe.scheduling.sequence import Sequence
    from tdpipe.scheduling.view import View

_STEADY_KV_SHARE = 0.97
"""Share of the KV cache that resident sequences fill in steady state."""
_MIN_MODE_CHANGE_GAIN = 1.02
"""Smallest ratio of the predicted rates at which phases replace mixing, or mixing replaces phases."""
_REEVALUATION_DIVISOR = 32
"""The composition is chosen and the outlook made again when the number of requests that have ended or arrived exceeds
the number of decoding sequences divided by this."""


@dataclass(frozen=True, slots=True)
class KVOutlook:
    """Forecast of the KV cache that the running sequences will leave free as they grow, and when it was made.

    Without it, a cache that fills with young sequences, which all grow and none of which ends soon, would overflow.
    """

    spare: float
    """Number of KV tokens that are free when the forecast is highest."""
    changes: int
    """Number of requests added and ended when the forecast was made."""
    decoding: int
    """Number of decoding sequences when the forecast was made."""

    @classmethod
    def of(cls, view: View) -> KVOutlook:
        """Return the outlook at this moment."""
        peak = float(view.running_demand().mean.max())
        return cls((view.capacity - peak) * view.block_size, view.changes, view.decoding)

    def is_old(self, view: View) -> bool:
        """Return whether enough requests have ended or arrived to make the forecast again."""
        changes = max(view.changes - self.changes, abs(view.decoding - self.decoding))
        return changes > view.decoding // _REEVALUATION_DIVISOR

    def fitting(self, waiting: Iterator[Sequence], *, alone: bool) -> Iterator[Sequence]:
        """Yield the first sequences of `waiting` that the spare KV holds.

        They count with their present lengths: the next forecast sees how they grow, and KV reserved for that is lost.

        Args:
            waiting: sequences in the order of admission.
            alone: whether nothing else runs, so that the first sequence is yielded in any case.
        """
        spare = self.spare
        for sequence in waiting:
            spare -= sequence.length
            if spare < 0.0 and not alone:
                return
            alone = False
            yield sequence

    def after(self, rows: tuple[tuple[Sequence, int], ...], partial: Sequence | None) -> KVOutlook:
        """Return the outlook with the sequences of `rows`, except `partial`, which holds KV already."""
        taken = sum(sequence.length for sequence, _ in rows if sequence is not partial)
        return replace(self, spare=self.spare - taken) if taken else self


@dataclass(slots=True)
class _AdaptiveState:
    budget: int
    """Batch tokens of a mixed micro-batch."""
    phased: bool = False
    """Whether prefill and decode alternate in phases instead of sharing micro-batches."""
    chosen_at: int = -1
    """Number of requests added and ended when this was chosen."""
    outlook: KVOutlook | None = None
    """Outlook on the KV cache; None until something was to be admitted."""


class _PhasedPolicy(TemporalPolicy):
    """The `temporal` policy with the order of admission that keeps the end of finite work short."""

    def _admission_order(self, view: View) -> Iterator[Sequence]:
        return admission_order(view)


class AdaptivePolicy:
    """Mixed micro-batches of the best budget, or phases where these are faster.

    Args:
        max_budget: largest number of batch tokens of a micro-batch that holds prefill.
        targets: latency targets. If there is one, prefill and decode are always mixed.
    """

    name = "adaptive"

    def __init__(self, max_budget: int, targets: LatencyTargets | None = None) -> None:
        self._max_budget = max_budget
        self._targets = targets or LatencyTargets()
        self._budgets = candidate_budgets(max_budget)
        self._phased: TemporalPolicy = _PhasedPolicy(max_budget, margin=1.0, hysteresis=1.0)
        self._state = _AdaptiveState(max_budget)

    def reset(self) -> None:
        """See `Policy.reset`; the budget is the largest until there is something to choose for."""
        self._state = _AdaptiveState(self._max_budget)

    def plan(self, view: View) -> Plan | None:
        """See `Policy.plan`."""
        if view.in_flight >= max_steps_in_flight(view):
            return None
        state = self._state
        if view.changes - state.chosen_at > view.decoding // _REEVALUATION_DIVISOR:
            self._choose(view)
        if state.phased:
            return self._phased.plan(view)
        partial = view.partial_prefill()
        waiting: Iterator[Sequence] = iter(())
        outlook = state.outlook
        head = None
        if self._admits(view):
            outlook = outlook if outlook and not outlook.is_old(view) else self._outlook(view)
            alone = not view.decoding and partial is None
            waiting = outlook.fitting(self._admission_order(view), alone=alone)
            head = next(waiting, None)
        if head is not None:  # a target may stop decode for a prompt, so there has to be one
            waiting = chain((head,), waiting)
        prefills = head is not None or partial is not None
        decode = self._decode_batch(view, on_tile_edge=not prefills)
        budget = state.budget
        if prefills:
            budget, decode = self._targets.fill(view, budget, self._budgets, decode)
        rows = tuple(prefill_rows(view, waiting, budget - len(decode)))
        if outlook is not None:
            state.outlook = outlook.after(rows, partial)
        return Plan.of(decode, rows)

    def _admission_order(self, view: View) -> Iterator[Sequence]:
        """Return waiting sequences in the order in which they are admitted."""
        return admission_order(view)

    def _decode_batch(self, view: View, *, on_tile_edge: bool) -> IntArray:
        """Return the slots of the next micro-batch's decode rows."""
        return next_decode_batch(view, on_tile_edge=on_tile_edge)

    def _outlook(self, view: View) -> KVOutlook:
        """Return the outlook on the KV cache at this moment."""
        return KVOutlook.of(view)

    def _has_kv_reserve(self, view: View) -> bool:
        """Return whether enough KV is free to admit one more sequence."""
        return has_kv_reserve(view)

    def _choose(self, view: View) -> None:
        """Choose the budget, and whether to alternate in phases."""
        state = self._state
        state.chosen_at = view.changes
        coming = requests_keep_coming(view)
        # Running sequences make output without prefill only if nothing comes after them.
        mix = Mix.of(view.load, 0.0 if coming else view.running_left)
        if mix is None:
            return
        kv_tokens = _STEADY_KV_SHARE * view.capacity * view.block_size
        resident = view.decoding + view.free_slots + (view.partial_prefill() is not None)
        limits = (view.cost, view.stages, kv_tokens, resident, mix)
        allowed = self._targets.allowed(view, self._budgets, view.context / view.stages)
        best = best_mixed(*limits, allowed, eager=not coming)
        was_phased = state.phased
        state.budget, state.phased = best.budget, False
        if self._targets != LatencyTargets():
            return
        # A change of mode causes bubbles of its own, so the other mode has to be better by some gain.
        factor = 1.0
        if view.decoding:
            factor = 1.0 / _MIN_MODE_CHANGE_GAIN if was_phased else _MIN_MODE_CHANGE_GAIN
        if phased_rate(*limits, self._max_budget) <= best.rate * factor:
            return
        if not was_phased:
            # Phases start with prefill, because a decode phase would not continue a partial prefill.
            self._phased.reset()
        state.phased, state.outlook = True, None

    def _admits(self, view: View) -> bool:
        """Return whether waiting sequences may take KV now, as far as the `KVOutlook` lets them."""
        if not view.waiting_count or not view.free_slots:
            return False
        return self._has_kv_reserve(view) and self._targets.may_admit(view)
