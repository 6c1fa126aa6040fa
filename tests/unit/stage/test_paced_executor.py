"""A paced stage takes the cost model's time, on a clock that only its own waiting moves."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from tdpipe.core.errors import PipelineError
from tdpipe.scheduling.cost_model import CostModel, StageCost
from tdpipe.stage.paced_executor import END, OUTPUT, Link, PacedExecutor
from tests.support.step_driver import row_step, start_of

STAGE = StageCost(np.array([1, 100], dtype=np.int32), np.array([0.01, 0.01]), 1e-5)
COST = CostModel((STAGE, StageCost(STAGE.table_tokens, 2 * STAGE.table_seconds)))


class Clock:
    """Sleeping passes the time, and each look at it a little."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        self.now += 1e-6
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds + 50e-6


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    monkeypatch.setattr(time, "sleep", clock.sleep)
    return clock


def executor(stage: int, link: Link | None = None) -> PacedExecutor:
    return PacedExecutor(
        COST, stage, link or Link(), slots=4, max_context=64, blocks=16, block_size=16
    )


def test_a_step_ends_when_the_cost_model_says(clock: Clock) -> None:
    first = executor(0)
    step = row_step(0, [(0, 0, 3, True)], (start_of(0, 7, [5, 1, 1]),), [(0, 3)])
    first.apply(step)
    began = clock.now
    hidden = first.forward(step, None)
    first.synchronise()
    assert clock.now - began == pytest.approx(0.01, abs=1e-5)
    assert hidden.shape == (3, 1)
    decode = row_step(1, [(0, 3, 1, True)])
    first.apply(decode)
    assert first.wants_tokens(decode)
    with pytest.raises(PipelineError, match="not been sampled"):
        first.forward(decode, None)


def test_activations_arrive_when_the_link_would_have_carried_them(clock: Clock) -> None:
    last = executor(1, Link(0.001, 0.0005))
    step = row_step(0, [(0, 0, 2, True)], (start_of(0, 7, [5, 1]),), [(0, 3)])
    last.apply(step)
    sent = clock.now
    hidden = last.forward(step, torch.full((2, 1), sent, dtype=torch.float64))
    last.sample(step, hidden)
    last.synchronise()
    assert clock.now - sent == pytest.approx(0.02 + 0.002, abs=2e-5)


def test_activations_that_waited_hold_nothing_up(clock: Clock) -> None:
    last = executor(1, Link(0.001, 0.0005))
    step = row_step(0, [(0, 0, 2, True)], (start_of(0, 7, [5, 1]),), [(0, 3)])
    last.apply(step)
    began = clock.now
    hidden = last.forward(step, torch.full((2, 1), began - 5.0, dtype=torch.float64))
    last.sample(step, hidden)
    last.synchronise()
    assert clock.now - began == pytest.approx(0.02, abs=2e-5)


@pytest.mark.usefixtures("clock")
def test_a_request_ends_at_the_length_that_its_first_token_tells() -> None:
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
def test_an_impossible_step_is_refused_as_by_a_real_stage() -> None:
    with pytest.raises(PipelineError, match="without a sequence"):
        executor(0).forward(row_step(0, [(0, 0, 1, True)]), None)
