"""What steps the separate policy makes, seen through the scheduler."""

from __future__ import annotations

import numpy as np

from tdpipe.core.capacity import Capacity
from tdpipe.core.lengths import LengthDistribution
from tdpipe.core.request import Request
from tdpipe.core.step import Phase, Step
from tdpipe.scheduling.cost_model import proportional_cost
from tdpipe.scheduling.policies.separate import SeparatePolicy
from tdpipe.scheduling.scheduler import Scheduler


def make_scheduler(requests: int, *, blocks: int) -> Scheduler:
    capacity = Capacity(blocks, block_size=16, slots=64, max_context=512)
    scheduler = Scheduler(SeparatePolicy(64), capacity, proportional_cost(1))
    for number in range(requests):
        lengths = LengthDistribution((20,))
        scheduler.add(Request(str(number), (3,) * 32, 20, lengths), 0.0)
    return scheduler


def run_step(scheduler: Scheduler) -> Step:
    step = scheduler.next_step(0.0)
    assert isinstance(step, Step)
    scheduler.on_result(step.id, np.full(int(step.sample.sum()), 9, np.int32))
    return step


def test_waiting_prompts_are_prefilled_first_and_share_no_step_with_decode() -> None:
    scheduler = make_scheduler(6, blocks=200)
    phases = [run_step(scheduler).phase for _ in range(6)]
    assert phases == [Phase.PREFILL] * 3 + [Phase.DECODE] * 3


def test_a_prompt_waits_while_it_would_leave_too_few_blocks_for_decode() -> None:
    scheduler = make_scheduler(5, blocks=8)
    steps = [run_step(scheduler) for _ in range(3)]
    assert sum(len(step.starts) for step in steps) == 3  # two blocks each, and a fourth leaves none
