"""For any arrivals and aborts, every block is accounted for and every request ends exactly once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tdpipe.core.attempt import Attempt
from tdpipe.core.capacity import Capacity
from tdpipe.core.lengths import LengthDistribution
from tdpipe.core.request import FinishReason, Request
from tdpipe.core.step import Step
from tdpipe.scheduling.cost_model import CostModel, MixingCost, proportional_cost
from tdpipe.scheduling.policies.adaptive import AdaptivePolicy
from tdpipe.scheduling.policies.hybrid import HybridPolicy
from tdpipe.scheduling.policies.latency_targets import LatencyTargets
from tdpipe.scheduling.policies.reference import ReferencePolicy
from tdpipe.scheduling.policies.separate import SeparatePolicy
from tdpipe.scheduling.policies.temporal import TemporalPolicy
from tdpipe.scheduling.policies.throttled import ThrottledPolicy
from tdpipe.scheduling.scheduler import Scheduler, Wait

if TYPE_CHECKING:
    from tdpipe.scheduling.policy import Policy

EXPENSIVE_MIXING, TTFT_TARGET, BOTH_TARGETS = (
    "adaptive, expensive mixing",
    "adaptive, ttft",
    "adaptive, ttft and tpot",
)
POLICIES = (
    "temporal",
    "adaptive",
    EXPENSIVE_MIXING,
    TTFT_TARGET,
    BOTH_TARGETS,
    "hybrid",
    "separate",
    "throttled",
    "reference",
)
STOP = 1
OTHER = 2


@dataclass(frozen=True)
class Arrival:
    at: int
    prompt: int
    max_tokens: int
    stops_at: int
    aborts_after: int | None
    predicted: tuple[int, ...]


@dataclass(frozen=True)
class Case:
    stages: int
    block_size: int
    blocks: int
    slots: int
    budget: int
    arrivals: list[Arrival] = field(default_factory=list)
    results_per_step: tuple[int, ...] = (0,)
    """Number of results that are booked before each next step, cyclically."""
    seconds_per_event: float = 0.0
    """Seconds between two events. If it is 0, requests always count as coming."""


@st.composite
def cases(draw: st.DrawFn, *, aborts: bool = True, oracle: bool = False) -> Case:
    block_size = draw(st.sampled_from((1, 4, 16)))
    arrivals = []
    max_spare_blocks = draw(st.sampled_from((0, 60)))
    longest_prompt = draw(st.sampled_from((4, 40)))
    for _ in range(draw(st.integers(1, 14))):
        max_tokens = draw(st.integers(1, 40))
        stops_at = draw(st.integers(1, 60))
        length = min(stops_at, max_tokens)
        guess = (
            (length,)
            if oracle
            else tuple(sorted(draw(st.lists(st.integers(1, 60), min_size=1, max_size=4))))
        )
        arrivals.append(
            Arrival(
                draw(st.integers(0, 30)),
                draw(st.integers(1, longest_prompt) | st.integers(30, 40)),
                max_tokens,
                stops_at,
                draw(st.none() | st.integers(0, 40)) if aborts else None,
                guess,
            )
        )
    longest = max(-(-(a.prompt + a.max_tokens) // block_size) for a in arrivals)
    return Case(
        draw(st.integers(1, 4)),
        block_size,
        longest + draw(st.integers(0, max_spare_blocks)),
        draw(st.integers(1, 12)),
        draw(st.integers(1, 64)),
        sorted(arrivals, key=lambda a: a.at),
        tuple(draw(st.lists(st.integers(0, 5), min_size=1, max_size=8))),
        draw(st.sampled_from((0.0, 1e-3, 1e3))),
    )


def make_scheduler(policy: str, case: Case) -> Scheduler:
    made: dict[str, Policy] = {
        "temporal": TemporalPolicy(case.budget, 0.0, 1.0),
        "adaptive": AdaptivePolicy(case.budget),
        EXPENSIVE_MIXING: AdaptivePolicy(case.budget),
        TTFT_TARGET: AdaptivePolicy(case.budget, LatencyTargets(ttft=0.02)),
        BOTH_TARGETS: AdaptivePolicy(case.budget, LatencyTargets(ttft=0.02, tpot=0.005)),
        "hybrid": HybridPolicy(case.budget),
        "separate": SeparatePolicy(case.budget),
        "throttled": ThrottledPolicy(case.budget),
        "reference": ReferencePolicy(),
    }
    capacity = Capacity(case.blocks, case.block_size, case.slots, 128)
    cost = proportional_cost(case.stages)
    if policy == EXPENSIVE_MIXING:
        cost = CostModel(cost.stages, MixingCost(seconds=1.0))
    return Scheduler(made[policy], capacity, cost)


def check_blocks(scheduler: Scheduler) -> None:
    state = scheduler.state
    tables = np.zeros(state.pool.blocks, dtype=np.int32)
    for slot in state.slots.occupied:
        count = state.slots.block_count[slot]
        np.add.at(tables, state.slots.block_table[slot, :count], 1)
        assert count == state.pool.blocks_for(int(state.slots.scheduled[slot]))
    assert np.array_equal(tables, state.pool.references)
    assert int((state.pool.references > 0).sum()) == state.pool.used


class Replay:
    """Drives a scheduler as an engine with a pipeline does, one event per tick."""

    def __init__(self, policy: str, case: Case) -> None:
        self.case = case
        self.scheduler = make_scheduler(policy, case)
        self.ended: dict[str, FinishReason] = {}
        self.output: dict[str, int] = {}
        self.in_flight: list[Step] = []
        self.coverage: dict[int, int] = {}
        self.turn = 0

    @property
    def now(self) -> float:
        return self.turn * self.case.seconds_per_event

    def run(self) -> None:
        arrivals = list(enumerate(self.case.arrivals))
        tick = 0
        while arrivals or self.scheduler.state.sequences or self.in_flight:
            while arrivals and arrivals[0][1].at <= tick:
                index, arrival = arrivals.pop(0)
                self.add(index, arrival)
            for index, arrival in enumerate(self.case.arrivals):
                name = str(index)
                due = arrival.aborts_after is not None and arrival.at + arrival.aborts_after == tick
                if due and name not in self.ended and self.scheduler.abort(name):
                    self.ended[name] = FinishReason.ABORT
            self.advance()
            check_blocks(self.scheduler)
            tick += 1
            assert tick < 20_000, "starved"

    def add(self, index: int, arrival: Arrival) -> None:
        request = Request(
            str(index),
            tuple(range(3, 3 + arrival.prompt)),
            arrival.max_tokens,
            LengthDistribution(arrival.predicted),
            stop_token_ids=frozenset({STOP}),
        )
        self.scheduler.add(request, self.now)
        self.output[request.id] = 0

    def advance(self) -> None:
        self.turn += 1
        for _ in range(self.case.results_per_step[self.turn % len(self.case.results_per_step)]):
            if self.in_flight:
                self.deliver(self.in_flight.pop(0))
        step = self.scheduler.next_step(self.now)
        if isinstance(step, Step):
            self.execute(step)
            self.in_flight.append(step)
            # One per stage, and one that waits at the first.
            assert len(self.in_flight) <= self.case.stages + 1
        elif self.in_flight:
            self.deliver(self.in_flight.pop(0))
        elif step is Wait.FOR_REQUEST:
            assert not self.scheduler.state.sequences
        else:
            raise AssertionError("waits for a result with nothing in flight")

    def execute(self, step: Step) -> None:
        """Check what a stage relies on: each row continues where its slot ends, and a start brings every token."""
        awaited = {
            int(number)
            for issued, rows in self.scheduler.state.in_flight.items()
            for number in rows.numbers
            if issued != step.id
        }
        for start in step.starts:
            self.coverage[start.slot] = 0
            assert start.sequence not in awaited
            prompt = self.case.arrivals[start.sequence].prompt
            assert len(start.tokens) == prompt + self.output[str(start.sequence)]
        assert len(set(step.slots.tolist())) == len(step.slots)
        for slot, first, count in zip(step.slots, step.first, step.counts, strict=True):
            assert self.coverage[int(slot)] == first
            self.coverage[int(slot)] = int(first + count)

    def deliver(self, step: Step) -> None:
        numbers = self.scheduler.state.in_flight[step.id].numbers
        tokens = []
        for number in numbers.tolist():
            # Requests are added in the order of the case, and numbered in the order of adding.
            stop = self.output[str(number)] + 1 >= self.case.arrivals[number].stops_at
            tokens.append(STOP if stop else OTHER)
        emission = self.scheduler.on_result(step.id, np.array(tokens, dtype=np.int32))
        for name in emission.request_ids:
            assert name not in self.ended
            self.output[name] += 1
        for name, reason in emission.finished.items():
            assert name not in self.ended
            self.ended[name] = reason


def expected_length(arrival: Arrival) -> int:
    return min(arrival.stops_at, arrival.max_tokens)


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_request_ends_once_and_leaves_no_block(policy: str, data: st.DataObject) -> None:
    case = data.draw(cases())
    replay = Replay(policy, case)
    replay.run()
    assert set(replay.ended) == {str(index) for index in range(len(case.arrivals))}
    for index, arrival in enumerate(case.arrivals):
        reason = replay.ended[str(index)]
        if reason is not FinishReason.ABORT:
            assert replay.output[str(index)] == expected_length(arrival)
            stopped = arrival.stops_at <= arrival.max_tokens
            assert reason is (FinishReason.STOP if stopped else FinishReason.LENGTH)
    assert replay.scheduler.state.pool.used == 0
    assert replay.scheduler.state.finished == len(case.arrivals)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases(aborts=False, oracle=True))
def test_with_oracle_lengths_nothing_is_preempted(case: Case) -> None:
    replay = Replay("temporal", case)
    replay.run()
    assert replay.scheduler.state.preemptions == 0


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_new_attempt_starts_every_sequence_again_with_its_tokens(
    policy: str, data: st.DataObject
) -> None:
    case = data.draw(cases(aborts=False))
    replay = Replay(policy, case)
    for index, arrival in enumerate(case.arrivals):
        replay.add(index, arrival)
    for _ in range(data.draw(st.integers(0, 60))):
        if not replay.scheduler.state.sequences:
            break
        replay.advance()
    scheduler = replay.scheduler
    capacity = replace(scheduler.capacity, blocks=data.draw(st.integers(1, case.blocks)))
    unfinished = set(scheduler.state.sequences)
    dropped = set(scheduler.requeue_all(Attempt(1, 2), capacity, proportional_cost(case.stages)))
    replay.in_flight.clear()
    assert scheduler.state.pool.used == 0
    while scheduler.state.sequences:
        replay.advance()
    for index, arrival in enumerate(case.arrivals):
        name = str(index)
        fits = arrival.prompt + arrival.max_tokens <= capacity.longest_sequence
        assert (name in dropped) == (name in unfinished and not fits)
        if name not in dropped:
            assert replay.output[name] == expected_length(arrival)


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases(aborts=False), gap=st.integers(30, 60))
def test_no_request_waits_for_an_endless_stream_of_others(
    policy: str, case: Case, gap: int
) -> None:
    """Requests keep coming at a rate that the pipeline can serve, and the first ones must end nevertheless."""
    small = Arrival(0, 4, 6, 6, None, (6,))
    blocks = case.blocks + 2 * -(-10 // case.block_size)
    stream = replace(case, blocks=blocks, slots=case.slots + 2, budget=case.budget + 8)
    watched = [replace(arrival, at=0) for arrival in case.arrivals]
    # A tick is one event, so a request of n tokens takes at least 2n of them: this many serve the watched in turn.
    ticks = 20 + 8 * sum(each.prompt + each.max_tokens for each in watched)
    others = [replace(small, at=tick) for tick in range(0, ticks, gap)]
    replay = Replay(policy, replace(stream, arrivals=[*watched, *others]))
    for tick in range(ticks):
        for index, arrival in enumerate(replay.case.arrivals):
            if arrival.at == tick:
                replay.add(index, arrival)
        replay.advance()
    assert {str(index) for index in range(len(watched))} <= set(replay.ended)
