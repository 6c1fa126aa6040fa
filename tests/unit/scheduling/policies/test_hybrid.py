"""What steps the hybrid policy makes, seen through the scheduler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from tdpipe.core.capacity import Capacity
from tdpipe.core.lengths import LengthDistribution
from tdpipe.core.request import Request
from tdpipe.core.step import Phase, Step
from tdpipe.scheduling.cost_model import proportional_cost
from tdpipe.scheduling.policies.hybrid import HybridPolicy
from tdpipe.scheduling.policy import has_kv_reserve
from tdpipe.scheduling.scheduler import Scheduler

if TYPE_CHECKING:
    from tdpipe.scheduling.view import View

BUDGET = 64
PROMPT = 100


def steps_of(requests: int, *, blocks: int) -> list[Step]:
    """Every step until all requests have ended."""
    capacity = Capacity(blocks, 16, 64, 512)
    scheduler = Scheduler(HybridPolicy(BUDGET), capacity, proportional_cost(2))
    for number in range(requests):
        length = 40 + number * 53 % 200
        lengths = LengthDistribution((length,))
        scheduler.add(Request(str(number), (3,) * PROMPT, length, lengths), 0.0)
    steps: list[Step] = []
    in_flight: list[Step] = []
    while True:
        step = scheduler.next_step(0.0)
        if isinstance(step, Step):
            steps.append(step)
            in_flight.append(step)
        elif in_flight:
            done = in_flight.pop(0)
            tokens = np.full(int(done.sample.sum()), 9, dtype=np.int32)
            scheduler.on_result(done.id, tokens)
        else:
            return steps


def test_no_step_exceeds_the_token_budget() -> None:
    assert max(step.tokens for step in steps_of(40, blocks=2000)) == BUDGET


def test_prefill_rides_along_with_decode() -> None:
    assert Phase.MIXED in {step.phase for step in steps_of(40, blocks=500)}


@dataclass
class Crowd:
    """The part of the view that admission looks at."""

    decoding: int
    free_blocks: int
    context: int
    block_size: int = 16


def test_a_small_crowd_leaves_a_larger_part_of_the_cache_free() -> None:
    for decoding, share in ((100, 0.035), (25, 0.07)):
        context = decoding * 1_600
        enough = share * context / 16
        assert not has_kv_reserve(cast("View", Crowd(decoding, int(0.99 * enough), context)))
        assert has_kv_reserve(cast("View", Crowd(decoding, int(1.01 * enough), context)))


def test_what_decodes_next_stays_free_for_many_short_sequences() -> None:
    assert not has_kv_reserve(cast("View", Crowd(1_000, 499, 16_000)))
    assert has_kv_reserve(cast("View", Crowd(1_000, 500, 16_000)))


def test_nothing_stays_free_while_nothing_decodes() -> None:
    assert has_kv_reserve(cast("View", Crowd(0, 0, 0)))


def test_a_full_cache_does_not_make_sequences_drive_each_other_out() -> None:
    requests = 200
    prefilled = sum(
        len(start.tokens) for step in steps_of(requests, blocks=500) for start in step.starts
    )
    assert prefilled < 1.25 * requests * PROMPT
