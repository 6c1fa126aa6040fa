"""Policies in which one mechanism is removed or replaced.

These subclasses override a method for each mechanism; nothing of this is in the engine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.scheduling.policies.adaptive import AdaptivePolicy, KVOutlook
from tdpipe.scheduling.policies.reference import worth_switching
from tdpipe.scheduling.policies.tail import admission_order
from tdpipe.scheduling.policies.temporal import TemporalPolicy
from tdpipe.scheduling.policy import has_kv_reserve
from tdpipe.scheduling.work_stealing import next_decode_batch
from tdpipe.simulation.candidate import Candidate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    from tdpipe.core.settings import SchedulerSettings
    from tdpipe.core.step import FloatArray, IntArray
    from tdpipe.scheduling.forecast import Demands
    from tdpipe.scheduling.policy import Policy
    from tdpipe.scheduling.sequence import Sequence
    from tdpipe.scheduling.view import View

    class DecodeBatch(Protocol):
        """Chooses the slots of the next decode micro-batch, like `next_decode_batch`."""

        def __call__(self, view: View, *, on_tile_edge: bool = False) -> IntArray: ...


_TILE_TOKENS = 128
"""Number of tokens of the widest tile."""
_TOKENS_PAST_EDGE = 8
"""Number of tokens by which a budget exceeds a multiple of the tile."""


@dataclass(frozen=True, slots=True)
class AblatedCandidate(Candidate):
    """A candidate whose policy is not one of the engine's."""

    build: Callable[[SchedulerSettings], Policy] = field(kw_only=True)
    """Makes the policy from the candidate's settings."""

    def make_policy(self) -> Policy:
        return self.build(self.settings)


def by_arrival(view: View) -> Iterator[Sequence]:
    """Return the waiting sequences in the order of arrival."""
    return view.waiting()


class AblatedTemporal(TemporalPolicy):
    """The `temporal` policy with other mechanisms.

    Args:
        token_budget: see `TemporalPolicy`.
        margin: see `TemporalPolicy`.
        hysteresis: see `TemporalPolicy`.
        order: gives waiting sequences in the order of admission.
        decode_batch: chooses decode micro-batches.
        peaks: gives [n] KV blocks that must exist for each of n demands; None is the policy's own method.
        switch: whether to prefill, given the waiting sequences that fit; None is the policy's own method.
    """

    def __init__(
        self,
        token_budget: int,
        margin: float,
        hysteresis: float,
        *,
        order: Callable[[View], Iterator[Sequence]] = by_arrival,
        decode_batch: DecodeBatch = next_decode_batch,
        peaks: Callable[[Demands], FloatArray] | None = None,
        switch: Callable[[View, list[Sequence]], bool] | None = None,
    ) -> None:
        super().__init__(token_budget, margin, hysteresis)
        self._other_order = order
        self._other_decode_batch = decode_batch
        self._other_peaks = peaks or super()._peaks
        self._other_switch = switch or super()._worth_prefilling

    def _admission_order(self, view: View) -> Iterator[Sequence]:
        return self._other_order(view)

    def _decode_batch(self, view: View) -> IntArray:
        return self._other_decode_batch(view, on_tile_edge=True)

    def _peaks(self, demands: Demands) -> FloatArray:
        return self._other_peaks(demands)

    def _worth_prefilling(self, view: View, fitting: list[Sequence]) -> bool:
        return self._other_switch(view, fitting)


class AblatedAdaptive(AdaptivePolicy):
    """The `adaptive` policy with other mechanisms.

    Args:
        max_budget: see `AdaptivePolicy`.
        budgets: batch tokens to choose from; None is the policy's own choice.
        order: gives waiting sequences in the order of admission.
        decode_batch: chooses the decode rows of micro-batches.
        outlook: gives the outlook on the KV cache.
        has_reserve: whether enough KV is free to admit one more sequence.
    """

    def __init__(
        self,
        max_budget: int,
        *,
        budgets: IntArray | None = None,
        order: Callable[[View], Iterator[Sequence]] = admission_order,
        decode_batch: DecodeBatch = next_decode_batch,
        outlook: Callable[[View], KVOutlook] = KVOutlook.of,
        has_reserve: Callable[[View], bool] = has_kv_reserve,
    ) -> None:
        super().__init__(max_budget)
        if budgets is not None:
            self._budgets = budgets
        self._phased = AblatedTemporal(
            max_budget, margin=1.0, hysteresis=1.0, order=order, decode_batch=decode_batch
        )
        self._other_order = order
        self._other_decode_batch = decode_batch
        self._other_outlook = outlook
        self._other_has_reserve = has_reserve

    def _admission_order(self, view: View) -> Iterator[Sequence]:
        return self._other_order(view)

    def _decode_batch(self, view: View, *, on_tile_edge: bool) -> IntArray:
        return self._other_decode_batch(view, on_tile_edge=on_tile_edge)

    def _outlook(self, view: View) -> KVOutlook:
        return self._other_outlook(view)

    def _has_kv_reserve(self, view: View) -> bool:
        return self._other_has_reserve(view)


