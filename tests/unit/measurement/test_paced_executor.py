"""A paced stage takes as long as the cost model says, on a clock that only its own waiting advances."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from tdpipe.core.errors import PipelineError
from tdpipe.core.latencies import Latencies
from tdpipe.core.step import TokenFeedback
from tdpipe.measurement.paced_executor import END, OUTPUT, PacedExecutor
from tdpipe.scheduling.cost_model import CostModel, StageCost
from tests.support.step_driver import row_step, start_of

STAGE = StageCost(np.array([1, 100], dtype=np.int32), np.array([0.01, 0.01]), 1e-5)
TOLERANCE = 5e-5
"""Seconds that reading the clock takes in total."""
SLEEP_DELAY = 50e-6
"""Seconds by which a sleep ends late."""
COST = CostModel((STAGE, StageCost(STAGE.table_tokens, 2 * STAGE.table_seconds)))


class Clock:
    """A clock that advances while something sleeps, and a little with each reading."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sleep_delay = SLEEP_DELAY

    def monotonic(self) -> float:
        self.now += 1e-6
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds + self.sleep_delay


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    monkeypatch.setattr(time, "sleep", clock.sleep)
    return clock


def executor(stage: int, latencies: Latencies | None = None) -> PacedExecutor:
    return PacedExecutor(
        COST, stage, latencies or Latencies(), slots=4, max_context=64, blocks=16, block_size=16
    )


FIRST = row_step(0, [(0, 0, 3, True)], (start_of(0, 7, [5, 1, 1]),), [(0, 3)])
NEXT = row_step(1, [(0, 3, 1, True)])
TOKEN = TokenFeedback(0, *(np.array([each], np.int32) for each in (0, 7, 3, OUTPUT)))


def sent_at(time_: float) -> torch.Tensor:
    return torch.full((3, 1), time_, dtype=torch.float64)


def test_a_step_ends_when_the_cost_model_says(clock: Clock) -> None:
    first = executor(0)
    began = clock.now
    first.apply(FIRST)
    hidden = first.forward(FIRST, None)
    assert first.synchronise() == pytest.approx(0.01)
    assert clock.now - began == pytest.approx(0.01, abs=TOLERANCE)
    assert hidden.shape == (3, 1)


def test_waking_up_late_does_not_add_up(clock: Clock) -> None:
    first = executor(0)
    clock.sleep_delay = 0.004
    first.apply(FIRST)
    began = clock.now
    for number in range(10):
        step = row_step(number, [(0, 0, 3, True)])
        first.forward(step, None)
        first.synchronise()
        first.apply(step)
    clock.sleep_delay = SLEEP_DELAY
    first.forward(FIRST, None)
    first.synchronise()
    assert clock.now - began == pytest.approx(11 * 0.01, abs=TOLERANCE)


def test_time_that_the_loop_spends_between_two_steps_counts(clock: Clock) -> None:
    first = executor(0)
    first.apply(FIRST)
    began = clock.now
    first.forward(FIRST, None)
    first.synchronise()
    clock.now += 0.003
    first.apply(FIRST)
    first.forward(FIRST, None)
    first.synchronise()
    assert clock.now - began == pytest.approx(0.023, abs=TOLERANCE)


def test_a_step_that_waited_for_a_token_starts_when_it_comes(clock: Clock) -> None:
    first = executor(0)
    first.apply(FIRST)
    first.forward(FIRST, None)
    first.synchronise()
    first.apply(NEXT)
    assert first.lacks_tokens(NEXT)
    with pytest.raises(PipelineError, match="not been sampled"):
        first.forward(NEXT, None)
    clock.now += 0.005
    arrived = clock.now
    first.store_tokens(TOKEN)
    assert not first.lacks_tokens(NEXT)
    first.forward(NEXT, None)
    first.synchronise()
    assert clock.now - arrived == pytest.approx(0.01 + 3e-5, abs=TOLERANCE)


def test_activations_arrive_when_the_link_would_have_carried_them(clock: Clock) -> None:
    last = executor(1, Latencies(activations=0.001, activation_token=0.0005))
    last.apply(FIRST)
    sent = clock.now
    clock.now += 0.002  # this machine took longer than the link would, which does not count
    last.sample(FIRST, last.forward(FIRST, sent_at(sent)))
    last.synchronise()
    assert clock.now - sent == pytest.approx(0.02 + 0.0025, abs=TOLERANCE)


def test_activations_that_arrived_earlier_delay_nothing(clock: Clock) -> None:
    last = executor(1, Latencies(activations=0.001, activation_token=0.0005))
    began = clock.now
    last.apply(FIRST)
    last.sample(FIRST, last.forward(FIRST, sent_at(began - 5.0)))
    last.synchronise()
    assert clock.now - began == pytest.approx(0.02, abs=TOLERANCE)


@pytest.mark.usefixtures("clock")
def test_a_request_ends_at_the_length_that_its_first_token_states() -> None:
    last = executor(1)
    tokens, known, now = [], [4, 1, 1], torch.zeros((3, 1), dtype=torch.float64)
    step = row_step(0, [(2, 0, 3, True)], (start_of(2, 7, known),), [(2, 5)])
    for number in range(4):
        last.apply(step)
        output, feedback = last.sample(step, last.forward(step, now))
        tokens += output.tokens.tolist()
        assert feedback.positions.tolist() == [3 + number]
        step = row_step(number + 1, [(2, 3 + number, 1, True)])
    assert tokens == [OUTPUT, OUTPUT, OUTPUT, END]


@pytest.mark.usefixtures("clock")
def test_a_request_that_was_preempted_ends_at_the_same_length() -> None:
    last = executor(1)
    start = start_of(1, 7, [3, 1, OUTPUT, OUTPUT])
    start = type(start)(start.slot, start.sequence, start.tokens, 2, start.sampling)
    step = row_step(0, [(1, 0, 4, True)], (start,), [(1, 0)])
    last.apply(step)
    output, _ = last.sample(step, last.forward(step, torch.zeros((4, 1), dtype=torch.float64)))
    assert output.tokens.tolist() == [END]


@pytest.mark.usefixtures("clock")
def test_an_impossible_step_is_refused_as_on_a_real_stage() -> None:
    with pytest.raises(PipelineError, match="without a sequence"):
        executor(0).forward(row_step(0, [(0, 0, 1, True)]), None)
