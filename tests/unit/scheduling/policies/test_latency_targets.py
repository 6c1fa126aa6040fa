"""What bounds on waiting make of a micro-batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tdpipe.scheduling.cost_model import CostModel, MixingCost, StageCost
from tdpipe.scheduling.policies.latency_targets import LatencyTargets
from tdpipe.scheduling.waiting_queue import Load
from tests.support.prompts import prompt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdpipe.core.step import IntArray
    from tdpipe.scheduling.sequence import Sequence

STAGES = 4
BUDGETS = np.array([64, 128, 256, 512], dtype=np.int32)
ROWS = np.arange(20, dtype=np.int32)
CHOSEN = 128


def cost() -> CostModel:
    """10 ms a stage up to 64 tokens and 50 ms more at 512, 1 us for each KV token."""
    points = np.array([64, 512], dtype=np.int32)
    return CostModel((StageCost(points, np.array([0.01, 0.06]), 1e-6),) * STAGES)


@dataclass
class Seen:
    """What a policy sees of 20 decoding sequences."""

    now: float = 0.0
    free_blocks: int = 500
    queue: list[Sequence] = field(default_factory=list)
    partial: Sequence | None = None
    context: int = 20_000
    stages: int = STAGES
    capacity: int = 1_000
    decoding: int = 20
    cost: CostModel = field(default_factory=cost)

    @property
    def load(self) -> Load:
        return Load(len(self.queue), float(sum(each.length for each in self.queue)))

    def waiting(self) -> Iterator[Sequence]:
        return iter(self.queue)

    def partial_prefill(self) -> Sequence | None:
        return self.partial

    def unscheduled(self, sequence: Sequence) -> int:
        return sequence.length // 2

    def context_of(self, slots: IntArray) -> IntArray:
        return np.full(len(slots), self.context // self.decoding, dtype=np.int32)


def fill(targets: LatencyTargets, view: Any) -> tuple[int, int]:  # noqa: ANN401 - stands in for a view
    """The budget and the number of decode rows."""
    budget, decode = targets.fill(view, CHOSEN, BUDGETS, ROWS)
    return budget, len(decode)


def test_without_targets_the_micro_batch_is_the_best_for_throughput() -> None:
    assert fill(LatencyTargets(), Seen(now=9.0, queue=[prompt(5_000)])) == (CHOSEN, 20)


@pytest.mark.parametrize(
    ("waited", "tokens", "hurries"),
    # A step of 128 tokens takes 22 ms, and decode leaves 123 of them to prefill, so that 5,560 tokens take 1 s.
    [(0.9, 100, False), (1.1, 100, True), (0.0, 5_400, False), (0.0, 5_700, True)],
)
def test_prefill_takes_all_once_a_first_token_is_at_risk(
    waited: float, tokens: int, *, hurries: bool
) -> None:
    view = Seen(now=3.0 + waited, queue=[prompt(tokens, arrival=3.0)])
    assert fill(LatencyTargets(ttft=2.0), view) == ((512, 0) if hurries else (CHOSEN, 20))


def test_prefill_does_not_hurry_into_a_cache_that_is_almost_full() -> None:
    view = Seen(now=9.0, queue=[prompt(100)], free_blocks=100)
    assert fill(LatencyTargets(ttft=1.0), view) == (CHOSEN, 20)


def test_a_prompt_that_is_prefilled_already_is_not_hurried() -> None:
    view = Seen(now=9.0, partial=prompt(100))
    assert fill(LatencyTargets(ttft=1.0), view) == (CHOSEN, 20)


@pytest.mark.parametrize(("tokens", "hurries"), [(22_000, True), (22_500, False)])
def test_a_queue_far_too_long_for_the_target_is_left_to_throughput(
    tokens: int, *, hurries: bool
) -> None:
    view = Seen(now=9.0, queue=[prompt(tokens)])
    assert fill(LatencyTargets(ttft=2.0), view) == ((512, 0) if hurries else (CHOSEN, 20))


def test_decode_goes_on_with_hurried_prefill_where_tokens_have_a_target() -> None:
    view = Seen(now=9.0, queue=[prompt(100)])
    assert fill(LatencyTargets(ttft=1.0, tpot=1.0), view) == (512, 20)


def test_what_mixing_costs_makes_hurried_micro_batches_larger() -> None:
    points = np.array([64, 512], dtype=np.int32)
    stages = (StageCost(points, np.array([0.01, 0.5]), 1e-6),) * STAGES
    targets = LatencyTargets(ttft=1.0, tpot=10.0)
    for seconds, budget in ((0.0, 64), (0.5, 512)):
        view = Seen(now=9.0, queue=[prompt(100)], cost=CostModel(stages, MixingCost(seconds)))
        assert fill(targets, view) == (budget, 20)


def test_a_round_is_as_short_as_the_rows_at_hand_allow() -> None:
    # 128 tokens take 17 ms a stage, the rows' KV 20 ms.
    assert fill(LatencyTargets(tpot=0.17), Seen())[0] == 128
    assert fill(LatencyTargets(tpot=0.13), Seen())[0] == 64


def test_what_a_partial_prefill_reads_counts_towards_the_round() -> None:
    view = Seen(partial=prompt(20_000))
    assert fill(LatencyTargets(tpot=0.17), view)[0] == 64


def test_nothing_is_admitted_whose_decoding_would_lengthen_rounds_too_much() -> None:
    view: Any = Seen()
    assert LatencyTargets(tpot=0.1).may_admit(view)
    view.context = 80_000  # 20 ms a stage
    assert not LatencyTargets(tpot=0.1).may_admit(view)