def adaptive(
    settings: SchedulerSettings,
    *,
    order: Callable[[View], Iterator[Sequence]] = admission_order,
    decode_batch: DecodeBatch = next_decode_batch,
    outlook: Callable[[View], KVOutlook] = KVOutlook.of,
    has_reserve: Callable[[View], bool] = has_kv_reserve,
) -> AblatedAdaptive:
    """Return the policy of the settings with other mechanisms."""
    return AblatedAdaptive(
        settings.token_budget,
        order=order,
        decode_batch=decode_batch,
        outlook=outlook,
        has_reserve=has_reserve,
    )


def adaptive_at(budget: int, settings: SchedulerSettings) -> AblatedAdaptive:  # noqa: ARG001
    """Return the policy with one budget of batch tokens instead of a choice."""
    return AblatedAdaptive(budget, budgets=np.array([budget], dtype=np.int32))


def adaptive_over_edges(settings: SchedulerSettings) -> AblatedAdaptive:
    """Return the policy with a choice of budgets that each exceed a multiple of the widest tile."""
    max_budget = settings.token_budget
    budgets = np.arange(
        _TILE_TOKENS + _TOKENS_PAST_EDGE, max_budget + _TILE_TOKENS, _TILE_TOKENS, dtype=np.int32
    )
    return AblatedAdaptive(max_budget, budgets=budgets)


def temporal(
    settings: SchedulerSettings,
    *,
    margin: float | None = None,
    order: Callable[[View], Iterator[Sequence]] = by_arrival,
    decode_batch: DecodeBatch = next_decode_batch,
    peaks: Callable[[Demands], FloatArray] | None = None,
    switch: Callable[[View, list[Sequence]], bool] | None = None,
) -> AblatedTemporal:
    """Return the policy of the settings with other mechanisms."""
    return AblatedTemporal(
        settings.token_budget,
        settings.forecast_margin if margin is None else margin,
        settings.switch_hysteresis,
        order=order,
        decode_batch=decode_batch,
        peaks=peaks,
        switch=switch,
    )


def off_edge(view: View, *, on_tile_edge: bool = False) -> IntArray:  # noqa: ARG001
    """Return a micro-batch of equal time that ends anywhere in a tile."""
    return next_decode_batch(view)


def by_count(view: View, *, on_tile_edge: bool = False) -> IntArray:  # noqa: ARG001
    """Return an equal share of the rows, whatever they cost; those that have waited longest."""
    return view.ready[: _share(view)]


def by_count_and_arrival(view: View, *, on_tile_edge: bool = False) -> IntArray:  # noqa: ARG001
    """Return an equal share as TD-Pipe published it: the ready rows that arrived first, with the longest contexts."""
    return view.by_arrival(view.ready)[: _share(view)]


def _share(view: View) -> int:
    return -(-view.decoding // view.stages)


def own_members(view: View, *, on_tile_edge: bool = False) -> IntArray:  # noqa: ARG001
    """Return a micro-batch with fixed members, which are those whose slots are equal modulo the number of stages."""
    ready = view.ready
    return ready[ready % view.stages == ready[0] % view.stages] if len(ready) else ready


def as_they_come(view: View, *, on_tile_edge: bool = False) -> IntArray:  # noqa: ARG001
    """Return all rows that are ready."""
    return view.ready


def used_now(demands: Demands, share: float = 1.0) -> FloatArray:
    """Return [n] blocks that must exist without a forecast, if only `share` of the cache is to be used."""
    peaks: FloatArray = demands.mean[:, 0] / share
    return peaks


def free_now(view: View) -> KVOutlook:
    """Return the KV that is free now, as if running sequences did not grow."""
    return KVOutlook(view.free_blocks * view.block_size, view.changes, view.decoding)


def a_free_block(view: View) -> bool:
    """Return whether any block is free."""
    return view.free_blocks > 0


def free_share(view: View, fitting: list[Sequence], share: float) -> bool:  # noqa: ARG001
    """Return whether this share of the KV cache is free, so that prefill starts."""
    return view.free_blocks >= share * view.capacity


def published_intensities(view: View, fitting: list[Sequence]) -> bool:  # noqa: ARG001
    """Return whether to prefill by TD-Pipe's comparison of intensities."""
    return worth_switching(view)
