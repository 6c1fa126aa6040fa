"""What stands in a mechanism's place when it is taken away from a policy.

Policies get these through the collaborators that they take anyway; none of it is in the engine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tdpipe.scheduling.balance import next_decode_batch
from tdpipe.scheduling.policies.adaptive import AdaptivePolicy, Outlook
from tdpipe.scheduling.policies.reference import worth_switching
from tdpipe.scheduling.policies.tail import admission_order
from tdpipe.scheduling.policies.temporal import TemporalPolicy
from tdpipe.scheduling.policy import keeps_reserve
from tdpipe.simulation.candidate import Candidate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tdpipe.core.settings import SchedulerSettings
    from tdpipe.core.step import FloatArray, IntArray
    from tdpipe.scheduling.balance import DecodeBatch
    from tdpipe.scheduling.forecast import Demands
    from tdpipe.scheduling.policy import Policy, View
    from tdpipe.scheduling.sequence import Sequence

_TILE, _OVER = 128, 8
"""Tokens of the widest tile, and how far over its edge a budget is put."""


@dataclass(frozen=True, slots=True)
class AblatedCandidate(Candidate):
    """A candidate whose policy is not one of the engine's."""

    build: Callable[[SchedulerSettings], Policy[Any]] = field(kw_only=True)
    """Makes the policy from the candidate's settings."""

    def make_policy(self) -> Policy[Any]:
        return self.build(self.settings)


def adaptive(
    settings: SchedulerSettings,
    *,
    order: Callable[[View], Iterator[Sequence]] = admission_order,
    decode_batch: DecodeBatch = next_decode_batch,
    outlook: Callable[[View], Outlook] = Outlook.of,
    has_room: Callable[[View], bool] = keeps_reserve,
) -> AdaptivePolicy:
    """The policy of the settings with other collaborators."""
    return AdaptivePolicy(
        settings.token_budget,
        order=order,
        decode_batch=decode_batch,
        outlook=outlook,
        has_room=has_room,
    )


def adaptive_at(budget: int, settings: SchedulerSettings) -> AdaptivePolicy:  # noqa: ARG001
    """The policy with one budget of batch tokens instead of a choice."""
    return AdaptivePolicy(budget, budgets=np.array([budget], dtype=np.int32))


def adaptive_over_edges(settings: SchedulerSettings) -> AdaptivePolicy:
    """The policy with a choice of budgets that each begin another of the widest tiles."""
    most = settings.token_budget
    budgets = np.arange(_TILE + _OVER, most + _TILE, _TILE, dtype=np.int32)
    return AdaptivePolicy(most, budgets=budgets)


def temporal(
    settings: SchedulerSettings,
    *,
    margin: float | None = None,
    order: Callable[[View], Iterator[Sequence]] | None = None,
    decode_batch: DecodeBatch = next_decode_batch,
    peaks: Callable[[Demands], FloatArray] | None = None,
    switch: Callable[[View, list[Sequence], float], bool] | None = None,
) -> TemporalPolicy:
    """The policy of the settings with other collaborators."""
    return TemporalPolicy(
        settings.token_budget,
        settings.forecast_margin if margin is None else margin,
        settings.switch_hysteresis,
        order,
        decode_batch=decode_batch,
        peaks=peaks,
        switch=switch,
    )


def off_edge(view: View, *, on_edge: bool = False) -> IntArray:  # noqa: ARG001
    """Batches of equal time that end anywhere in a tile."""
    return next_decode_batch(view)


def by_count(view: View, *, on_edge: bool = False) -> IntArray:  # noqa: ARG001
    """Batches of equal numbers of rows, whatever they cost; those that waited longest."""
    return view.ready[: _share(view)]


def by_count_and_arrival(view: View, *, on_edge: bool = False) -> IntArray:  # noqa: ARG001
    """The same as TD-Pipe published it: the ready that arrived first, who have the longest contexts."""
    return view.by_arrival(view.ready)[: _share(view)]


def _share(view: View) -> int:
    return -(-view.decoding // view.stages)


def own_members(view: View, *, on_edge: bool = False) -> IntArray:  # noqa: ARG001
    """Batches whose members stay: a sequence's slot says to which it belongs."""
    ready = view.ready
    return ready[ready % view.stages == ready[0] % view.stages] if len(ready) else ready


def as_they_come(view: View, *, on_edge: bool = False) -> IntArray:  # noqa: ARG001
    """Whatever is ready, all at once."""
    return view.ready


def used_now(demands: Demands, share: float = 1.0) -> FloatArray:
    """[n] blocks that must be there if nobody looks ahead, and only `share` of the cache is to be used."""
    peaks: FloatArray = demands.mean[:, 0] / share
    return peaks


def free_now(view: View) -> Outlook:
    """The KV that is free now, as if nothing that runs would grow."""
    return Outlook(view.free_blocks * view.block_size, view.changes, view.decoding)


def a_free_block(view: View) -> bool:
    """Whether there is one."""
    return view.free_blocks > 0


def free_share(view: View, fitting: list[Sequence], decoded: float, share: float) -> bool:  # noqa: ARG001
    """Prefill whenever so large a share of the KV cache is free."""
    return view.free_blocks >= share * view.capacity


def published_intensities(view: View, fitting: list[Sequence], decoded: float) -> bool:  # noqa: ARG001
    """Prefill when TD-Pipe's comparison of intensities says so."""
    return worth_switching(view)
