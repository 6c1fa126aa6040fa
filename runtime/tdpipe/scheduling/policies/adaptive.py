"""Our own policy: each micro-batch is filled as the costs say, and the end of finite work is kept short.

Decode rows of equal predicted time are topped up with prefill to the budget at which, for the requests at hand, a token
is cheapest: a tile edge of the cost model, under which consecutive micro-batches cost the same and KV is full.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tdpipe.core.step import Phase
from tdpipe.scheduling.balance import next_decode_batch
from tdpipe.scheduling.policies.composition import Mix, best_mixed, candidate_budgets
from tdpipe.scheduling.policies.tail import admission_order
from tdpipe.scheduling.policy import Plan, prefill_rows, steps_ahead

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdpipe.scheduling.policy import View
    from tdpipe.scheduling.sequence import Sequence

_RESERVE = 0.5
"""Blocks per decoding sequence that stay free at admission: what decoding takes until the next sequences end."""
_FULL = 0.97
"""Part of the KV cache that resident sequences fill in steady state."""
_NEWS = 32
"""The composition is chosen again once this part of the decoding sequences has ended or arrived."""


@dataclass(frozen=True, slots=True)
class AdaptiveState:
    """The composition in force and when it was chosen."""

    budget: int
    chosen_at: int = -1


class AdaptivePolicy:
    """See the module.

    Args:
        most: batch tokens of a micro-batch at most.
    """

    name = "adaptive"

    def __init__(self, most: int) -> None:
        self._most = most

    def initial(self) -> AdaptiveState:
        """The largest budget, until there is something to choose for."""
        return AdaptiveState(self._most)

    def plan(self, view: View, state: AdaptiveState) -> tuple[Plan | None, AdaptiveState]:
        """See `Policy.plan`."""
        if view.in_flight >= steps_ahead(view):
            return None, state
        if view.changes - state.chosen_at > view.decoding // _NEWS:
            state = self._choose(view, state)
        decode = next_decode_batch(view)
        rows = tuple(prefill_rows(view, self._admitted(view), state.budget - len(decode)))
        if not rows and not len(decode):
            return None, state
        phase = Phase.MIXED if rows and len(decode) else Phase.PREFILL if rows else Phase.DECODE
        return Plan(phase, decode, rows), state

    def _choose(self, view: View, state: AdaptiveState) -> AdaptiveState:
        mix = Mix.of(view.load, view.running_left)
        if mix is None:
            return AdaptiveState(state.budget, view.changes)
        kv_tokens = _FULL * view.capacity * view.block_size
        rows = view.decoding + view.free_slots
        budgets = candidate_budgets(self._most)
        best = best_mixed(view.cost, view.stages, kv_tokens, rows, mix, budgets)
        return AdaptiveState(best.budget, view.changes)

    @staticmethod
    def _admitted(view: View) -> Iterator[Sequence]:
        if view.free_blocks < _RESERVE * view.decoding:
            return iter(())
        return admission_order(view)
