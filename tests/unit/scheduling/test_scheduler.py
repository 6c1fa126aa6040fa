"""What a preemption, a late token and a new pipeline leave of a request."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tdpipe.core.attempt import Attempt
from tdpipe.core.capacity import Capacity
from tdpipe.core.errors import RequestError
from tdpipe.core.lengths import LengthDistribution
from tdpipe.core.request import FinishReason, Request
from tdpipe.core.step import NO_TOKEN, SequenceStart, Step
from tdpipe.scheduling.cost_model import proportional_cost
from tdpipe.scheduling.policies.adaptive import AdaptivePolicy
from tdpipe.scheduling.policies.hybrid import HybridPolicy
from tdpipe.scheduling.scheduler import Emission, Scheduler, Wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdpipe.scheduling.policy import Policy

STOP = 99


def make_scheduler(*, blocks: int = 8, stages: int = 1, first_step: int = 0) -> Scheduler:
    capacity = Capacity(blocks, block_size=4, slots=4, max_context=32)
    return Scheduler(HybridPolicy(16), capacity, proportional_cost(stages), first_step)


def requeue(
    scheduler: Scheduler, attempt: int, *, blocks: int = 8, first_step: int = 0
) -> list[str]:
    capacity = replace(scheduler.capacity, blocks=blocks)
    return scheduler.requeue_all(Attempt(1, attempt), capacity, proportional_cost(1), first_step)


def request(name: str, prompt: int = 4, max_tokens: int = 20, *stops: int) -> Request:
    return Request(
        name,
        tuple(range(prompt)),
        max_tokens,
        LengthDistribution((max(1, max_tokens),)),
        stop_token_ids=frozenset(stops),
    )


def issue(scheduler: Scheduler) -> Step:
    step = scheduler.next_step(0.0)
    assert isinstance(step, Step)
    return step


def book(scheduler: Scheduler, step: Step, *tokens: int) -> Emission:
    return scheduler.on_result(step.id, np.array(tokens, dtype=np.int32))


def test_a_preempted_sequence_keeps_its_tokens() -> None:
    scheduler = make_scheduler(blocks=4)
    scheduler.add(request("old", 4, 12), 0.0)
    scheduler.add(request("young", 4, 12), 0.0)
    tokens = iter(range(50, 90))
    got: dict[str, list[int]] = {"old": [], "young": []}
    starts: list[SequenceStart] = []
    while scheduler.state.sequences:
        step = issue(scheduler)
        starts += step.starts
        emission = book(scheduler, step, *(next(tokens) for _ in range(int(step.sample.sum()))))
        for name, token in zip(emission.request_ids, emission.tokens, strict=True):
            got[name].append(token)
    assert scheduler.state.preemptions >= 1
    assert [len(each) for each in got.values()] == [12, 12]
    again = starts[2]
    assert again.sequence == 1
    assert again.prompt_length == 4
    known = len(again.tokens) - 4
    assert again.tokens.tolist() == [0, 1, 2, 3, *got["young"][:known]]
    assert known > 0


def test_a_token_that_was_in_flight_when_its_request_ended_is_dropped() -> None:
    scheduler = make_scheduler()
    scheduler.add(request("a"), 0.0)
    step = issue(scheduler)
    assert scheduler.abort("a")
    assert book(scheduler, step, 7).request_ids == []
    assert not scheduler.abort("a")
    assert scheduler.state.pool.used == 0
    assert scheduler.next_step(0.0) is Wait.FOR_REQUEST


def test_a_late_token_does_not_reach_the_slots_next_sequence() -> None:
    scheduler = make_scheduler(stages=2)
    scheduler.add(request("a"), 0.0)
    late = issue(scheduler)
    scheduler.abort("a")
    scheduler.add(request("b"), 0.0)
    own = issue(scheduler)
    assert own.starts[0].slot == late.starts[0].slot
    assert book(scheduler, late, 7).request_ids == []
    assert book(scheduler, own, 8).request_ids == ["b"]


def test_a_late_token_counts_in_the_load_of_what_waits() -> None:
    scheduler = make_scheduler()
    scheduler.add(request("a", 4, 20), 0.0)
    step = issue(scheduler)
    scheduler.state.preempt(step.starts[0].slot)
    assert scheduler.state.waiting.load.tokens == 4
    assert book(scheduler, step, 7).request_ids == ["a"]
    load = scheduler.state.waiting.load
    assert (load.tokens, load.output) == (5, 19)


@pytest.mark.parametrize("make_policy", [HybridPolicy, AdaptivePolicy])
def test_a_sequence_starts_again_only_with_the_token_that_was_in_flight(
    make_policy: Callable[[int], Policy],
) -> None:
    capacity = Capacity(blocks=64, block_size=4, slots=4, max_context=32)
    scheduler = Scheduler(make_policy(16), capacity, proportional_cost(2))
    scheduler.add(request("a", max_tokens=3), 0.0)
    book(scheduler, issue(scheduler), 5)
    scheduler.add(request("b"), 0.0)
    step = issue(scheduler)
    slot = step.starts[0].slot
    scheduler.state.preempt(slot)
    # Much later, no further request is expected, and "b" would outlast "a": it is admitted as soon as it may be.
    while isinstance(more := scheduler.next_step(1e6), Step):
        assert not more.starts
    book(scheduler, step, *(7 if each == slot else 6 for each in step.slots[step.sample]))
    (again,) = issue(scheduler).starts
    assert again.tokens.tolist() == [0, 1, 2, 3, 7]


def test_a_stop_token_ends_only_the_requests_that_have_it() -> None:
    scheduler = make_scheduler()
    scheduler.add(request("a", 4, 20, STOP), 0.0)
    scheduler.add(request("b"), 0.0)
    finished = book(scheduler, issue(scheduler), STOP, STOP).finished
    assert finished == {"a": FinishReason.STOP}


def test_nothing_is_issued_while_every_request_awaits_its_token() -> None:
    scheduler = make_scheduler(stages=2)
    scheduler.add(request("a"), 0.0)
    issue(scheduler)
    assert scheduler.next_step(0.0) is Wait.FOR_RESULT


def test_a_new_pipeline_gets_steps_from_its_first_one_on_and_whole_sequences() -> None:
    scheduler = make_scheduler()
    scheduler.add(request("a"), 0.0)
    book(scheduler, issue(scheduler), 7)
    issue(scheduler)
    requeue(scheduler, 2, first_step=40)
    step = issue(scheduler)
    assert step.id == 40
    assert step.starts[0].tokens.tolist() == [0, 1, 2, 3, 7]


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "blocks", "problem"),
    [
        (0, 5, 4, "at least 1"),
        (5, 0, 4, "at least 1"),
        (20, 13, 8, "context holds 32"),
        (20, 12, 4, "KV cache holds 16"),
    ],
)
def test_a_request_that_could_not_run_alone_is_refused(
    prompt: int, max_tokens: int, blocks: int, problem: str
) -> None:
    with pytest.raises(RequestError, match=problem):
        make_scheduler(blocks=blocks).add(request("a", prompt, max_tokens), 0.0)


def test_an_id_in_use_is_refused() -> None:
    scheduler = make_scheduler()
    scheduler.add(request("a"), 0.0)
    with pytest.raises(RequestError, match="in use"):
        scheduler.add(request("a"), 0.0)


@pytest.mark.parametrize("later", [Attempt(3, 2), Attempt(2, 9), Attempt(3, 1)])
def test_only_a_later_attempt_takes_over(later: Attempt) -> None:
    scheduler = make_scheduler()
    requeue(scheduler, 1)
    capacity, cost = scheduler.capacity, proportional_cost(1)
    scheduler.requeue_all(Attempt(3, 2), capacity, cost)
    with pytest.raises(ValueError, match=f"attempt {later} does not follow 3.2"):
        scheduler.requeue_all(later, capacity, cost)
    scheduler.requeue_all(Attempt(4, 1), capacity, cost)


def test_requests_that_a_smaller_pipeline_cannot_run_end_and_the_others_go_on() -> None:
    scheduler = make_scheduler()
    for name, max_tokens in (("running", 20), ("small", 4), ("waiting", 20)):
        scheduler.add(request(name, 4, max_tokens), 0.0)
        if name == "small":
            book(scheduler, issue(scheduler), 7, 8)
    assert requeue(scheduler, 2, blocks=3) == ["running", "waiting"]
    assert scheduler.state.sequences.keys() == {"small"}
    assert scheduler.state.pool.blocks == 3
    assert issue(scheduler).starts[0].tokens.tolist() == [0, 1, 2, 3, 8]


def test_a_restart_is_no_preemption() -> None:
    scheduler = make_scheduler()
    scheduler.add(request("a"), 0.0)
    issue(scheduler)
    requeue(scheduler, 2)
    assert scheduler.state.preemptions == 0


def test_a_prefill_planned_with_a_preemption_does_not_run_in_its_step() -> None:
    """Otherwise the last two prompts would both be partial prefills, with no block left to go on with either."""
    capacity = Capacity(blocks=35, block_size=1, slots=8, max_context=200)
    scheduler = Scheduler(HybridPolicy(7), capacity, proportional_cost(1))
    sizes = ((1, 3), (1, 7), (1, 8), (1, 5), (1, 8), (1, 6), (9, 1), (34, 1))
    for number, (prompt, max_tokens) in enumerate(sizes):
        scheduler.add(request(str(number), prompt, max_tokens), 0.0)
    ended: set[str] = set()
    in_flight: list[Step] = []
    while scheduler.state.sequences:
        preempted = scheduler.state.preemptions
        step = scheduler.next_step(0.0)
        if isinstance(step, Step):
            in_flight.append(step)
            if scheduler.state.preemptions > preempted:
                assert step.tokens == len(step.slots)
        else:
            done = in_flight.pop(0)
            ended |= book(scheduler, done, *[7] * int(done.sample.sum())).finished.keys()
    assert scheduler.state.preemptions > 0
    assert len(ended) == len(sizes)


def test_sequences_take_turns_where_not_all_fit_in_a_micro_batch() -> None:
    scheduler = make_scheduler(blocks=24, stages=2)
    for name in "abc":
        scheduler.add(request(name), 0.0)
    turns: Counter[int] = Counter()
    while scheduler.state.sequences:
        step = issue(scheduler)
        turns.update(step.slots.tolist())
        book(scheduler, step, *(5 for _ in range(int(step.sample.sum()))))
        assert len(step.slots) == 3 or max(turns.values()) - min(turns.values()) <= 1


def test_a_request_without_a_token_fails_alone_and_frees_what_it_held() -> None:
    scheduler = make_scheduler()
    for name in "abc":
        scheduler.add(request(name), 0.0)
    first = issue(scheduler)
    second = issue(scheduler)
    emission = book(scheduler, first, 50, NO_TOKEN, 52)
    assert emission.failed == ["b"]
    assert (emission.request_ids, emission.tokens, emission.rows) == (["a", "c"], [50, 52], [0, 2])
    assert "b" not in scheduler.state.sequences
    late = book(scheduler, second, 60, NO_TOKEN, 62)
    assert (late.request_ids, late.failed) == (["a", "c"], [])
    for name in "ac":
        scheduler.abort(name)
    assert scheduler.state.pool.used == 0


def test_a_request_whose_late_token_fails_leaves_the_queue() -> None:
    scheduler = make_scheduler()
    scheduler.add(request("a"), 0.0)
    step = issue(scheduler)
    scheduler.state.preempt(0)
    assert book(scheduler, step, NO_TOKEN).failed == ["a"]
    assert scheduler.next_step(0.0) is Wait.FOR_REQUEST
    assert not len(scheduler.state.waiting)
