"""What the adaptive policy chooses: tile edges, phases where mixing is expensive, long outputs before the end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest

from tdpipe.core.capacity import Capacity
from tdpipe.core.lengths import LengthDistribution
from tdpipe.core.request import Request
from tdpipe.core.step import Phase, Step
from tdpipe.scheduling.cost_model import CostModel, MixingCost, StageCost
from tdpipe.scheduling.policies.adaptive import AdaptivePolicy, KVOutlook
from tdpipe.scheduling.policies.composition import Mix, best_mixed, candidate_budgets, phased_rate
from tdpipe.scheduling.policies.latency_targets import LatencyTargets
from tdpipe.scheduling.scheduler import Scheduler
from tdpipe.scheduling.waiting_queue import Load

if TYPE_CHECKING:
    from tdpipe.scheduling.view import View

STAGES = 4
MOST = 512
MIX = Mix(prefill_per_output=0.9, resident=700.0, output=400.0)


def staircase(edge: int, mixing: MixingCost | None = None) -> CostModel:
    """20 ms up to `edge` tokens, and as much again for each further tile of that width."""
    points = np.array([1, edge, edge + 1, 2 * edge, 2 * edge + 1, 3 * edge], dtype=np.int32)
    stage = StageCost(points, np.array([0.02, 0.02, 0.04, 0.04, 0.06, 0.06]), 1e-8)
    return CostModel((stage,) * STAGES, mixing)


def test_budgets_to_choose_from_hold_the_usual_tile_edges_and_the_largest() -> None:
    budgets = candidate_budgets(5_000).tolist()
    assert {16, 32, 64, 128, 192, 256, 512, 768, 1_024, 2_048, 4_096} <= set(budgets)
    assert budgets == sorted(set(budgets))
    assert budgets[-1] == 5_000
    assert candidate_budgets(100).tolist() == [16, 32, 48, 64, 80, 96, 100]


@pytest.mark.parametrize("edge", [64, 128, 192])
def test_the_budget_ends_on_the_tile_edge(edge: int) -> None:
    kv_tokens = edge / 1.9 * STAGES * MIX.resident
    best = best_mixed(staircase(edge), STAGES, kv_tokens, 10_000, MIX, candidate_budgets(MOST))
    assert best.budget == edge


def test_of_nearly_equal_budgets_haste_takes_the_largest() -> None:
    points = np.array([1, 128, 129, 512], dtype=np.int32)
    flat = CostModel((StageCost(points, np.array([0.02, 0.02, 0.0201, 0.0201])),) * STAGES)
    room = (STAGES, 60 * STAGES * MIX.resident, 10_000, MIX, candidate_budgets(MOST))
    assert best_mixed(flat, *room).budget == MOST
    assert best_mixed(flat, *room, eager=False).budget == 128


@pytest.mark.parametrize("eager", [True, False])
def test_short_answers_to_long_prompts_are_prefilled_in_large_chunks(eager: bool) -> None:
    points = np.array([1, MOST], dtype=np.int32)
    fixed = CostModel((StageCost(points, np.array([0.02, 0.06])),) * STAGES)
    short = Mix(prefill_per_output=700.0, resident=2_000.0, output=3.0)
    room = (STAGES, 100_000.0, 10_000, short, candidate_budgets(MOST))
    best = best_mixed(fixed, *room, eager=eager)
    assert best.budget == MOST
    assert best.rate == pytest.approx(MOST / 701.0 / 0.06, rel=0.01)


def test_phases_promise_no_more_than_mixing_where_not_every_stage_has_a_sequence() -> None:
    room = (STAGES, 2 * MIX.resident, 10_000, MIX)
    mixed = best_mixed(staircase(128), *room, candidate_budgets(MOST))
    assert phased_rate(staircase(128), *room, MOST) <= mixed.rate


def test_mixing_is_expensive_where_it_costs_more_than_a_decode_step() -> None:
    kv_tokens = 60 * STAGES * MIX.resident
    room = (STAGES, kv_tokens, 10_000, MIX)
    for seconds, phases in ((0.0, False), (0.03, True)):
        cost = staircase(128, MixingCost(seconds))
        mixed = best_mixed(cost, *room, candidate_budgets(MOST)).rate
        assert (phased_rate(cost, *room, 256) > mixed) is phases


def test_prompts_that_chunks_cut_are_read_again() -> None:
    long = Mix.of(Load(2, 4_000.0, 400.0, 8e5, 1e5, 8e6), 0.0)
    assert long is not None
    assert long.chunk_start == 1_000.0  # two prompts of 2,000 tokens, cut anywhere
    assert long.chunk_reads(np.array([64.0, 200.0]), 64).tolist() == [1_000.0, 4_000.0]


def test_chunks_that_read_much_again_make_small_budgets_expensive() -> None:
    long = replace(MIX, chunk_start=4_000.0)
    room = (STAGES, 60 * STAGES * MIX.resident, 10_000, long, candidate_budgets(MOST))
    rates = [
        best_mixed(CostModel(staircase(128).stages, chunk_tile=tile), *room).rate
        for tile in (128, 8)
    ]
    assert rates[1] < rates[0]


def scheduler_of(
    cost: CostModel,
    requests: list[tuple[int, int]],
    *,
    blocks: int = 400,
    slots: int = 512,
    targets: LatencyTargets | None = None,
) -> Scheduler:
    scheduler = Scheduler(AdaptivePolicy(MOST, targets), Capacity(blocks, 16, slots, 2_048), cost)
    for number, (prompt, output) in enumerate(requests):
        lengths = LengthDistribution((output,))
        scheduler.add(Request(str(number), (3,) * prompt, output, lengths), 0.0)
    return scheduler


def served(scheduler: Scheduler, seconds_per_step: float = 0.02) -> list[Step]:
    """Every step until all requests have ended, on a clock that goes on with the results."""
    steps: list[Step] = []
    in_flight: list[Step] = []
    now = 0.0
    while scheduler.state.sequences:
        step = scheduler.next_step(now)
        if isinstance(step, Step):
            steps.append(step)
            in_flight.append(step)
            continue
        done = in_flight.pop(0)
        now += seconds_per_step
        tokens = np.full(int(done.sample.sum()), 9, dtype=np.int32)
        scheduler.on_result(done.id, tokens)
    return steps


def test_prefill_and_decode_share_steps_where_that_is_cheap_and_not_where_it_is_expensive() -> None:
    requests = [(100, 60 + number % 40) for number in range(150)]
    shares = []
    for mixing in (MixingCost(), MixingCost(0.5)):
        steps = served(scheduler_of(staircase(128, mixing), requests))
        shares.append(sum(step.phase is Phase.MIXED for step in steps) / len(steps))
    assert shares[0] > 0.1
    assert shares[1] < 0.01


def test_phases_begin_with_the_prompt_that_mixing_has_started() -> None:
    scheduler = scheduler_of(staircase(128), [(700, 60)] * 20)
    view = scheduler._view
    while not view.decoding or view.partial_prefill() is None:
        step = scheduler.next_step(0.0)
        assert isinstance(step, Step)
        tokens = np.full(int(step.sample.sum()), 9, dtype=np.int32)
        scheduler.on_result(step.id, tokens)
        view.renew(0.0)
    partial = view.partial_prefill()
    view.cost = staircase(128, MixingCost(0.5))
    scheduler.add(Request("late", (3,), 1, LengthDistribution((1,))), 0.0)
    step = scheduler.next_step(0.0)
    assert isinstance(step, Step)
    assert step.phase is Phase.PREFILL
    assert partial is not None
    assert partial.slot in step.slots


def test_rounds_wait_for_their_longest_micro_batch() -> None:
    points = np.array([1, 128, 129, 512], dtype=np.int32)
    flat, steep = (
        CostModel((StageCost(points, np.array([0.02, 0.02, above, above])),) * STAGES)
        for above in (0.02, 0.06)
    )
    budget = np.array([512], dtype=np.int32)
    kv_tokens = 60 * STAGES * MIX.resident
    level, uneven = (
        best_mixed(cost, STAGES, kv_tokens, 10_000, MIX, budget).rate for cost in (flat, steep)
    )
    share = 60 * MIX.prefill_per_output / (512 - 60)
    computing = 0.02 + share * 0.04
    assert uneven < 0.9 * level * 0.02 / computing  # the rest waits


def test_the_longest_are_admitted_before_their_turn_when_the_end_is_near() -> None:
    requests = [(40, 20)] * 120 + [(40, 400)]
    steps = served(scheduler_of(staircase(128), requests, blocks=100))
    order = [start.sequence for step in steps for start in step.starts]
    assert order.index(120) < 100


def test_the_order_is_that_of_arrival_while_requests_keep_coming() -> None:
    requests = [(40, 20)] * 120 + [(40, 400)]
    steps = served(scheduler_of(staircase(128), requests, blocks=100), seconds_per_step=0.0)
    order = [start.sequence for step in steps for start in step.starts]
    assert order.index(120) >= 100


def test_young_sequences_are_admitted_only_as_far_as_they_will_fit() -> None:
    together = [(32, 200)] * 80  # all at once hold 80 * 15 blocks at their end, and 80 * 2 at first
    steps = served(scheduler_of(staircase(128), together, blocks=500))
    started = sum(len(step.starts) for step in steps)
    assert started < 1.15 * len(together)  # those that were preempted start twice


@dataclass
class Turnover:
    """The part of the view that tells how much has changed."""

    changes: int
    decoding: int


@pytest.mark.parametrize(
    ("changes", "decoding", "old"),
    [(100, 64, False), (102, 66, False), (103, 64, True), (100, 61, True), (100, 67, True)],
)
def test_the_forecast_is_made_again_once_enough_requests_have_come_or_gone(
    changes: int, decoding: int, *, old: bool
) -> None:
    outlook = KVOutlook(spare=0.0, changes=100, decoding=64)
    assert outlook.is_old(cast("View", Turnover(changes, decoding))) is old


def test_a_target_for_tokens_keeps_micro_batches_short() -> None:
    points = np.array([1, 64, 65, 512], dtype=np.int32)
    cost = CostModel((StageCost(points, np.array([0.02, 0.02, 0.03, 0.03])),) * STAGES)
    requests = [(100, 60)] * 100
    free = served(scheduler_of(cost, requests, blocks=2_000))
    targets = LatencyTargets(
        tpot=0.1
    )  # a round of four steps takes 80 ms up to 64 tokens, then 120
    bound = served(scheduler_of(cost, requests, blocks=2_000, targets=targets))
    assert max(step.tokens for step in free) > 64
    assert max(step.tokens for step in bound) <= 64


def test_a_partial_prefill_may_hold_the_only_slot() -> None:
    scheduler = scheduler_of(staircase(128), [(2 * MOST, 4)], slots=1)
    first = scheduler.next_step(0.0)
    assert isinstance(first, Step)
    scheduler.add(Request("later", (3,) * 8, 4, LengthDistribution((4,))), 0.0)
    second = scheduler.next_step(0.0)
    assert isinstance(second, Step)
    assert second.first.tolist() == [first.counts[0]]
