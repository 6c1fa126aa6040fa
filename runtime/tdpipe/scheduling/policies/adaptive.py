"""Our own policy: each micro-batch is filled as the costs say, and the end of finite work is kept short.

Decode rows of equal predicted time are topped up with prefill to the budget at which, for the requests at hand, a token
is cheapest: a tile edge of the cost model, under which consecutive micro-batches cost the same and KV is full. Where
mixing costs more than it saves, prefill and decode alternate in phases, as in `temporal`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

from tdpipe.scheduling.balance import next_decode_batch
from tdpipe.scheduling.policies.composition import (
    Mix,
    best_mixed,
    candidate_budgets,
    phased_rate,
)
from tdpipe.scheduling.policies.latency_targets import LatencyTargets
from tdpipe.scheduling.policies.tail import admission_order, requests_keep_coming
from tdpipe.scheduling.policies.temporal import TemporalPolicy, TemporalState
from tdpipe.scheduling.policy import Plan, keeps_reserve, prefill_rows, steps_ahead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tdpipe.core.step import IntArray
    from tdpipe.scheduling.balance import DecodeBatch
    from tdpipe.scheduling.policy import View
    from tdpipe.scheduling.sequence import Sequence

_FULL = 0.97
"""Part of the KV cache that resident sequences fill in steady state."""
_CLEARLY = 1.02
"""How much better phases must promise to be than mixing, or mixing than phases, to take its place."""
_NEWS = 32
"""The composition is chosen again once this part of the decoding sequences has ended or arrived."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the running sequences will leave of the KV cache as they are expected to grow, and when that was asked.

    A cache that fills with young sequences, which all grow and none of which ends soon, would run over otherwise.
    """

    spare: float
    """KV tokens free at the worst moment to come."""
    changes: int
    """Requests added and ended."""
    decoding: int

    @classmethod
    def of(cls, view: View) -> Outlook:
        """As of now."""
        peak = float(view.running_demand().mean.max())
        return cls((view.capacity - peak) * view.block_size, view.changes, view.decoding)

    def is_old(self, view: View) -> bool:
        """Whether enough has ended or begun to ask again."""
        news = max(view.changes - self.changes, abs(view.decoding - self.decoding))
        return news > view.decoding // _NEWS

    def fitting(self, waiting: Iterator[Sequence], *, alone: bool) -> Iterator[Sequence]:
        """The first of `waiting` that the spare room holds; one in any case if nothing else runs.

        By their present lengths: how they grow is seen when it is asked again, and room that waits for it is lost.
        """
        spare = self.spare
        for sequence in waiting:
            spare -= sequence.length
            if spare < 0.0 and not alone:
                return
            alone = False
            yield sequence

    def after(self, rows: tuple[tuple[Sequence, int], ...], begun: Sequence | None) -> Outlook:
        """With the sequences that `rows` admit; all but the one that has begun."""
        taken = sum(sequence.length for sequence, _ in rows if sequence is not begun)
        return replace(self, spare=self.spare - taken) if taken else self


@dataclass(frozen=True, slots=True)
class AdaptiveState:
    """The composition in force and when it was chosen."""

    budget: int
    """Batch tokens of a mixed micro-batch."""
    phases: TemporalState | None = None
    """Set while prefill and decode alternate instead."""
    chosen_at: int = -1
    """Requests added and ended at the choice."""
    outlook: Outlook | None = None
    """None until something was to be admitted."""


class AdaptivePolicy:
    """See the module.

    Args:
        most: batch tokens of a micro-batch that holds prefill, at most.
        targets: bounds on waiting. Where there is one, prefill and decode are mixed.
        order: in which waiting sequences are admitted.
        decode_batch: levels the decode rows of micro-batches.
        budgets: batch tokens to choose from; None is every tile edge up to `most`.
        outlook: on the KV that running sequences will leave.
        has_room: whether enough KV is free for one more to be admitted.
    """

    name = "adaptive"

    def __init__(
        self,
        most: int,
        targets: LatencyTargets | None = None,
        *,
        order: Callable[[View], Iterator[Sequence]] = admission_order,
        decode_batch: DecodeBatch = next_decode_batch,
        budgets: IntArray | None = None,
        outlook: Callable[[View], Outlook] = Outlook.of,
        has_room: Callable[[View], bool] = keeps_reserve,
    ) -> None:
        self._most = most
        self._targets = targets or LatencyTargets()
        self._order = order
        self._decode_batch = decode_batch
        self._budgets = candidate_budgets(most) if budgets is None else budgets
        self._outlook = outlook
        self._has_room = has_room
        self._phased = TemporalPolicy(most, 1.0, 1.0, order, decode_batch=decode_batch)

    def initial(self) -> AdaptiveState:
        """The largest budget, until there is something to choose for."""
        return AdaptiveState(self._most)

    def plan(self, view: View, state: AdaptiveState) -> tuple[Plan | None, AdaptiveState]:
        """See `Policy.plan`."""
        if view.in_flight >= steps_ahead(view):
            return None, state
        if view.changes - state.chosen_at > view.decoding // _NEWS:
            state = self._choose(view, state)
        if state.phases is not None:
            plan, phases = self._phased.plan(view, state.phases)
            return plan, replace(state, phases=phases)
        begun = view.partial()
        waiting: Iterator[Sequence] = iter(())
        outlook = state.outlook
        head = None
        if self._admits(view):
            outlook = outlook if outlook and not outlook.is_old(view) else self._outlook(view)
            alone = not view.decoding and begun is None
            waiting = outlook.fitting(self._order(view), alone=alone)
            head = next(waiting, None)
        if head is not None:  # a target may stop decode for a prompt's sake, so there has to be one
            waiting = chain((head,), waiting)
        prefills = head is not None or begun is not None
        decode = self._decode_batch(view, on_edge=not prefills)
        budget = state.budget
        if prefills:
            budget, decode = self._targets.fill(view, budget, self._budgets, decode)
        rows = tuple(prefill_rows(view, waiting, budget - len(decode)))
        if outlook is not None:
            outlook = outlook.after(rows, begun)
        if outlook is not state.outlook:
            state = replace(state, outlook=outlook)
        return Plan.of(decode, rows), state

    def _choose(self, view: View, state: AdaptiveState) -> AdaptiveState:
        coming = requests_keep_coming(view)
        # What runs makes output without prefill only where nothing comes after it.
        mix = Mix.of(view.load, 0.0 if coming else view.running_left)
        if mix is None:
            return replace(state, chosen_at=view.changes)
        kv_tokens = _FULL * view.capacity * view.block_size
        resident = view.decoding + view.free_slots + (view.partial() is not None)
        room = (view.cost, view.stages, kv_tokens, resident, mix)
        allowed = self._targets.allowed(view, self._budgets, view.context / view.stages)
        best = best_mixed(*room, allowed, eager=not coming)
        mixed = AdaptiveState(best.budget, None, view.changes, state.outlook)
        if self._targets != LatencyTargets():
            return mixed
        phased = phased_rate(*room, self._most)
        # A change of mode costs bubbles of its own, so the other one has to be clearly better.
        edge = 1.0 if not view.decoding else _CLEARLY if state.phases is None else 1.0 / _CLEARLY
        if phased <= best.rate * edge:
            return mixed
        # Begins with prefill: a decode phase would leave a begun prompt where it is.
        return replace(mixed, phases=state.phases or TemporalState(), outlook=None)

    def _admits(self, view: View) -> bool:
        """Whether waiting sequences may take KV now, as far as the `Outlook` lets them."""
        if not view.waiting_count or not view.free_slots:
            return False
        return self._has_room(view) and self._targets.may_admit(view)
