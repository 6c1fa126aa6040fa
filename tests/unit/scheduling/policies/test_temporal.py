"""What phases the temporal policy makes, seen through the scheduler."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tdpipe.core.capacity import Capacity
from tdpipe.core.lengths import LengthDistribution
from tdpipe.core.request import Request
from tdpipe.core.step import Phase, Step
from tdpipe.scheduling.cost_model import CostModel, StageCost
from tdpipe.scheduling.policies.temporal import TemporalPolicy
from tdpipe.scheduling.scheduler import Scheduler

STAGES = 4
LENGTH = 40
PROMPT = 60


def cost(prefill: float) -> CostModel:
    """Decode steps cost 1 ms + 20 us a row; a full prefill step `prefill` seconds."""
    points = np.array([1, 64, 256], dtype=np.int32)
    stage = StageCost(points, np.array([1e-3, 2.3e-3, max(prefill, 2.3e-3)]))
    return CostModel((stage,) * STAGES)


def scheduler_of(
    requests: int,
    *,
    blocks: int,
    prefill: float = 6e-3,
    hysteresis: float = 1.0,
    margin: float = 0.0,
    prompt: int = PROMPT,
) -> Scheduler:
    policy = TemporalPolicy(256, margin, hysteresis)
    scheduler = Scheduler(policy, Capacity(blocks, 4, 64, 128), cost(prefill))
    for number in range(requests):
        length = LENGTH // 2 + number * 7 % LENGTH
        request = Request(str(number), (3,) * prompt, length, LengthDistribution((length,)))
        scheduler.add(request, 0.0)
    return scheduler


def phases_of(scheduler: Scheduler) -> list[Phase]:
    """Phase of every step until all requests have ended."""
    phases: list[Phase] = []
    in_flight: list[Step] = []
    while True:
        step = scheduler.next_step(0.0)
        if isinstance(step, Step):
            phases.append(step.phase)
            in_flight.append(step)
        elif in_flight:
            done = in_flight.pop(0)
            tokens = np.full(int(done.sample.sum()), 9, dtype=np.int32)
            scheduler.on_result(done.id, tokens)
        else:
            return phases


def switches(phases: list[Phase]) -> int:
    return sum(a is not b for a, b in itertools.pairwise(phases))


def test_prefill_and_decode_never_share_a_step() -> None:
    assert set(phases_of(scheduler_of(40, blocks=300))) == {Phase.PREFILL, Phase.DECODE}


def test_what_fits_is_prefilled_in_one_phase() -> None:
    assert switches(phases_of(scheduler_of(20, blocks=2000))) == 1


def test_prefill_stops_where_the_forecast_is_full() -> None:
    per_request = -(-(PROMPT + LENGTH * 3 // 2) // 4)
    scheduler = scheduler_of(20, blocks=per_request * 8)
    while isinstance(step := scheduler.next_step(0.0), Step) and step.phase is Phase.PREFILL:
        scheduler.on_result(step.id, np.full(int(step.sample.sum()), 9, dtype=np.int32))
    assert 8 <= len(scheduler.state.slots.occupied) < 20
    assert len(scheduler.state.waiting) > 0


def test_what_exactly_fills_the_forecast_is_admitted() -> None:
    def admitted(blocks: int) -> int:
        scheduler = scheduler_of(2, blocks=blocks)
        while isinstance(step := scheduler.next_step(0.0), Step) and step.phase is Phase.PREFILL:
            scheduler.on_result(step.id, np.full(int(step.sample.sum()), 9, dtype=np.int32))
        return len(scheduler.state.slots.occupied)

    both = scheduler_of(2, blocks=1_000)
    assert isinstance(both.next_step(0.0), Step)
    peak = int(both.forecast_peak())
    assert (admitted(peak - 1), admitted(peak)) == (1, 2)


def test_a_more_expensive_switch_makes_fewer_phases() -> None:
    cheap = switches(phases_of(scheduler_of(60, blocks=400, prefill=2.3e-3)))
    expensive = switches(phases_of(scheduler_of(60, blocks=400, prefill=60e-3)))
    assert expensive < cheap


def test_hysteresis_makes_fewer_phases() -> None:
    eager = switches(phases_of(scheduler_of(60, blocks=400, hysteresis=0.0)))
    patient = switches(phases_of(scheduler_of(60, blocks=400, hysteresis=20.0)))
    assert patient < eager


def test_a_margin_admits_less_where_lengths_are_uncertain() -> None:
    def admitted(margin: float) -> int:
        scheduler = scheduler_of(60, blocks=150, margin=margin, prompt=4)
        for number in range(60):
            scheduler.revise(str(number), LengthDistribution((5, 60)))
        while isinstance(step := scheduler.next_step(0.0), Step) and step.phase is Phase.PREFILL:
            scheduler.on_result(step.id, np.full(int(step.sample.sum()), 9, dtype=np.int32))
        return len(scheduler.state.slots.occupied)

    assert admitted(2.0) < admitted(0.0)


def test_a_request_that_arrives_in_mid_decode_is_prefilled_before_a_long_one_ends() -> None:
    scheduler = scheduler_of(0, blocks=400)
    long, late = (
        Request(name, (3,) * PROMPT, 60, LengthDistribution((60,))) for name in ("long", "late")
    )
    scheduler.add(long, 0.0)
    for turn in range(10):
        step = scheduler.next_step(0.0)
        if isinstance(step, Step):
            tokens = np.full(int(step.sample.sum()), 9, dtype=np.int32)
            scheduler.on_result(step.id, tokens)
        if turn == 4:
            scheduler.add(late, 0.0)
    assert len(scheduler.state.slots.occupied) == 2


def steps_until_started(
    running: int, prefill: float, stages: int = 2, late_output: int = 16
) -> tuple[int, int]:
    """Decode steps that a late request waits for, and those that the running ones take in all."""
    output = 2_000
    capacity = Capacity(1_000, 16, 16, 4_096)
    points = np.array([1, 64, 512], dtype=np.int32)
    stage = StageCost(points, np.array([10e-3, 10e-3, prefill]))
    scheduler = Scheduler(TemporalPolicy(512, 0.0, 1.0), capacity, CostModel((stage,) * stages))
    lengths = LengthDistribution((output,))
    for number in range(running):
        scheduler.add(Request(str(number), (3,) * 8, output, lengths), 0.0)
    in_flight: list[Step] = []
    steps, started = 0, -1
    while scheduler.state.sequences:
        step = scheduler.next_step(0.0)
        if not isinstance(step, Step):
            done = in_flight.pop(0)
            tokens = np.full(int(done.sample.sum()), 9, dtype=np.int32)
            scheduler.on_result(done.id, tokens)
            continue
        in_flight.append(step)
        steps += step.phase is Phase.DECODE
        if steps == 50 and "late" not in scheduler.state.sequences:
            late = LengthDistribution((late_output,))
            scheduler.add(Request("late", (3,) * 500, late_output, late), 0.0)
        if started < 0 and any(len(start.tokens) == 500 for start in step.starts):
            started = steps
    return started - 50, steps


def test_a_request_never_waits_while_there_are_fewer_than_stages() -> None:
    waited, _ = steps_until_started(1, prefill=0.5)
    assert waited < 10


@pytest.mark.parametrize("stages", [2, 3])
def test_a_prefill_waits_until_its_bubbles_are_a_small_part_of_the_decode_phase(
    stages: int,
) -> None:
    prefill = 0.2
    waited, _ = steps_until_started(8, prefill, stages)
    bubbles = 2.0 * (stages - 1) * (prefill - 10e-3)
    shortest = bubbles / 0.05
    assert shortest <= (50 + waited) * 10e-3 <= 1.6 * shortest


@pytest.mark.parametrize(("late_output", "waits"), [(1_000, True), (1_600, False)])
def test_an_output_that_is_long_enough_is_worth_a_switch_at_once(
    late_output: int, *, waits: bool
) -> None:
    # A ninth sequence makes each token 0.28 ms cheaper, and 0.35 s are twice the bubbles: 1,260 tokens.
    waited, _ = steps_until_started(8, prefill=0.1, late_output=late_output)
    assert (waited > 100) is waits
    assert waits or waited < 10


def test_a_expensive_prefill_waits_for_a_part_of_the_decode_phase_only() -> None:
    waited, steps = steps_until_started(8, prefill=0.5)
    assert 10 < waited < steps * 0.7
    cheap, _ = steps_until_started(8, prefill=0.05)
    assert cheap < waited / 4
